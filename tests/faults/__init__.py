"""Faults of every store and of the server under a load that checks every answer: `make faults`."""

from tests.faults.redis_faults import ONE_ADDRESS, REDIS

SUITES = (
    REDIS,
    ONE_ADDRESS,
)
