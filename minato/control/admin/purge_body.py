"""The body of POST /purge: strict JSON in, PurgeRequests out, or an error that says what is wrong and what is right."""

from __future__ import annotations

import re
from typing import Any

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.caching.tags import MAX_TAG_BYTES
from minato.config.problems import did_you_mean, shown
from minato.control.admin.answer import Refused, refuse
from minato.control.admin.json_body import read_object
from minato.protocol.guard import Malformed
from minato.protocol.target import check_authority

# With MAX_BODY_BYTES of the connection this keeps a purge within one message to a worker (channel.MAX_MESSAGE_BYTES):
# there each value takes at most 20 bytes more than here.
MAX_TAGS = 256
# For a URL or a prefix a worker looks at all that is stored, and serves nobody meanwhile: several requests let it.
MAX_URLS = 64
MAX_PREFIXES = 16

_KEYS = (*(kind.value for kind in PurgeKind), "soft")
_URL = re.compile(r"(https?)://([^/?#@\\]+)([/?][\x21\x22\x24-\x7e]*)?", re.IGNORECASE)
_MOST = {"url": MAX_URLS, "prefix": MAX_PREFIXES, "tag": MAX_TAGS}
_TAG = re.compile(r"[\x21-\x2b\x2d-\x7e]+")


def read_purges(body: bytes) -> list[PurgeRequest]:
    """Return what a body asks for, each once.

    Raises:
        Refused: 400, naming the key that is wrong.
    """
    content = read_object(body, '{"url": "http://example.com/"}')
    for key in content:
        if key not in _KEYS:
            raise _bad(f"unknown key {shown(key)}; {did_you_mean(key, _KEYS)}")
    soft = content.get("soft", False)
    if not isinstance(soft, bool):
        raise _bad("soft: expected true or false")
    purges = [
        *(PurgeRequest(PurgeKind.URL, _read_url("url", text), soft) for text in _read_texts(content, "url")),
        *(PurgeRequest(PurgeKind.PREFIX, _read_url("prefix", text), soft) for text in _read_texts(content, "prefix")),
        *(PurgeRequest(PurgeKind.TAG, _read_tag(text), soft) for text in _read_texts(content, "tag")),
    ]
    if "all" in content:
        if content["all"] is not True or purges:
            raise _bad("all: takes true alone, and nothing beside it but soft")
        return [PurgeRequest(PurgeKind.ALL, soft=soft)]
    if not purges:
        raise _bad('names nothing to purge; give "url", "prefix", "tag" or "all"')
    return list(dict.fromkeys(purges))


def _read_texts(content: dict[str, Any], key: str) -> list[str]:
    if key not in content:
        return []
    value = content[key]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise _bad(f"{key}: expected a string or a list of strings, none of them empty")
    most = _MOST[key]
    if len(texts) > most:
        raise _bad(f"{key}: {len(texts)} are more than one request may name ({most}); send several")
    return texts


def _read_url(key: str, text: str) -> bytes:
    """Return a URL with scheme and host in lower case and a path, the rest byte for byte, as it is stored."""
    match = _URL.fullmatch(text)
    if match is None:
        raise _bad(
            f"{key}: {shown(text)} is not an absolute URL such as http://example.com/path "
            "(percent-encoded, without user and fragment)"
        )
    scheme, authority, rest = match[1].lower(), match[2], match[3] or "/"
    try:
        host = check_authority(authority.encode("ascii"))
    except (Malformed, UnicodeEncodeError):
        raise _bad(f"{key}: {shown(text)} has no valid host") from None
    return b"%b://%b%b%b" % (scheme.encode(), host, b"/" if rest.startswith("?") else b"", rest.encode("ascii"))


def _read_tag(text: str) -> bytes:
    if not _TAG.fullmatch(text) or len(text) > MAX_TAG_BYTES:
        raise _bad(f"tag: {shown(text)} is none: visible ASCII without commas, {MAX_TAG_BYTES} characters at the most")
    return text.encode("ascii")


def _bad(error: str) -> Refused:
    return refuse(400, error)
