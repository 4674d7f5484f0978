"""Self-contained HTML pages, charts and film strips."""
