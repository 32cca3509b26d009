"""Whether the server in this container is ready: its exit status is 0 if so.

It asks where the server listens, by the same variables, and through no proxy: http.client knows none.
"""

import http.client
import os
import sys

# The address of a socket that listens on all of them, as a client names it.
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared

host = os.environ.get("CHATSTREAM_HOST") or "127.0.0.1"
port = int(os.environ.get("CHATSTREAM_PORT") or "3000")
connection = http.client.HTTPConnection(_HERE.get(host, host), port, timeout=4)  # before HEALTHCHECK's own
try:
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as exc:
    sys.exit(f"no answer on {host} port {port}: {exc}")
sys.exit(0 if status == http.client.OK else f"/readyz: {status}")
