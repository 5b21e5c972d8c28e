"""A small, literal reading of RFC 9111 for one shared cache: not how to cache, only what must not be answered with.

It shares no code with minato.caching, and reads well-formed fields alone; times are whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Lines = dict[str, str]
"""Lower-case field names to values."""

BY_DEFAULT = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}
UNDERSTOOD = BY_DEFAULT | {302, 303, 307, 400, 401, 403, 500, 502, 503}
NO_STALE = {"must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"}


def directives(lines: Lines, name: str = "cache-control") -> dict[str, str]:
    """``max-age=1, public`` -> ``{"max-age": "1", "public": ""}``."""
    members = [member.strip().partition("=") for member in lines.get(name, "").split(",")]
    return {member[0]: member[2] for member in members if member[0]}


@dataclass
class Version:
    """The head of a response at one time: as it arrived, or as an update left it."""

    status: int
    request: Lines
    lines: Lines
    date_s: int
    arrived_s: int
    delay_s: int

    @property
    def control(self) -> dict[str, str]:
        # RFC 9213, 2.2: the targeted field instead of Cache-Control and Expires.
        return directives(self.lines, "cdn-cache-control") or directives(self.lines)

    def lifetime_s(self) -> float:
        """4.2.1, and the guess of 4.2.2 as minato makes it."""
        control = self.control
        for name in ("s-maxage", "max-age"):
            if name in control:
                return int(control[name])
        if "expires" in self.lines and "cdn-cache-control" not in self.lines:
            return int(self.lines["expires"]) - self.date_s  # seconds here, a date on the wire
        if "last-modified" in self.lines and (self.status in BY_DEFAULT or "public" in control):
            return max(0, (self.date_s - int(self.lines["last-modified"])) / 10)
        return 0

    def age_s(self, now_s: int) -> int:
        """4.2.3."""
        apparent_s = max(0, self.arrived_s - self.date_s)
        corrected_s = int(self.lines.get("age", "0")) + self.delay_s
        return max(apparent_s, corrected_s) + now_s - self.arrived_s

    def why_not_stored(self) -> str:
        """3, 3.5 and 5.2."""
        control, asked = self.control, directives(self.request)
        if "no-store" in asked:
            return "5.2.1.5: the request said no-store"
        if "must-understand" in control and self.status not in UNDERSTOOD:
            return "5.2.2.3: must-understand, and it is not understood"
        if "no-store" in control and "must-understand" not in control:
            return "5.2.2.5: no-store"
        if "private" in control:
            return "5.2.2.7: private"
        if "authorization" in self.request and not control.keys() & {"public", "must-revalidate", "s-maxage"}:
            return "3.5: Authorization"
        is_explicit = control.keys() & {"public", "max-age", "s-maxage"} or "expires" in self.lines
        if not is_explicit and self.status not in BY_DEFAULT:
            return "3: neither explicit nor cacheable by default"
        return ""

    def why_not_selected(self, request: Lines) -> str:
        """4.1."""
        names = [name.strip() for name in self.lines.get("vary", "").split(",") if name.strip()]
        if "*" in names or any(self.request.get(name) != request.get(name) for name in names):
            return "4.1: Vary"
        return ""

    def why_not_reused(self, request: Lines, now_s: int) -> str:
        """4.2.4, 5.2.1 and RFC 5861, 3: as it is, without validation."""
        control, asked = self.control, directives(request)
        age_s, stale_s = self.age_s(now_s), self.age_s(now_s) - self.lifetime_s()
        if "no-cache" in control:
            return "5.2.2.4: no-cache"
        if "no-cache" in asked or ("pragma" in request and "cache-control" not in request):
            return "5.2.1.4: the request said no-cache"
        if "max-age" in asked and age_s > int(asked["max-age"]):
            return "5.2.1.1: older than the request's max-age"
        if "min-fresh" in asked and -stale_s < int(asked["min-fresh"]):
            return "5.2.1.3: not fresh for long enough"
        if stale_s < 0:
            return ""
        if control.keys() & NO_STALE:
            return "4.2.4: stale, and that is forbidden"
        if "max-stale" in asked and stale_s <= int(asked["max-stale"]):
            return ""
        if "max-age" in asked or "max-stale" in asked:
            return "5.2.1.1: the client does not wish to receive a stale response, or one so stale"
        return "" if stale_s < int(control.get("stale-while-revalidate", "0")) else "4.2: stale"

    def updated(self, update: Lines, date_s: int, arrived_s: int, delay_s: int) -> Version:
        """3.2: "the cache MUST add each header field in the provided response", replacing those of the same name."""
        kept = {name: value for name, value in self.lines.items() if name != "age"}
        return Version(self.status, self.request, {**kept, **update}, date_s, arrived_s, delay_s)


@dataclass
class Received:
    """A response of the origin, known by its body.

    Attributes:
        target: of its request.
        versions: any of them may be what is stored of it.
        is_invalid: whether an unsafe request has succeeded since (4.4).
    """

    target: str
    versions: list[Version] = field(default_factory=list)
    is_invalid: bool = False


class Model:
    """Everything the origin ever sent, by body."""

    def __init__(self) -> None:
        self.received: dict[bytes, Received] = {}

    def why_forbidden(self, body: bytes, target: str, request: Lines, now_s: int, *, validated: bool = False) -> str:
        """Return the sentence that forbids to answer a request with that stored body, empty where none does."""
        received = self.received.get(body)
        if received is None:
            return "nobody ever sent that"
        if received.target != target:
            return "2: another cache key"
        if received.is_invalid:
            return "4.4: invalidated"
        whys = [
            version.why_not_stored()
            or version.why_not_selected(request)
            or ("" if validated else version.why_not_reused(request, now_s))
            for version in received.versions
        ]
        return "" if "" in whys else whys[-1]

    def invalidate(self, target: str) -> None:
        for received in self.received.values():
            received.is_invalid |= received.target == target
