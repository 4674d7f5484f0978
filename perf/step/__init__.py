"""One training step at the size of a recipe, with and without the kernels, beside what the plan predicts."""
