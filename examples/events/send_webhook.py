"""Sends a webhook as a CRM would: signed as Standard Webhooks has it, with nothing but Python's own library.

python examples/events/send_webhook.py TYPE DATA, with the secret in CRM_SECRET and the gateway in INTERLOCK_URL.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid


def signed_request(url: str, secret: str, kind: str, data: object) -> urllib.request.Request:
    """A POST whose headers sign its id, its time and its body."""
    sent_at = int(time.time())
    body = json.dumps({"type": kind, "data": data}).encode()
    message_id = f"msg_{uuid.uuid4().hex}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    return urllib.request.Request(f"{url}/api/events/sources/crm", body, headers)


def main() -> int:
    """Returns 0 where the gateway has taken the webhook."""
    if len(sys.argv) != 3 or "CRM_SECRET" not in os.environ:
        sys.exit("usage: send_webhook.py TYPE DATA, with the secret of the source in CRM_SECRET, the same as the gateway has")
    kind, data = sys.argv[1], json.loads(sys.argv[2])
    url = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080")
    try:
        with urllib.request.urlopen(signed_request(url, os.environ["CRM_SECRET"], kind, data), timeout=10) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as refused:
        print(refused.code, refused.read().decode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
