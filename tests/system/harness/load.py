"""Load: an nginx origin of the test's own and a run of wrk, whose report is read."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

from .client import Client
from .waiting import wait_until

LARGE_BYTES = 4_194_304
_CONFIG = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{ listen 127.0.0.1:{port};
        location = /large {{ root {directory}; }}
        location = /sink {{ proxy_pass http://127.0.0.1:{port}/; proxy_method GET; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; }}
        location / {{ default_type text/plain; return 200 "{body}"; }} }}
}}
"""

# A reverse proxy as minato is one: the same limits for heads, no files for what clients do not take.
_PROXY_CONFIG = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 1000000; large_client_header_buffers 4 32k; proxy_max_temp_file_size 0;
    client_header_timeout 2;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
    {servers}
}}
"""
_PROXY_SERVER = """
    upstream {name}_up {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{ listen 127.0.0.1:{port}; server_name {name}; location / {{ proxy_pass http://{name}_up; }} }}
"""


def find_tool(name: str) -> str:
    """The path of a program the suite needs; its absence is a failure, not a reason to skip."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is missing: apt-get install {name}"
    return path


class Nginx:
    """An nginx that answers every request with 1 KB, /large with 4 MiB, and /sink once it has read the body."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = directory / "nginx.conf"
        config.write_text(self._configure(directory))
        self._process = subprocess.Popen(
            [find_tool("nginx"), "-p", str(directory), "-c", str(config)], stderr=subprocess.DEVNULL
        )
        wait_until(self._is_up, "nginx to listen")

    def _configure(self, directory: Path) -> str:
        (directory / "large").write_bytes(bytes(LARGE_BYTES))
        return _CONFIG.format(directory=directory, port=self.port, body="x" * 1024)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        try:
            Client(self.port).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class NginxProxy(Nginx):
    """An nginx of one process in front of others: the machine's own measure."""

    def __init__(self, directory: Path, origins: Mapping[str, Nginx]) -> None:
        """``origins``: by the host that is asked for."""
        self._origins = origins
        super().__init__(directory)

    def _configure(self, directory: Path) -> str:
        servers = [
            _PROXY_SERVER.format(name=name, port=self.port, upstream=origin.port)
            for name, origin in self._origins.items()
        ]
        return _PROXY_CONFIG.format(directory=directory, servers="".join(servers))


@dataclass(frozen=True)
class Report:
    """What wrk saw: requests completed, and everything that went wrong."""

    requests: int
    socket_errors: dict[str, int]
    bad_statuses: int
    text: str


class Wrk:
    """One run of wrk in the background."""

    def __init__(
        self,
        port: int,
        *,
        seconds: int,
        connections: int = 32,
        keep_alive: bool = True,
        host: str = "test.local",
        path: str = "/",
    ) -> None:
        url = f"http://127.0.0.1:{port}{path}"
        fields = ["-H", f"Host: {host}"] + ([] if keep_alive else ["-H", "Connection: close"])
        command = [find_tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", *fields, url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._seconds = seconds

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        if self.is_running():
            self._process.kill()
        self._process.wait(5)

    def finish(self) -> Report:
        """End it before its time and read the report."""
        self._process.send_signal(signal.SIGINT)
        return self.report()

    def report(self) -> Report:
        """Wait for the end and read the report."""
        text, _ = self._process.communicate(timeout=self._seconds + 20)
        completed = re.search(r"(\d+) requests in", text)
        assert completed, text
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        names = ("connect", "read", "write", "timeout")
        counts = {name: int(errors[n + 1]) for n, name in enumerate(names)} if errors else dict.fromkeys(names, 0)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        return Report(int(completed[1]), counts, int(bad[1]) if bad else 0, text)
