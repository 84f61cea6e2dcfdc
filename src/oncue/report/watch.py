"""A server on this machine's own address, which shows the report of a run while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.0.0.1"


class Watch:
    """Serves one page, made anew when what it is made of has changed.

    Only this machine is answered, and only where it is asked for by that name: a page of another site can't read it by a
    name of its own that leads here.

    Args:
        make: Makes the page of a version.
        version: Returns what changes with the run.
        port: Where to listen; 0 for any port that is free.

    Attributes:
        url: Where the page is.

    Example:
        >>> from urllib.request import urlopen
        >>> from threading import Thread
        >>> watch = Watch(lambda version: "<p>all is well</p>", lambda: "1")
        >>> Thread(target=watch.serve, daemon=True).start()
        >>> urlopen(watch.url).read()
        b'<p>all is well</p>'
        >>> watch.close()
    """

    def __init__(self, make: Callable[[str], str], version: Callable[[], str], port: int = 0) -> None:
        made: dict[str, bytes] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Host") not in hosts:
                    self.send_error(403)
                elif self.path == "/version":
                    self._answer(version().encode("utf-8"), "text/plain")
                elif self.path == "/":
                    now = version()
                    if now not in made:
                        page = make(now).encode("utf-8")
                        made.clear()
                        made[now] = page
                    self._answer(made[now], "text/html; charset=utf-8")
                else:
                    self.send_error(404)

            def _answer(self, content: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer((ADDRESS, port), Handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url = f"http://{ADDRESS}:{port}/"
        hosts = (f"{ADDRESS}:{port}", f"localhost:{port}")

    def serve(self) -> None:
        """Answer until `close` is called, or Ctrl-C comes."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop answering, and let the port go."""
        self._server.shutdown()
        self._server.server_close()
