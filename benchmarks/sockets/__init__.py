"""What `make bench-live` consists of: sockets of two server processes, and their client."""
