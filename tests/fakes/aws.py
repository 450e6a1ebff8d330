"""What AWS does, by its documents and without its library: checks a signature (Signature Version 4), and writes event streams."""

import base64
import hashlib
import hmac
import json
import struct
from typing import Any
from urllib.parse import quote
from zlib import crc32


def signature_fits(head: bytes, body: bytes, secret: str) -> bool:
    """Whether a request as it came over the wire is signed with that key, over its path, its signed headers and its body."""
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    fields = dict(part.strip().split("=", 1) for part in headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(","))
    _, day, region, service, _ = fields["Credential"].split("/")
    names = fields["SignedHeaders"].split(";")
    assert "host" in names and "x-amz-date" in names
    signed = [f"{name}:{headers[name]}" for name in names]
    digest = hashlib.sha256(body).hexdigest()
    canonical = "\n".join([method, quote(path, safe="/-_.~"), query, *signed, "", ";".join(names), digest])
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), fields["Signature"])


def message(kind: str, said: Any, form: str = "event") -> bytes:
    """One message of an event stream: an event, or an exception."""
    named = {":message-type": form, f":{form}-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode() for name, value in named.items()
    )
    payload = json.dumps(said).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", crc32(whole))


def chunk(text: str | bytes, **more: Any) -> bytes:
    """A piece of an agent's answer."""
    return message("chunk", {"bytes": base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode(), **more})
