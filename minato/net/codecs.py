"""Which codec a connection gets, and what the express codecs of one worker share."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minato.config.model import Config
from minato.protocol.codec import ClientCodec, ServerCodec
from minato.protocol.express_codec import ExpressClientCodec, ExpressServerCodec
from minato.protocol.field_table import FieldTable, Halves
from minato.protocol.h11_codec import H11ClientCodec, H11ServerCodec
from minato.protocol.message import RequestHead, ResponseHead

# The limits of the config are for clients. An upstream may send as much as this, or as a client may if that is more.
_RESPONSE_HEADER_BYTES: Final = 65_536
_RESPONSE_HEADER_FIELDS: Final = 400
# Enough for as many requests as 10,000 services are asked in turn. Such a head takes some 1.8 KB with all that is kept
# with it, so that the two halves of a table hold 60 MB at the most, where that many heads come again and again.
_MAX_HEADS: Final = 16_384


class Codecs:
    """Makes the codecs of one worker's connections."""

    def __init__(self, config: Config) -> None:
        self._express = config.express
        self._limits = config.limits
        self._response_limits = replace(
            config.limits,
            header_bytes=max(config.limits.header_bytes, _RESPONSE_HEADER_BYTES),
            header_fields=max(config.limits.header_fields, _RESPONSE_HEADER_FIELDS),
        )
        self._requests = FieldTable()
        self._heads = Halves[RequestHead](_MAX_HEADS)
        self._memos = Halves[RequestHead](_MAX_HEADS)
        self._responses = FieldTable()
        self._response_heads = Halves[ResponseHead](512)
        self._status_lines: dict[bytes, tuple[int, bytes]] = {}

    def make_server_codec(self) -> ServerCodec:
        """Return a codec for a client's connection."""
        if self._express:
            return ExpressServerCodec(self._limits, self._requests, self._heads, self._memos)
        return H11ServerCodec(self._limits)

    def make_client_codec(self) -> ClientCodec:
        """Return a codec for an upstream's connection."""
        if self._express:
            return ExpressClientCodec(self._response_limits, self._responses, self._response_heads, self._status_lines)
        return H11ClientCodec(self._response_limits)
