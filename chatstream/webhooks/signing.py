"""Signatures of webhooks: Standard Webhooks 1.0 (https://www.standardwebhooks.com), symmetric, ``v1``."""

import base64
import hashlib
import hmac

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key in a secret ``whsec_…``: the part after the prefix, decoded from Base64."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def headers(key: bytes, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that sign a request. `timestamp`: the time of this try, in seconds since the epoch."""
    signed = f"{id_}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": id_, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
