"""What all HTTP servers of the gateway share: authentication, header parsing, the table of errors."""
