"""Training: one loop, four phases, Ray Train around it, DeepSpeed under it, MLflow beside it."""
