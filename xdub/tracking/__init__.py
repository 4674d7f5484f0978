"""What a run does is told to MLflow, through a file that outlives both of them."""
