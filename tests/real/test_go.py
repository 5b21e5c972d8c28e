"""Go's net/http as client and as origin, where Go is installed: the one tool that the suite does without if need be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.real.clients import CLIENTS, run
from tests.real.conftest import FILE_BYTES, Front
from tests.real.origins import MAKERS, RealOrigin
from tests.system.harness import Minato, free_port, make_config, service
from tests.system.harness.app import pattern, pattern_sha256

UPLOAD_BYTES = 123_456
UPLOAD_SHA256 = sha256(b"x" * UPLOAD_BYTES).hexdigest()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("real"),
    pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed"),
]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, built without the network."""
    directory = tmp_path_factory.mktemp("go")
    source = Path(__file__).parent / "peer.go"
    env = {**os.environ, "GOCACHE": str(directory / "cache"), "GO111MODULE": "off"}
    if shutil.which("gcc") is None:
        env["CGO_ENABLED"] = "0"  # with it a distribution's Go need not compile its library: a tenth of the time
    done = subprocess.run(
        ["go", "build", "-o", str(directory / "peer"), str(source)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(directory / "peer")


@pytest.fixture(scope="module", params=[True, False], ids=["express", "h11"])
def url(request: pytest.FixtureRequest, peer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """minato's in front of the Go origin."""
    file = tmp_path_factory.mktemp("file") / "file"
    file.write_bytes(b"".join(pattern(FILE_BYTES)))
    port = free_port()
    origin = RealOrigin("Go", [peer, "serve", str(port), str(file)], port)
    entry = service(free_port(), [{"host": origin.url, "health_uri": "/health"}], hosts=["http://127.0.0.1/"])
    try:
        origin.wait_up()
        instance = Minato(tmp_path_factory.mktemp("minato"), make_config([entry], express=request.param))
        try:
            instance.wait_ready()
            yield f"http://127.0.0.1:{instance.port}"
        finally:
            instance.stop()
    finally:
        origin.stop()
    assert instance.complaints() == []


def ask(peer: str, method: str, url: str, coding: str = "none") -> dict[str, Any]:
    return dict(json.loads(run(peer, "send", method, url, str(UPLOAD_BYTES), coding).stdout))


@pytest.mark.parametrize("origin", list(MAKERS))
def test_go_gets_files_and_their_heads(front: Front, peer: str, origin: str) -> None:
    for path in ("/file", "/redirect", "/gzip"):
        got = ask(peer, "GET", front.url(origin, path))
        assert (got["status"], got["sha256"]) == (200, front.sha256)
    got = ask(peer, "HEAD", front.url(origin, "/file"))
    assert (got["status"], got["bytes"], got["length"]) == (200, 0, str(FILE_BYTES))


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("origin", [name for name in MAKERS if name != "nginx"])
def test_go_uploads(front: Front, peer: str, origin: str, coding: str) -> None:
    told = json.loads(ask(peer, "POST", front.url(origin, "/echo"), coding)["text"])
    assert (told["bytes"], told["sha256"]) == (UPLOAD_BYTES, UPLOAD_SHA256)
    assert (told["coding"] == "chunked") is (coding == "chunked")


@pytest.mark.parametrize("client", list(CLIENTS))
def test_files_of_a_go_origin_are_downloaded_whole(url: str, client: str) -> None:
    for path in ("/file", "/redirect", "/stream"):
        got = CLIENTS[client](url + path)
        assert (got.status, got.sha256) == (200, pattern_sha256(FILE_BYTES))


# wget sends no chunks.
UPLOADS = [(client, coding) for client in CLIENTS for coding in ("length", "chunked")]
UPLOADS.remove(("wget", "chunked"))


@pytest.mark.parametrize(("client", "coding"), UPLOADS)
def test_uploads_arrive_whole_at_a_go_origin(url: str, client: str, coding: str) -> None:
    told = CLIENTS[client](url + "/echo", method="POST", **{coding: UPLOAD_BYTES}).json()
    assert (told["bytes"], told["sha256"]) == (UPLOAD_BYTES, UPLOAD_SHA256)
    assert (told["length"] == UPLOAD_BYTES) is (coding == "length")


def test_a_range_of_a_go_origin_is_passed_through(url: str) -> None:
    part = run("curl", "-sSf", "-r", "5-9", url + "/file").stdout
    assert part == b"".join(pattern(FILE_BYTES))[5:10]
