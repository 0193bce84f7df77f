"""A server of leases, in memory: as much of the API of Kubernetes as `LeaseLock` calls, with
compare-and-set by `resourceVersion`.

As a program it prints its port and serves until its standard input ends; it imports nothing of
ours.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Handler", "serve"]

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
_LOCK = threading.Lock()
_KEPT: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    """GET and PUT of a lease, POST of a new one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The lease, or 404."""
        with _LOCK:
            lease = _KEPT.get(self._name)
        self._reply(*((200, lease) if lease else _failure(404, "NotFound")))

    def do_POST(self) -> None:
        """Make it, or 409."""
        lease = self._read()
        name = lease["metadata"]["name"]
        with _LOCK:
            exists = name in _KEPT
            if not exists:
                lease["metadata"]["resourceVersion"] = "1"
                _KEPT[name] = lease
        self._reply(*(_failure(409, "AlreadyExists") if exists else (201, lease)))

    def do_PUT(self) -> None:
        """Replace it by one that was made of the current version, or 409."""
        lease = self._read()
        with _LOCK:
            kept = _KEPT.get(self._name)
            version = kept["metadata"]["resourceVersion"] if kept else None
            current = version is not None and lease["metadata"].get("resourceVersion") == version
            if version is not None and current:
                lease["metadata"]["resourceVersion"] = str(int(version) + 1)
                _KEPT[self._name] = lease
        self._reply(*((200, lease) if current else _failure(409, "Conflict")))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    @property
    def _name(self) -> str:
        return self.path.removeprefix(_LEASES).lstrip("/")

    def _read(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        # With its head in one write: a second one would wait for the other end's delayed
        # acknowledgement of the first.
        self._headers_buffer: list[bytes]
        self._headers_buffer.append(b"\r\n" + data)
        self.flush_headers()


def _failure(code: int, reason: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "status": "Failure", "reason": reason, "code": code}


def serve() -> None:
    """Serve until the standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    serve()
