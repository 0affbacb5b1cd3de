"""Sessions that something long-lived belongs to: sockets, streams, long handlers."""
