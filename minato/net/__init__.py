"""Sockets: the event loop, client and upstream connections, and the exchange that joins them."""
