"""What each phase minimises (paper Eq. 1, 12, 13)."""
