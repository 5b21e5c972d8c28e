"""The application behind gunicorn: the same resources as the other origins; REAL_FILE names the file."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

FILE = Path(os.environ["REAL_FILE"])


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path == "/file":
        data = FILE.read_bytes()
        start_response("200 OK", [("Content-Length", str(len(data)))])
        return [] if method == "HEAD" else _pieces(data)
    if path == "/stream":
        start_response("200 OK", [])  # without a length gunicorn sends chunks
        return _pieces(FILE.read_bytes())
    if path == "/echo":
        return _echo(environ, start_response)
    if path == "/redirect":
        start_response("302 Found", [("Location", "/file"), ("Content-Length", "0")])
        return []
    if path == "/gzip":
        data = gzip.compress(FILE.read_bytes())
        start_response("200 OK", [("Content-Encoding", "gzip"), ("Content-Length", str(len(data)))])
        return [data]
    start_response("200 OK", [("Content-Length", "4")])
    return [b"well"]


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def _echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    sha, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(65_536):
        sha.update(piece)
        size += len(piece)
    told = {
        "method": environ["REQUEST_METHOD"],
        "bytes": size,
        "sha256": sha.hexdigest(),
        "coding": environ.get("HTTP_TRANSFER_ENCODING"),
        "length": environ.get("CONTENT_LENGTH"),
    }
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
