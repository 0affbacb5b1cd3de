"""Faults of every store and of the server under a load that checks every answer: `make faults`."""
