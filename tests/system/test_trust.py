"""Who the client is, end to end: trusted proxies, Forwarded, PROXY headers in and out, the cap for each client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from .harness import App, Client, Minato, fetch, free_port, request_bytes, service, wait_until
from .harness.load import find_tool
from .harness.proxy import run_minato

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]
Fields = Sequence[tuple[bytes, bytes]]

TRUSTED = ["127.0.0.0/8", "10.0.0.0/8"]
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 80\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 2, 198, 51, 100, 9, 4, 210, 0, 80])
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


def echoed(port: int, fields: Fields = (), before: bytes = b"") -> dict[str, list[str]]:
    with Client(port) as client:
        client.send(before + request_bytes(fields=fields))
        response = client.receive()
    assert response.status == 200, response
    received: dict[str, list[str]] = {}
    for name, value in json.loads(response.body)["fields"]:
        received.setdefault(name, []).append(value)
    return received


def logged_clients(path: Path, number: int) -> list[str]:
    def read() -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        return lines if len(lines) >= number else []

    return [json.loads(line)["client"] for line in wait_until(read, f"{number} lines in the access log", 5)]


def test_the_real_client_is_logged_and_forwarded(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    instance = minato(origin(), trusted_proxies=TRUSTED, access_log={"path": str(path), "format": "json"})
    chain = [
        (b"X-Forwarded-For", b"6.6.6.6, 192.0.2.1, 10.0.0.1"),
        (b"Forwarded", b"for=7.7.7.7"),
        (b"X_Real_IP", b"x"),
    ]
    fields = echoed(instance.port, chain)
    assert fields["x-forwarded-for"] == ["6.6.6.6, 192.0.2.1, 10.0.0.1, 127.0.0.1"]
    assert not {"forwarded", "x_real_ip"} & set(fields)
    assert echoed(instance.port, [(b"X-Forwarded-For", b"6.6.6.6, x y, 10.0.0.1")])["x-forwarded-for"] == [
        "10.0.0.1, 127.0.0.1"
    ]
    with instance.client() as client:
        client.send(request_bytes(fields=[(b"X-Forwarded-For", b"192.0.2.1")]) + b"GET / HTTP/1.1\n\n")
        assert [client.receive().status for _ in range(2)] == [200, 400]
    assert logged_clients(path, 4) == ["192.0.2.1", "10.0.0.1", "192.0.2.1", "127.0.0.1"]


def test_forwarded_is_believed_kept_and_extended_where_that_is_configured(
    minato: StartMinato, origin: MakeApp, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    instance = minato(
        origin(),
        trusted_proxies=TRUSTED,
        forwarded={"believe": "Forwarded"},
        access_log={"path": str(path), "format": "json"},
    )
    sent = b'for="evil, for="[2001:db8::1]:7";proto=https;host=shop.example, for=10.0.0.1'
    fields = echoed(instance.port, [(b"Forwarded", sent), (b"X-Forwarded-For", b"6.6.6.6")])
    assert fields["forwarded"] == [
        'for="[2001:db8::1]:7";proto=https;host=shop.example, for=10.0.0.1, for=127.0.0.1;proto=http;host=test.local'
    ]
    assert fields["x-forwarded-for"] == ["2001:db8::1, 10.0.0.1, 127.0.0.1"]
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == (["https"], ["shop.example"])
    assert "forwarded" not in echoed(instance.port)
    assert logged_clients(path, 2) == ["2001:db8::1", "127.0.0.1"]


@pytest.mark.parametrize("cached", [False, True])
def test_forwarded_is_sent_about_strangers_where_that_is_configured(
    minato: StartMinato, origin: MakeApp, cached: bool
) -> None:
    instance = minato(origin(), forwarded={"send": True}, cache={"enabled": cached})
    for _ in range(3):
        fields = echoed(instance.port, [(b"Forwarded", b"for=6.6.6.6"), (b"Cache-Control", b"no-store")])
        assert fields["forwarded"] == ["for=127.0.0.1;proto=http;host=test.local"]
        assert fields["x-forwarded-for"] == ["127.0.0.1"]


# -- the PROXY protocol


@pytest.fixture
def introduced(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> Minato:
    return minato(
        origin(),
        service_keys={"proxy_protocol": True},
        access_log={"path": str(tmp_path / "access.log"), "format": "json"},
        workers=2,
    )


def test_clients_are_those_in_the_headers(introduced: Minato, tmp_path: Path) -> None:
    for before, address in (
        (V1, "192.0.2.1"),
        (V2, "192.0.2.2"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ):
        assert echoed(introduced.port, before=before)["x-forwarded-for"] == [address]
    clients = logged_clients(tmp_path / "access.log", 4)
    assert sorted(clients) == ["127.0.0.1", "127.0.0.1", "192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: test.local\r\n\r\n", V1[:-2] + b"\n", V2[:12] + b"\x31"])
def test_a_connection_without_a_proper_header_is_closed_unanswered(introduced: Minato, sent: bytes) -> None:
    with introduced.client() as client:
        client.send(sent)
        assert client.read_to_end() == b""
    introduced.wait_for_log("PROXY protocol: a connection of 127.0.0.1 was closed")
    assert echoed(introduced.port, before=V1)


def test_a_reload_turns_it_on_and_off(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin())
    plain = instance.config
    assert echoed(instance.port)["x-forwarded-for"] == ["127.0.0.1"]
    (only,) = plain["services"]
    instance.write_config({**plain, "services": [{**only, "proxy_protocol": True}]})
    instance.reload()
    assert echoed(instance.port, before=V1)["x-forwarded-for"] == ["192.0.2.1"]
    instance.write_config(plain)
    instance.reload()
    assert echoed(instance.port)["x-forwarded-for"] == ["127.0.0.1"]


def test_one_that_waits_for_its_header_does_not_outlast_a_graceful_stop(introduced: Minato) -> None:
    with introduced.client() as silent:
        introduced.write_config({**introduced.config, "timeouts": {"drain": 1}})
        introduced.reload()
        silent.send(V1[:10])
        wait_until(lambda: len(introduced.generations()) == 1, "the end of the old generation", 20)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_minato_tells_the_next_who_the_client_is(
    minato: StartMinato, origin: MakeApp, tmp_path: Path, version: str
) -> None:
    log = {"path": str(tmp_path / "access.log"), "format": "json"}
    app = origin()
    back = minato(app, service_keys={"proxy_protocol": True, "hosts": ["http://*/"]}, access_log=log)
    upstream = {"host": f"http://127.0.0.1:{back.port}", "health_uri": "/health", "proxy_protocol": version}
    front = minato(upstream, service_keys={"proxy_protocol": True}, health={"interval": 0.2})
    with front.client() as client:
        client.send(V1)
        for _ in range(3):
            response = client.request(b"POST", body=b"x" * 200_000)
            assert response.status == 200
            fields = dict(json.loads(response.body)["fields"])
            assert fields["x-forwarded-for"] == "192.0.2.1"
    wait_until(lambda: app.health.probes >= 2, "probes through both")
    assert not front.find_log("is down")

    def read() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
        return sorted({(line["method"], line["client"]) for line in lines if line["method"]})

    wait_until(lambda: read() == [("GET", "127.0.0.1"), ("POST", "192.0.2.1")], "the client and the probes in the log")


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the end of the block; it listens by its beginning."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up() -> bool:
        assert process.poll() is None, f"{command[0]} ended"
        try:
            Client(port).close()
        except ConnectionRefusedError:
            return False
        return True

    try:
        wait_until(is_up, f"{command[0]} to listen")
        yield
    finally:
        process.terminate()
        process.wait(10)


NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
    uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        location = /health {{ return 200; }}
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port"; }}
    }}
}}
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_reads_what_minato_writes(minato: StartMinato, tmp_path: Path, version: str) -> None:
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(directory=tmp_path, port=port))
    upstream = {"host": f"http://127.0.0.1:{port}", "health_uri": "/health", "proxy_protocol": version}
    with running([find_tool("nginx"), "-c", str(config), "-e", str(tmp_path / "errors")], port):
        front = minato(upstream)
        with front.client() as client:
            own = client.sock.getsockname()
            assert client.request().body.decode() == f"{own[0]} {own[1]} {front.port}"
        assert not front.find_log("is down")


HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen one
    bind 127.0.0.1:{port}
    server minato 127.0.0.1:{target} {option}
"""


HAPROXY_BINARY = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")


# `make test` brings nginx, which load tests need; HAProxy comes with `make bench`.
@pytest.mark.skipif(HAPROXY_BINARY is None, reason="HAProxy is not installed")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_minato_reads_what_haproxy_writes(introduced: Minato, tmp_path: Path, option: str) -> None:
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, target=introduced.port, option=option))
    assert HAPROXY_BINARY is not None
    with running([HAPROXY_BINARY, "-db", "-f", str(config)], port):
        with socket.create_connection(("127.0.0.1", port), 10, ("127.0.0.7", 0)) as sock:
            sock.sendall(request_bytes(fields=[(b"Connection", b"close")]))
            answer = b"".join(iter(lambda: sock.recv(65_536), b""))
        assert b'["x-forwarded-for", "127.0.0.7"]' in answer


# -- the cap for each client


def test_one_client_cannot_take_all_connections(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), limits={"connections_per_client": 3})
    with ExitStack() as stack:
        clients = [stack.enter_context(instance.client()) for _ in range(3)]
        assert [client.request().status for client in clients] == [200] * 3
        response = fetch(instance.port)
        assert (response.status, response.get(b"retry-after"), response.says_close()) == (503, b"1", True)
        with socket.create_connection(("127.0.0.1", instance.port), 10, ("127.0.0.2", 0)) as other:
            other.sendall(request_bytes())
            assert other.recv(65_536).startswith(b"HTTP/1.1 200 ")
        instance.wait_for_log(r"limits.connections_per_client: 127.0.0.1 has as many as it may")
    wait_until(lambda: fetch(instance.port).status == 200, "room for the client")


def test_a_reload_lets_no_count_leak(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), limits={"connections_per_client": 2})
    with instance.client() as kept:
        assert kept.request().status == 200
        instance.reload()
        for _ in range(20):
            wait_until(lambda: fetch(instance.port).status == 200, "an answer")
        assert kept.request().status == 200


# -- what is wrong with a config


def test_check_names_line_and_key(tmp_path: Path) -> None:
    services = [
        service(8080, ["http://u"], proxy_protocol=True),
        service(8080, [{"host": "http://u", "proxy_protocol": "v3"}], name="other", hosts=["http://o/"]),
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"services": services, "forwarded": {"believe": "Via"}}, sort_keys=False))
    done = run_minato("check", "--config", str(path))
    assert done.returncode == 2
    for key in ("services[1].proxy_protocol", "services[1].upstreams[0].proxy_protocol", "forwarded.believe"):
        assert re.search(rf":\d+: {re.escape(key)}: ", done.stdout + done.stderr), key
