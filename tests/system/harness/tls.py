"""A certificate authority of the test's own, and servers whose certificates are good, for another name, or unknown."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """``ca_file`` is what minato is to trust (SSL_CERT_FILE)."""

    ca: trustme.CA
    ca_file: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        ca = trustme.CA()
        ca_file = directory / "ca.pem"
        ca.cert_pem.write_to_path(str(ca_file))
        return cls(ca, ca_file)

    @property
    def env(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.ca_file)}

    def server(self, *names: str) -> ssl.SSLContext:
        """A server context with a certificate for these names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context

    def strict_server(self, *names: str) -> ssl.SSLContext:
        """A server context to which an end without a close alert is an error; see `heeds_alerts`."""
        return heeds_alerts(self.server(*names))


def heeds_alerts(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have an end without a close alert be an error, for sockets with ``suppress_ragged_eofs`` off; return the context.

    Python turns that off, as OpenSSL 1.1.1 did (SSL_OP_IGNORE_UNEXPECTED_EOF).
    """
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def unknown_server(*names: str) -> ssl.SSLContext:
    """A server context whose certificate comes from an authority nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(*names).configure_cert(context)
    return context
