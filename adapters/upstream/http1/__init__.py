"""An HTTP/1.1 client: kept connections to vetted addresses, and few objects per request."""
