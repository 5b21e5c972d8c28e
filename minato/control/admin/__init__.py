"""The admin API: HTTP on an address of its own, served by the master in its one loop."""
