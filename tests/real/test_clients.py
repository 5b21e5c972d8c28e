"""Every real client with every real origin: downloads, uploads, HEAD, redirects, ranges and what else they do."""

from __future__ import annotations

import itertools
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import requests

from tests.real.clients import CLIENTS, by_curl, run
from tests.real.conftest import FILE_BYTES, Front
from tests.real.origins import MAKERS
from tests.system.harness.load import find_tool

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]
UPLOAD_BYTES = 123_456
UPLOAD_SHA256 = sha256(b"x" * UPLOAD_BYTES).hexdigest()
ECHOING = [name for name in MAKERS if name != "nginx"]
SENDING_CHUNKS = [name for name in CLIENTS if name != "wget"]

every_pair = pytest.mark.parametrize(("client", "origin"), list(itertools.product(CLIENTS, MAKERS)))
every_echo = pytest.mark.parametrize(("client", "origin"), list(itertools.product(CLIENTS, ECHOING)))


@every_pair
def test_a_file_is_downloaded_whole(front: Front, client: str, origin: str) -> None:
    got = CLIENTS[client](front.url(origin, "/file"))
    assert (got.status, got.bytes, got.sha256) == (200, FILE_BYTES, front.sha256)


@every_pair
def test_head_tells_of_the_file_and_sends_none_of_it(front: Front, client: str, origin: str) -> None:
    got = CLIENTS[client](front.url(origin, "/file"), method="HEAD")
    assert (got.status, got.bytes, got.headers["content-length"]) == (200, 0, str(FILE_BYTES))


@every_pair
def test_a_redirect_is_followed_back_to_minato(front: Front, client: str, origin: str) -> None:
    got = CLIENTS[client](front.url(origin, "/redirect"))
    assert (got.status, got.sha256) == (200, front.sha256)


@every_pair
def test_a_compressed_response_is_unpacked_by_the_client_alone(front: Front, client: str, origin: str) -> None:
    got = CLIENTS[client](front.url(origin, "/gzip"))
    assert (got.status, got.sha256) == (200, front.sha256)
    assert got.headers.get("content-encoding") == "gzip"


@pytest.mark.parametrize(("client", "origin"), list(itertools.product(CLIENTS, ["gunicorn", "uvicorn"])))
def test_a_response_in_chunks_is_whole(front: Front, client: str, origin: str) -> None:
    got = CLIENTS[client](front.url(origin, "/stream"))
    assert (got.status, got.sha256) == (200, front.sha256)


@every_echo
def test_an_upload_with_a_length_arrives_whole(front: Front, client: str, origin: str) -> None:
    told = CLIENTS[client](front.url(origin, "/echo"), method="POST", length=UPLOAD_BYTES).json()
    assert told == {
        "method": "POST",
        "bytes": UPLOAD_BYTES,
        "sha256": UPLOAD_SHA256,
        "coding": None,
        "length": str(UPLOAD_BYTES),
    }


@pytest.mark.parametrize(("client", "origin"), list(itertools.product(SENDING_CHUNKS, ECHOING)))
def test_an_upload_in_chunks_arrives_whole(front: Front, client: str, origin: str) -> None:
    told = CLIENTS[client](front.url(origin, "/echo"), method="PUT", chunked=UPLOAD_BYTES).json()
    assert (told["method"], told["bytes"], told["sha256"]) == ("PUT", UPLOAD_BYTES, UPLOAD_SHA256)
    assert (told["coding"], told["length"]) == ("chunked", None)


def test_a_file_is_put_into_nginx_and_read_back(front: Front, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(front.file)
    url = front.url("nginx", "/put/a")
    for more in ([], ["-H", "Transfer-Encoding: chunked"]):
        run(find_tool("curl"), "-sSf", "-T", str(upload), *more, url)
        assert by_curl(url).sha256 == front.sha256
        run(find_tool("curl"), "-sSf", "-X", "DELETE", url)
        assert by_curl(url).status == 404


def test_ranges_are_passed_through(front: Front, tmp_path: Path) -> None:
    url = front.url("nginx", "/file")
    part = run(find_tool("curl"), "-sSf", "-r", "100-199", url).stdout
    assert part == front.file[100:200]
    got = requests.get(url, headers={"Range": "bytes=-50"}, timeout=10)
    assert (got.status_code, got.content) == (206, front.file[-50:])
    begun = tmp_path / "file"
    begun.write_bytes(front.file[:1000])
    run(find_tool("wget"), "-q", "-c", "-O", str(begun), url)
    assert begun.read_bytes() == front.file


def test_a_condition_is_passed_through(front: Front) -> None:
    with httpx.Client(timeout=10) as client:
        first = client.get(front.url("nginx", "/file"))
        again = client.get(front.url("nginx", "/file"), headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_connections_are_kept(front: Front) -> None:
    url = front.url("node", "/file")
    done = run(find_tool("curl"), "-sSf", "-w", "%{num_connects} ", "-o", "/dev/null", url, "-o", "/dev/null", url)
    assert done.stdout == b"1 0 "
    with requests.Session() as session:
        ports = set()
        for _ in range(3):
            with session.get(front.url("node", "/echo"), stream=True, timeout=10) as answer:
                ports.add(answer.raw._connection.sock.getsockname())
                assert answer.json()["bytes"] == 0
    assert len(ports) == 1


def test_curl_is_told_to_continue_by_the_origin(front: Front, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * UPLOAD_BYTES)
    for origin in ("node", "uvicorn", "gunicorn"):
        done = run(
            *[find_tool("curl"), "-sSfv", "--expect100-timeout", "15", "-H", "Expect: 100-continue"],
            *["-T", str(upload), front.url(origin, "/echo")],
        )
        assert b"< HTTP/1.1 100 Continue" in done.stderr
        assert UPLOAD_SHA256.encode() in done.stdout


def test_http_1_0_clients_are_served(front: Front) -> None:
    for origin in MAKERS:
        done = run(find_tool("curl"), "-sSf", "--http1.0", front.url(origin, "/file"))
        assert done.stdout == front.file
    for origin in ("gunicorn", "uvicorn"):
        done = run(find_tool("curl"), "-sSfi", "--http1.0", front.url(origin, "/stream"))
        assert b"transfer-encoding" not in done.stdout.partition(b"\r\n\r\n")[0].lower()
        assert done.stdout.endswith(front.file)
