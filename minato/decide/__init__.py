"""Decisions without I/O: where a request goes, and what to do when that fails."""
