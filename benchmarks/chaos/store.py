"""An object store on loopback that answers as real ones do on a bad day."""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import urlsplit

import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

BUCKET = "chaos"
_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
RATES = {"slow down": 0.05, "error": 0.05, "reset": 0.03, "late": 0.03}
"""How often a request is answered with 503, with 500, with nothing, or after two seconds."""


class Store:
    """A bucket behind a door that is sometimes shut.

    Attributes:
        faults: how often each fault was served, and how many requests there were in all.
    """

    def __init__(self, moto: str, seed: int, rates: Mapping[str, float] = RATES) -> None:
        self.faults: Counter[str] = Counter()
        self._moto, self._rng, self._rates, self._lock = urlsplit(moto), random.Random(seed), rates, Lock()
        store = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                body = self.body()
                match store.draw():
                    case "reset":
                        self.close_connection = True
                        return
                    case "slow down":
                        return self.say(503, b"<Error><Code>SlowDown</Code></Error>")
                    case "error":
                        return self.say(500, b"<Error><Code>InternalError</Code></Error>")
                    case "late":
                        time.sleep(2)
                asked = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
                status, headers, content = store.ask(self.command, self.path, body, asked)
                self.say(status, content, headers)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass  # trailers
                return b"".join(chunks)

            def say(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                length = (headers or {}).get("Content-Length") if self.command == "HEAD" else None
                for name, value in (headers or {}).items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Door, f"do_{method}", Door.answer)
        self._door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._door.daemon_threads = True
        Thread(target=self._door.serve_forever, daemon=True).start()
        self.environment = _KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._door.server_port}"}

    def draw(self) -> str:
        """What happens to a request."""
        with self._lock:
            chance = self._rng.random()
            self.faults["requests"] += 1
            for name, rate in self._rates.items():
                if chance < rate:
                    self.faults[name] += 1
                    return name
                chance -= rate
        return ""

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The answer of the bucket itself."""
        link = http.client.HTTPConnection(self._moto.hostname or "", self._moto.port, timeout=60)
        link.request(method, path, body, headers)
        answer = link.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def close(self) -> None:
        """Shut the door for good."""
        self._door.shutdown()


class Bucket:
    """A bucket in this process, with and without faults."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.environment = _KEYS | {"AWS_ENDPOINT_URL": self.url}
        self._files().create_dir(BUCKET)

    def _files(self) -> pafs.S3FileSystem:
        return pafs.S3FileSystem(
            access_key="test",
            secret_key="test",
            region="us-east-1",
            endpoint_override=self.url,
            allow_bucket_creation=True,
        )

    def put(self, folder: Path, name: str) -> str:
        """Copy a folder into the bucket; its URI."""
        if folder.exists():
            pafs.copy_files(str(folder), f"{BUCKET}/{name}", destination_filesystem=self._files())
        return f"s3://{BUCKET}/{name}"

    def fetch(self, name: str, folder: Path) -> Path:
        """Copy a root out of the bucket."""
        folder.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(f"{BUCKET}/{name}", str(folder), source_filesystem=self._files())
        return folder

    def close(self) -> None:
        """End the server."""
        self._server.stop()


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
    """A bucket while the block runs."""
    opened = Bucket()
    try:
        yield opened
    finally:
        opened.close()
