"""The demo: the shipped config with two small origin servers of its own behind it."""
