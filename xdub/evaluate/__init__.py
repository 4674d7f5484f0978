"""Evaluation: metrics (one file each), scoring of finished videos, reports, comparison of training runs
(paper 4, D).
"""
