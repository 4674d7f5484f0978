"""SyncNets with one interface (`base.SyncExpert`), the networks of the lip-sync loss (Eq. 12)."""
