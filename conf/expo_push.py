#!/usr/bin/env python3
"""Turns chatstream's webhooks into push notifications of Expo: an example to copy, with only Python's standard library.

    WEBHOOK_SECRET=whsec_… TOKENS_FILE=tokens.json python3 expo_push.py

The file has the devices of each user: {"user-1": ["ExponentPushToken[…]"]}. Run it behind a proxy with TLS, or on the
machine of chatstream, with CHATSTREAM_WEBHOOK_URL=http://127.0.0.1:8787/ and the same secret.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

EXPO = os.environ.get("EXPO_URL", "https://exp.host/--/api/v2/push/send")
KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TITLES = {"answer.ended": "Your answer is there", "answer.waiting": "Your answer waits for you"}
# A webhook may come twice, with the same id. If you have several processes, keep these ids where all of them can read
# them.
SEEN: OrderedDict[str, None] = OrderedDict()


def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """Standard Webhooks: an HMAC of id, time and body; nothing older than five minutes."""
    id_, sent, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not sent.isdigit() or abs(time.time() - int(sent)) > 300:
        return False
    expected = base64.b64encode(hmac.digest(KEY, f"{id_}.{sent}.".encode() + body, hashlib.sha256)).decode()
    return any(hmac.compare_digest(one.encode(), f"v1,{expected}".encode()) for one in given.split())


def push(event: dict) -> None:
    """One message to each device of the user."""
    title = TITLES.get(event["type"])
    if event["type"] == "answer.ended" and event["data"]["status"] != "complete":
        title = "Your answer broke off"
    devices = json.loads(Path(os.environ["TOKENS_FILE"]).read_text()).get(event["data"]["userId"], [])
    if title is None or not devices:
        return
    conversation = event["data"]["conversationId"]
    messages = [{"to": device, "title": title, "data": {"conversationId": conversation}} for device in devices]
    body, headers = json.dumps(messages).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(EXPO, body, headers)  # noqa: S310 - the operator's own address
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - see above


class Receiver(BaseHTTPRequestHandler):
    """Receives webhooks. Answers with 204, or with an error after which chatstream tries again."""

    def do_POST(self) -> None:
        """Handle one webhook."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1_000_000))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 401
        if is_genuine(headers, body):
            try:
                if headers["webhook-id"] not in SEEN:
                    push(json.loads(body))
                    SEEN[headers["webhook-id"]] = None
                    if len(SEEN) > 10_000:
                        SEEN.popitem(last=False)
                status = 204
            except OSError:  # Expo cannot be reached: chatstream tries again later
                status = 503
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8787"))), Receiver).serve_forever()
