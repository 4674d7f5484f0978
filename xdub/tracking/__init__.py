"""Tracking with MLflow, through a file that outlives both the run and the tracker."""
