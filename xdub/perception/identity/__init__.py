"""Face embedders with one interface (`base.Identity`)."""
