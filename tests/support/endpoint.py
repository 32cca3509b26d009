"""An OpenAI-compatible endpoint in a thread, for commands that run while a test waits for them."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Endpoint(ThreadingHTTPServer):
    """An endpoint with the models `gpt-4` and `gpt-5`. It answers as `gpt-4`, and accepts the key `sk-1`."""

    daemon_threads = True


class _Answers(BaseHTTPRequestHandler):
    """The handler of its requests."""

    def do_GET(self) -> None:
        self._say(200, "application/json", b'{"data": [{"id": "gpt-4"}, {"id": "gpt-5"}]}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != "gpt-4":
            self._say(404, "application/json", b'{"error": {"code": "model_not_found"}}')
        else:
            chunk = {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
            self._say(200, "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    def _say(self, status: int, kind: str, body: bytes) -> None:
        if not self.path.startswith("/v1/"):
            status, body = 404, b"404 page not found"
        elif self.headers["Authorization"] != "Bearer sk-1":
            status, body = 401, b'{"error": {"code": "invalid_api_key"}}'
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Write no access log."""


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    """Run the endpoint; yields its base URL."""
    with _Endpoint(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
