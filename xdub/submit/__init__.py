"""The same verbs on a Ray cluster: pack this code, send it as a job, follow it."""
