"""Face embedders behind one interface."""
