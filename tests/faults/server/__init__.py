"""What the faults of the server itself are made of, for several set-ups."""
