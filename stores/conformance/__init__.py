"""The store contract as tests, for the authors of stores.

Subclass `StoreContract` in a test module and set the URL of your store::

    from stormcellar.stores.conformance import StoreContract


    class TestMyStore(StoreContract):
        url = "my_package.store:MyStore?port=1234"

If the address is known later, override the fixture `store_url` instead, which returns the URL; if the store
must be made in another way, the fixture `store`, and then the tests that open a second instance are skipped.
The fixture `io_loop` has `run_sync`, as that of pytest-tornado.

The tests of `gone` and `states` run if the store is `Announcing`, those of `scan` if it is `Scannable`,
those of a second instance if it is `shared`; otherwise they are skipped. Set the class attribute
`announces = False` if an `Announcing` store runs on a backend that cannot push, such as a standalone MongoDB
server. `CountersContract` tests the counters of a store in the same way.

The suite needs pytest, and no plug-in. Each test makes sessions of its own, under a prefix that is new in
each run, so the backend need not be emptied. Its clock must be within some minutes of this machine's,
because records that must be live expire an hour from now.

`FaultsContract` tests a store on a TCP port of loopback while the network between them stalls, breaks and
loses replies; `Network` is for such tests of your own.

Only the author of a store can test these, in tests of their own: a full or frozen backend, refused
credentials, a stored record that does not parse or has a time that no calendar has, and when the backend
itself removes records and tombstones.
"""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

# Before they are imported, so that their failures show values.
pytest.register_assert_rewrite(*(f"{__name__}.{each.name}" for each in iter_modules(__path__)))

from stormcellar.stores.conformance.announcing_races import AnnouncingRaceContract
from stormcellar.stores.conformance.apply import ApplyContract
from stormcellar.stores.conformance.basics import BasicContract
from stormcellar.stores.conformance.cancel import CancelContract
from stormcellar.stores.conformance.counters import CountersContract
from stormcellar.stores.conformance.faults import FaultsContract, Network
from stormcellar.stores.conformance.instances import InstancesContract
from stormcellar.stores.conformance.listing import IndexContract, ScannableContract
from stormcellar.stores.conformance.live import LiveContract
from stormcellar.stores.conformance.races import RaceContract
from stormcellar.stores.conformance.rotate import RotateContract
from stormcellar.stores.conformance.tombstones import FindContract, TombstoneContract

__all__ = ["CountersContract", "FaultsContract", "Network", "StoreContract"]


class StoreContract(
    BasicContract,
    LiveContract,
    ApplyContract,
    RotateContract,
    TombstoneContract,
    FindContract,
    IndexContract,
    AnnouncingRaceContract,
    ScannableContract,
    RaceContract,
    CancelContract,
    InstancesContract,
):
    """Every guarantee of `stores.Store` as a test."""
