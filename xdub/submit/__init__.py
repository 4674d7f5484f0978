"""Run the command line's verbs as jobs of a Ray cluster: send this code, and list, follow and stop jobs."""
