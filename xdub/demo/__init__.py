"""The whole journey with one command: see `xdub.demo.run`."""
