"""Training: one loop for four phases, with Ray Train, DeepSpeed and MLflow."""
