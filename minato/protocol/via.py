"""Via: how often a request has come through a minato already (RFC 9110, 7.6.3)."""

from __future__ import annotations

import re
from typing import Final

from minato.protocol.fields import Fields, field_values

PSEUDONYM: Final = b"minato"
MAX_PASSES: Final = 8
"""How often a request may have passed: several in a row are a chain (an edge, a region, a sidecar), more are a loop."""

_PASS: Final = re.compile(rb"(?:^|,)[ \t]*[!-'*+\--~]+[ \t]+minato[ \t]*(?=[,(]|$)", re.IGNORECASE)


def is_looping(fields: Fields) -> bool:
    """Tell whether a request goes round in circles.

    RFC 9110, 7.6: "An intermediary MUST NOT forward a message to itself unless it is protected from an infinite request
    loop." The pseudonym is the same for all instances, so that Via tells nothing about them; what tells a loop from a
    chain is the number.
    """
    return sum(len(_PASS.findall(value)) for value in field_values(fields, b"via")) >= MAX_PASSES
