"""Evaluation (paper 4, D): metrics, one file each, and the scores of dubbed clips; numbers only, no pages."""
