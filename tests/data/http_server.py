"""A real HTTP server on the loopback that serves a folder, counts, and fails as it is told."""

import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What a request may meet in place of its file.
FAULTS = ("500", "503", "truncated", "reset", "stall", "wrong", "longer", "empty")


class Server(ThreadingHTTPServer):
    """Serves a folder under a URL.

    Args:
        folder: what it serves.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.gets: Counter[str] = Counter()
        self.headers: list[Any] = []
        self.faults: dict[str, list[str]] = {}
        self.chunk_wait_s = 0.0
        self.closing = threading.Event()
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        """Where the folder is."""
        return f"http://127.0.0.1:{self.server_port}/data"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of this folder, in threads of this process."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.removeprefix("/data/")
        with self.server.counting:
            self.server.gets[name] += 1
            self.server.headers.append(self.headers)
            faults = self.server.faults.get(name, [])
            fault = faults.pop(0) if faults else ""
        path = self.server.folder / name
        if fault.isdigit():
            self.send_error(int(fault))
        elif not path.is_file():
            self.send_error(404)
        else:
            self._send(path.read_bytes(), fault)

    def _send(self, content: bytes, fault: str) -> None:
        content = _content(content, fault)
        start, end = self._range(len(content))
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        middle = (start + end) // 2
        try:
            self._write(content[start:middle])
            self._fail(fault)
            if not self.close_connection:
                self._write(content[middle:end])
        except OSError:  # the client has left
            self.close_connection = True

    def _fail(self, fault: str) -> None:
        """Whatever has to happen halfway."""
        if fault == "stall":
            self.server.closing.wait(60)
        if fault == "reset":  # closing with linger 0 sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        if fault in ("stall", "reset", "truncated"):
            self.close_connection = True

    def _write(self, content: bytes) -> None:
        for start in range(0, len(content), 4096):
            self.wfile.write(content[start : start + 4096])
            if self.server.chunk_wait_s:
                time.sleep(self.server.chunk_wait_s)

    def _range(self, size: int) -> tuple[int, int]:
        unit, _, wanted = self.headers.get("Range", "").partition("=")
        if unit != "bytes":
            return 0, size
        start, _, end = wanted.partition("-")
        return int(start), min(int(end) + 1, size) if end else size


def _content(content: bytes, fault: str) -> bytes:
    if fault == "wrong":
        return bytes([content[0] ^ 1]) + content[1:]
    if fault == "longer":
        return content + b"more"
    return b"" if fault == "empty" else content
