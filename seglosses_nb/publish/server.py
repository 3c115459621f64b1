"""Shows the site in a browser, on this computer only."""

from __future__ import annotations

import http.server
from functools import partial
from typing import Any

from seglosses_nb.publish.book import Book, PublishError


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, always fresh from the disk, and keeps quiet about the ones that are there."""

    def end_headers(self) -> None:
        """Tell the browser to ask again: a build may have replaced the page."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Requests that succeed are no news; errors are still logged."""


def server(book: Book, port: int) -> http.server.ThreadingHTTPServer:
    """A server for the book's site on 127.0.0.1; port 0 takes any free one."""
    if not (book.site / "index.html").is_file():
        raise PublishError(f"there is no site at {book.site}; run `seglosses build` first")
    try:
        return http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), partial(Handler, directory=str(book.site))
        )
    except (OSError, OverflowError) as error:
        raise PublishError(
            f"--port {port} cannot be used ({error}); try another, or 0 for any free one"
        ) from error


def serve(book: Book, port: int) -> int:
    """Serve until Ctrl-C; the exit code."""
    with server(book, port) as web:
        print(f"http://127.0.0.1:{web.server_address[1]}/  (Ctrl-C stops)", flush=True)
        try:
            web.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
