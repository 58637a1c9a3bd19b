"""An HTTP server on this machine alone, whose answers a test decides.

    with serving({"/a": Answer(b"text")}) as server:
        ... server.url + "/a" ...
        server.requests  # [(method, path, the Range header or None)]

It listens on 127.0.0.1, on a port that the system chooses, and ends with the block.
"""

import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What is sent for a path. A path may have a list of them, one a request; the last
    one stays."""

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    ranges: bool = True  # whether a Range is honoured, or all is sent again
    cut_after: int | None = None  # bytes after which the connection breaks
    wait: float = 0.0  # seconds of silence once half of the bytes are sent
    length: int | None = None  # a lie about Content-Length
    chunked: bool = False  # no Content-Length at all


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers["Range"]))
        answer = self.server.answer(path)
        body, status = answer.body, answer.status
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        headers = dict(answer.headers)
        if asked and answer.ranges and status == 200:
            start = int(asked[1])
            if start >= len(body):
                body, status = b"", 416
            else:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(body) if answer.length is None else answer.length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.send(body, answer)

    do_HEAD = do_GET

    def send(self, body, answer):
        if answer.cut_after is not None:
            self.wfile.write(body[: answer.cut_after])
            self.close_connection = True
            return
        half = len(body) // 2
        for part in (body[:half], body[half:]):
            if answer.chunked and part:
                part = b"%x\r\n%s\r\n" % (len(part), part)
            self.wfile.write(part)
            if part and answer.wait:
                time.sleep(answer.wait)
                answer.wait = 0.0
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")
        if answer.length is not None:  # what is missing never comes
            self.close_connection = True

    def log_message(self, *_):
        pass


class LocalServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers = answers
        self.requests = []
        self.connections = []

    def get_request(self):
        self.connections.append(super().get_request())
        return self.connections[-1]

    def stop(self):
        """Stop answering, on the connections that are open too."""
        self.shutdown()
        self.server_close()
        for connection, _ in self.connections:
            with suppress(OSError):  # it has ended already
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, path):
        answer = self.answers.get(path, Answer(b"no such page", 404))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def handle_error(self, request, client_address):
        pass  # a client that hung up


@contextmanager
def serving(answers):
    """Serve {path: Answer or list of Answers} while the block runs."""
    server = LocalServer(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
