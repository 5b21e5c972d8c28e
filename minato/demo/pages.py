"""What a demo origin answers: a page, an event stream, a slow page, a cacheable one."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

SLOW_S = 2.0
EVENT_GAP_S = 1.0
MAX_BODY_BYTES = 64 * 1024 * 1024

_PAGE = """<!doctype html>
<title>minato demo</title>
<h1>minato demo</h1>
<p>This answer comes from upstream <b>{name}</b>. Reload: the other one takes its turn.</p>
<ul>
<li><a href="/events">/events</a>: server-sent events, one a second</li>
<li><a href="/slow">/slow</a>: takes two seconds</li>
<li><a href="/cached">/cached</a>: may be kept for ten seconds; look at Age and Cache-Status</li>
<li><a href="/health">/health</a>: what the health checks ask for</li>
</ul>
<p>The fields that reached the upstream:</p>
<pre>{fields}</pre>
"""


class DemoHandler(BaseHTTPRequestHandler):
    """Answers one connection. ``origin`` is set on a subclass for each origin."""

    protocol_version = "HTTP/1.1"
    server_version = "minato-demo"
    sys_version = ""
    timeout = 120
    disable_nagle_algorithm = True
    origin = ""

    def do_GET(self) -> None:
        pages: dict[str, Callable[[], None]] = {
            "/": self._send_page,
            "/events": self._send_events,
            "/slow": self._send_slowly,
            "/cached": self._send_cacheable,
            "/health": lambda: self._send_text("ok\n"),
        }
        page = pages.get(urlsplit(self.path).path)
        if page is None:
            self._send_text(f"upstream {self.origin} has no such page\n", status=404)
        else:
            page()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._send_text("a Content-Length, please\n", status=411)
            return
        received = 0
        while received < int(length):
            data = self.rfile.read(min(65_536, int(length) - received))
            if not data:
                return
            received += len(data)
        self._send_text(f"upstream {self.origin} received {received} bytes\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is minato's."""

    def _send_page(self) -> None:
        fields = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        body = _PAGE.format(name=html.escape(self.origin), fields=html.escape(fields))
        self._send(body.encode(), "text/html; charset=utf-8", {"Cache-Control": "no-store"})

    def _send_slowly(self) -> None:
        time.sleep(SLOW_S)
        self._send_text(f"upstream {self.origin} took its time\n")

    def _send_cacheable(self) -> None:
        text = f"upstream {self.origin} wrote this at {time.strftime('%H:%M:%S')}\n"
        self._send(text.encode(), "text/plain; charset=utf-8", {"Cache-Control": "max-age=10"})

    def _send_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        gap = threading.Event()
        number = 0
        while self.command == "GET":
            number += 1
            event = f"id: {number}\ndata: event {number} from upstream {self.origin}\n\n".encode()
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            except OSError:
                self.close_connection = True
                return
            gap.wait(EVENT_GAP_S)

    def _send_text(self, text: str, status: int = 200) -> None:
        self._send(text.encode(), "text/plain; charset=utf-8", {"Cache-Control": "no-store"}, status)

    def _send(self, body: bytes, content_type: str, fields: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
