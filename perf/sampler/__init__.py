"""Sampling: solvers, speed, quality and scaling, and dubbing a video in segments."""
