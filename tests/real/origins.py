"""Real origins as processes of their own: nginx, Node, gunicorn, uvicorn, Go; each serves the same resources."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.system.harness import free_port, wait_until
from tests.system.harness.client import Client
from tests.system.harness.load import find_tool

HERE = Path(__file__).parent
_NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port};
        root {directory}/root;
        absolute_redirect off;
        location = /health {{ return 200 "well"; }}
        location = /redirect {{ return 302 /file; }}
        location = /gzip {{ alias {directory}/root/file; gzip on; gzip_types *; gzip_proxied any; }}
        location /put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""


class RealOrigin:
    """One process that listens on a free port of loopback."""

    def __init__(self, name: str, command: list[str], port: int, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_up(self) -> None:
        wait_until(self._is_up, f"{self.name} to listen", 20)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"{self.name} ended"
        with contextlib.suppress(ConnectionRefusedError):
            Client(self.port).close()
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def nginx(directory: Path, file: Path) -> RealOrigin:
    (directory / "root" / "put").mkdir(parents=True)
    (directory / "root" / "file").symlink_to(file)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_NGINX.format(directory=directory, port=port))
    return RealOrigin("nginx", [find_tool("nginx"), "-p", str(directory), "-c", str(config)], port)


def node(directory: Path, file: Path) -> RealOrigin:
    port = free_port()
    return RealOrigin("node", [find_tool("node"), str(HERE / "origin.mjs"), str(port), str(file)], port)


def gunicorn(directory: Path, file: Path) -> RealOrigin:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    command += ["--chdir", str(HERE), "--no-control-socket", "wsgi_app:application"]
    return RealOrigin("gunicorn", command, port, {"REAL_FILE": str(file)})


def uvicorn(directory: Path, file: Path) -> RealOrigin:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", str(port), "--log-level", "error"]
    return RealOrigin(
        "uvicorn", [*command, "--http", "httptools", "asgi_app:application"], port, {"REAL_FILE": str(file)}
    )


MAKERS = {"nginx": nginx, "node": node, "gunicorn": gunicorn, "uvicorn": uvicorn}
