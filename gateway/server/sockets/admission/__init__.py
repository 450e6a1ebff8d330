"""Which requests start, wait or are refused at the sockets, before an application knows of them."""
