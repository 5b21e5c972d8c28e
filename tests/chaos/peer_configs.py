"""The peers' configs, as text: two processes or threads, two origins, kept connections on both sides, tunnels."""

from __future__ import annotations

import os

_NGINX = """\
daemon off;
{user}worker_processes 2;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 1000000000;
    map $http_upgrade $to_origin {{ "" ""; default upgrade; }}
    upstream origins {{ {servers} keepalive 64; }}
    server {{
{listens}        client_max_body_size 0;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $to_origin;
        location / {{ proxy_pass http://origins; }}
        location /events/ {{ proxy_pass http://origins; proxy_buffering off; }}
    }}
}}
"""

_HAPROXY = """\
global
  nbthread 2
  maxconn 4096
  no strict-limits
  hard-stop-after 20s
  stats socket unix@haproxy.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  timeout tunnel 75s
  option http-keep-alive
  http-reuse always
{patience}
frontend front
{binds}  default_backend origins
backend origins
{servers}"""


def nginx_config(port: int, origins: list[str], extra_port: int) -> str:
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in origins)
    ports = [port, extra_port] if extra_port else [port]
    listens = "".join(f"        listen 127.0.0.1:{each} backlog=4096;\n" for each in ports)
    user = "user root;\n" if os.geteuid() == 0 else ""  # workers that are root can enter the private directory
    return _NGINX.format(user=user, servers=servers, listens=listens)


def haproxy_config(port: int, origins: list[str], extra_port: int, idle_close_on_response: bool) -> str:
    servers = "".join(f"  server o{n} {url.removeprefix('http://')} check\n" for n, url in enumerate(origins))
    ports = [port, extra_port] if extra_port else [port]
    binds = "".join(f"  bind 127.0.0.1:{each} backlog 4096\n" for each in ports)
    patience = "  option idle-close-on-response" if idle_close_on_response else ""
    return _HAPROXY.format(servers=servers, binds=binds, patience=patience)
