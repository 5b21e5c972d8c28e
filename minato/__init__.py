"""minato: a pre-fork HTTP/1.1 reverse proxy, load balancer and cache."""

__version__ = "0.1.0"
