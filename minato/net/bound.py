"""A listening socket and the configured address it stands for: what the master binds and a worker accepts from."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from minato.config.model import ListenAddress


@dataclass(frozen=True, slots=True)
class BoundListener:
    """A listening, non-blocking socket of one slot and the address it is for."""

    address: ListenAddress
    sock: socket.socket
