"""The configs of the origin and of every peer, as text: the same work, tuning and number of processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# More than any work opens, for every peer alike.
_CONNECTIONS = 16_384
_IDLE_UPSTREAM_CONNECTIONS = 1_024
_BACKLOG = 4_096
_FRESH_S = 3_600
_CACHE_MB = 256


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer is configured to do.

    Attributes:
        cache_entries: stored responses (minato's capacity, per worker; the others hold 256 MB); 0: no cache.
        access_log: whether a line per request is written to a file.
        services: services of different hosts on the one port (minato alone).
        workers: processes or threads.
    """

    cache_entries: int = 0
    access_log: bool = False
    services: int = 1
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance lives: its own directory, its port and the origin's."""

    directory: Path
    port: int
    origin_port: int
    setup: Setup

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


# The paths are relative to nginx's prefix. A root's workers stay root, so that they can enter the private directory.
_NGINX = """\
daemon off;
{user}worker_processes {workers};
pid nginx.pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    access_log {access_log};
{body}}}
"""

# gzip_proxied: without it no request that carries Via is answered with gzip, and so in chunks.
# /upload: `return` would answer before the body is there; a location that passes on reads it first, into memory here.
_ORIGIN = """\
    open_file_cache max=1000;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1;
    gzip_types text/plain;
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        root .;
        add_header Cache-Control "max-age={fresh_s}";
        location = /echo {{ add_header Cache-Control "no-store"; return 200 "ok"; }}
        location = /upload {{
            client_max_body_size 0;
            client_body_buffer_size 2m;
            proxy_pass_request_body off;
            proxy_method GET;
            proxy_set_header Content-Length "";
            proxy_pass http://127.0.0.1:{port}/echo;
        }}
        location = /requests {{ stub_status; }}
        location / {{ try_files $uri /1k; }}
        location /p/ {{ try_files /1k =404; }}
        location /c/ {{ try_files /1k =404; }}
    }}
"""

# A large body goes on as it comes, as with the others; by default nginx would write it to a file first.
_NGINX_PROXY = """\
    upstream origin {{ server 127.0.0.1:{origin_port}; keepalive {idle}; keepalive_requests 1000000000; }}
{zone}    server {{
        listen 127.0.0.1:{port} reuseport backlog={backlog};
        client_max_body_size 0;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        location / {{
            proxy_pass http://origin;
{cache}        }}
        location = /upload {{ proxy_pass http://origin; proxy_request_buffering off; }}
    }}
"""

_HAPROXY = """\
global
  nbthread {workers}
  maxconn {connections}
  no strict-limits
{log_target}
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  option http-keep-alive
  option forwardfor
  http-reuse always
{log_format}
{cache}
frontend front
  bind 127.0.0.1:{port} backlog {backlog}
  default_backend origin
backend origin
{cache_use}
  server origin 127.0.0.1:{origin_port}
"""

_VARNISH = """\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{origin_port}"; }}
sub vcl_recv {{ {policy} }}
"""

_CADDY = """\
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
{log}    reverse_proxy 127.0.0.1:{origin_port} {{
        transport http {{
            keepalive_idle_conns_per_host {idle}
        }}
    }}
}}
"""


def _nginx(place: Place, *, access_log: str, body: str) -> str:
    return _NGINX.format(
        user="user root;\n" if os.geteuid() == 0 else "",
        workers=place.setup.workers,
        connections=_CONNECTIONS,
        access_log=access_log,
        body=body,
    )


def origin(place: Place) -> str:
    """The nginx behind everybody: files of 1 KB, 10 KB and 1 MB, gzip for who asks, a count of requests."""
    return _nginx(place, access_log="off", body=_ORIGIN.format(port=place.port, backlog=_BACKLOG, fresh_s=_FRESH_S))


def nginx(place: Place) -> str:
    zone = cache = ""
    if place.setup.cache_entries:
        zone = f"    proxy_cache_path cache keys_zone=zone:32m max_size={_CACHE_MB}m;\n"
        cache = "            proxy_cache zone;\n"
    body = _NGINX_PROXY.format(
        port=place.port,
        origin_port=place.origin_port,
        idle=_IDLE_UPSTREAM_CONNECTIONS,
        backlog=_BACKLOG,
        zone=zone,
        cache=cache,
    )
    log = "access.log combined buffer=64k flush=1s" if place.setup.access_log else "off"
    return _nginx(place, access_log=log, body=body)


def haproxy(place: Place) -> str:
    """The log goes to standard output, which is a file."""
    cached = bool(place.setup.cache_entries)
    return _HAPROXY.format(
        workers=place.setup.workers,
        connections=_CONNECTIONS,
        port=place.port,
        origin_port=place.origin_port,
        backlog=_BACKLOG,
        log_target="  log stdout format raw local0 info" if place.setup.access_log else "",
        log_format="  log global\n  option httplog" if place.setup.access_log else "",
        cache=f"cache store\n  total-max-size {_CACHE_MB}\n  max-age {_FRESH_S}" if cached else "",
        cache_use="  http-request cache-use store\n  http-response cache-store store" if cached else "",
    )


def varnish(place: Place) -> str:
    """With a cache, cookies do not matter; without, nothing is looked up."""
    return _VARNISH.format(
        origin_port=place.origin_port, policy="return (hash);" if place.setup.cache_entries else "return (pass);"
    )


def varnish_options(place: Place) -> list[str]:
    """A thread serves one request at a time, so that 2 threads would be no fair choice: 2 pools, as is the default."""
    parameters: dict[str, object] = {"thread_pools": place.setup.workers, "timeout_idle": 75, "listen_depth": _BACKLOG}
    # On by default: it would ask the origin for gzip on its own behalf, and unpack it at every hit.
    parameters |= {"http_gzip_support": "off"}
    options = ["-a", f"127.0.0.1:{place.port}", "-s", f"malloc,{_CACHE_MB}m"]
    return options + [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]


def caddy(place: Place) -> str:
    log = f"    log {{\n        output file {place.directory}/access.log\n    }}\n" if place.setup.access_log else ""
    return _CADDY.format(port=place.port, origin_port=place.origin_port, idle=_IDLE_UPSTREAM_CONNECTIONS, log=log)


def minato(place: Place, *, express: bool) -> str:
    """The first service answers to the address that wrk is given; all services share the one upstream."""
    setup = place.setup
    log = place.directory / "access.log" if setup.access_log else "off"
    lines = [
        f"workers: {setup.workers}",
        f"express: {'true' if express else 'false'}",
        f"cache: {{enabled: true, capacity: {setup.cache_entries}, max_memory: 1073741824}}"
        if setup.cache_entries
        else "",
        f"limits: {{connections: {_CONNECTIONS}}}",
        f'access_log: {{path: "{log}"}}',
        "services:",
    ]
    for number in range(setup.services):
        hosts = f'"http://s{number}.example/"' + (', "http://127.0.0.1/"' if number == 0 else "")
        lines += [
            f"  - name: s{number}",
            '    listen: "127.0.0.1"',
            f"    listen_port: {place.port}",
            f"    hosts: [{hosts}]",
            f'    upstreams: [{{host: "http://127.0.0.1:{place.origin_port}", health_uri: "/echo"}}]',
        ]
    return "\n".join(lines) + "\n"
