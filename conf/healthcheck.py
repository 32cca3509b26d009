"""Checks whether the server in this container is ready: the exit status is 0 if it is.

It finds the server's address in the same variables as the server. No proxy is used: http.client knows none.
"""

import http.client
import os
import sys

# For a server that listens on all addresses: the address that a client connects to.
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared

host = os.environ.get("CHATSTREAM_HOST") or "127.0.0.1"
port = int(os.environ.get("CHATSTREAM_PORT") or "3000")
connection = http.client.HTTPConnection(_HERE.get(host, host), port, timeout=4)  # less than HEALTHCHECK's own timeout
try:
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as exc:
    sys.exit(f"no answer on {host} port {port}: {exc}")
sys.exit(0 if status == http.client.OK else f"/readyz: {status}")
