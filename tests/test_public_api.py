"""What `stormcellar` and `stormcellar.stores` export, and what importing them brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stormcellar
import stormcellar.stores
import stormcellar.testing
from tests.support.running import ROOT, environment

LIBRARY = {
    *("SessionMixin", "SessionManager", "Session", "Lifetime", "session_settings", "reauthenticated"),
    *("Event", "Events", "Key", "Kind", "is_private_key", "add_security_headers"),
    *("SessionError", "SessionEnded", "SessionChanged", "SessionTooLarge", "InsecureTransport"),
    *("SignInRevoked", "ReauthenticationRequired", "PasswordRefused", "Throttled"),
    *("SessionSocketMixin", "SessionStreamMixin", "Rechecks"),
}
STORES = {
    *("open_store", "StoreOptions", "Store", "Announcing", "Scannable"),
    *("Record", "Delta", "Rotation", "Outcome", "Absent", "Handle", "Verifier", "Credential"),
    *("Why", "TOMBSTONE_MS", "are_times", "check_record"),
    *("Counters", "Rule", "Tally", "check_keys", "check_user"),
    *("StoreError", "StoreUnavailable", "StoreFull", "StoreRefused", "DuplicateSession", "StoreURL"),
    *("Problem", "ReplicasMissing"),
}
TESTING = {
    *("Client", "SessionTestCase", "make_manager", "Clock", "FaultyStore", "Response"),
    *("CookieJar", "CookieRefused", "CookieRefusedWarning"),
    *("WebSocket", "SocketClosed", "Closed", "EventStream", "ServerEvent"),
}
FOREIGN = {"tornado", "redis", "hiredis", "pymongo", "bson", "argon2", "uvloop"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after *statement*."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment(),
    )
    return set(done.stdout.split())


def test_library_exports_what_is_listed_here() -> None:
    """A name that is added or removed here is a change for those who embed sessions."""
    assert set(stormcellar.__all__) == LIBRARY
    assert {name for name in LIBRARY if not hasattr(stormcellar, name)} == set()
    assert set(dir(stormcellar)) >= LIBRARY


def test_stores_export_what_is_listed_here() -> None:
    """A name that is added or removed here is a change for those who write stores."""
    assert set(stormcellar.stores.__all__) == STORES
    assert {name for name in STORES if not hasattr(stormcellar.stores, name)} == set()


def test_testing_exports_what_is_listed_here() -> None:
    """A name that is added or removed here is a change for those who test their applications."""
    assert set(stormcellar.testing.__all__) == TESTING
    assert {name for name in TESTING if not hasattr(stormcellar.testing, name)} == set()


def test_testing_needs_tornado_alone() -> None:
    """Neither pytest nor a driver is imported for unittest."""
    assert modules_after("import stormcellar.testing") & {*FOREIGN, "pytest"} == {"tornado"}


def test_unknown_name_is_an_attribute_error() -> None:
    """The names are imported when first used; a wrong one fails as in any module."""
    with pytest.raises(AttributeError, match="module 'stormcellar' has no attribute 'SessionMixing'"):
        getattr(stormcellar, "SessionMixing")  # noqa: B009
    with pytest.raises(ImportError, match="SessionMixing"):
        exec("from stormcellar import SessionMixing")


@pytest.mark.parametrize(
    "statement",
    [
        "import stormcellar",
        "import stormcellar.stores",
        "from stormcellar.stores import *",
        "import stormcellar.sessions",
        "import stormcellar.sessions.manager, stormcellar.sessions.session",
        "from stormcellar import SessionManager, Session, Lifetime, Events, SessionError",
        "from stormcellar.stores import open_store; open_store('memory')",
    ],
)
def test_session_layer_imports_no_framework_and_no_driver(statement: str) -> None:
    """The session layer serves other frameworks too, with the driver of the store that is opened."""
    assert modules_after(statement) & FOREIGN == set()


def test_mixin_imports_no_driver() -> None:
    """An application with Tornado and the memory store needs nothing else."""
    assert modules_after("from stormcellar import SessionMixin, session_settings") & FOREIGN == {"tornado"}
