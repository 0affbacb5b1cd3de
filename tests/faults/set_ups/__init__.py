"""Every set-up and its faults."""

from tests.faults.set_ups.clock_faults import CLOCKS, CLOCKS_MONGO
from tests.faults.set_ups.cluster_faults import CLUSTER, CLUSTER_WAITS
from tests.faults.set_ups.memory_faults import MEMORY
from tests.faults.set_ups.mongo_faults import MONGO
from tests.faults.set_ups.redis_faults import ONE_ADDRESS, REDIS
from tests.faults.set_ups.replica_set_faults import REPLICA_SET
from tests.faults.set_ups.rolling_faults import ROLLING
from tests.faults.set_ups.sentinel_faults import SENTINEL, SENTINEL_WAITS
from tests.faults.set_ups.server_faults import SERVER

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
    CLOCKS_MONGO,
)
