"""Faults of every store and of the server under a load that checks every answer: `make faults`."""

from tests.faults.clock_faults import CLOCKS
from tests.faults.cluster_faults import CLUSTER, CLUSTER_WAITS
from tests.faults.memory_faults import MEMORY
from tests.faults.mongo_faults import MONGO
from tests.faults.redis_faults import ONE_ADDRESS, REDIS
from tests.faults.replica_set_faults import REPLICA_SET
from tests.faults.rolling_faults import ROLLING
from tests.faults.sentinel_faults import SENTINEL, SENTINEL_WAITS
from tests.faults.server_faults import SERVER

SUITES = (
    REDIS,
    ONE_ADDRESS,
    CLUSTER,
    CLUSTER_WAITS,
    SENTINEL,
    SENTINEL_WAITS,
    MONGO,
    REPLICA_SET,
    SERVER,
    ROLLING,
    MEMORY,
    CLOCKS,
)
