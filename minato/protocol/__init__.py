"""HTTP/1.1 messages without I/O: grammar, framing, forwarding, and the codecs (RFC 9110, RFC 9112)."""
