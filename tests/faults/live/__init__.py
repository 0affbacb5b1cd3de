"""Faults of every store under open sockets, some of whose sessions end: `make faults-live`."""
