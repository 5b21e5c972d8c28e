"""Telemetry: the log of events and the access log."""
