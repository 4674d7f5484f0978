"""Progress and sample pictures of a running phase."""
