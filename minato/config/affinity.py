"""The model of what ties requests to single upstreams: the key of ConsistentHash, and the cookie of sticky sessions."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class HashBy(enum.Enum):
    """What of a request is hashed."""

    URL = "url"
    PATH = "path"
    CLIENT = "client"
    HEADER = "header"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class HashConfig:
    """The key of ConsistentHash.

    Attributes:
        by: what is hashed: host, path and query; the path alone; the client's address; or one header or cookie.
        name: of the header (lower case) or the cookie; empty for the others.
        load_factor: how many times the average for its weight an upstream may have in flight; 0: no bound.
    """

    by: HashBy = HashBy.URL
    name: str = ""
    load_factor: float = 0.0


class SameSite(enum.Enum):
    """The values of a cookie's SameSite."""

    LAX = "Lax"
    STRICT = "Strict"
    NONE = "None"


@dataclass(frozen=True, slots=True)
class StickyConfig:
    """The cookie of sticky sessions.

    Attributes:
        cookie: its name.
        ttl_s: for how many seconds a browser keeps it; 0: until it is closed.
        path: its Path.
        secure: whether it has Secure.
        httponly: whether it has HttpOnly.
        samesite: its SameSite.
        secret: what the ids in it are derived with; empty: the name of the service.
    """

    cookie: str
    ttl_s: int = 0
    path: str = "/"
    secure: bool = False
    httponly: bool = True
    samesite: SameSite = SameSite.LAX
    secret: str = field(default="", repr=False)
