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


def unknown_server(*names: str) -> ssl.SSLContext:
    """A server context whose certificate comes from an authority nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(*names).configure_cert(context)
    return context
