"""Errors of requests whose headers or body can't be read, in any protocol over HTTP."""

from gateway.ingress.http.asgi import (
    BadHeader,
    BodyIncomplete,
    BodyTooLarge,
    ContentEncodingNotSupported,
    ContentTypeNotSupported,
    HeadersTooLarge,
    RequestTooSlow,
)
from gateway.ingress.http.error_rows.row import ErrorMapping

HTTP_ERRORS: dict[type[Exception], ErrorMapping] = {
    BadHeader: ErrorMapping(400, -32600, "bad-header", keeps_http_status=True),
    BodyTooLarge: ErrorMapping(413, -32600, "body-too-large", keeps_http_status=True),
    BodyIncomplete: ErrorMapping(
        400, -32600, "body-incomplete", "The connection ended before the whole body arrived.", keeps_http_status=True
    ),
    HeadersTooLarge: ErrorMapping(431, -32600, "headers-too-large", keeps_http_status=True),
    RequestTooSlow: ErrorMapping(408, -32600, "request-timeout", "The request did not arrive in time.", keeps_http_status=True),
    ContentTypeNotSupported: ErrorMapping(
        415, -32005, "content-type", "The body must be application/json.", a2a_reason="CONTENT_TYPE_NOT_SUPPORTED"
    ),
    ContentEncodingNotSupported: ErrorMapping(
        415,
        -32600,
        "content-encoding",
        "Content-Encoding is not supported: send the body without compression.",
        keeps_http_status=True,
    ),
}
