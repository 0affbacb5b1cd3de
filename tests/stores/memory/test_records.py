"""What the memory store packs comes back as it was, whatever it is."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as some

from stormcellar.stores import Record, Verifier
from stormcellar.stores.conformance.cases import (
    BINARY,
    HOSTILE_USERS,
    HOUR,
    NOW,
    SUPERSEDED,
    UNKNOWN,
    new_record,
    new_verifier,
    superseded,
)
from stormcellar.stores.memory.records import (
    absence,
    data_of,
    listing,
    load,
    pack,
    unpack,
    with_data,
    with_times,
)

MONTH = 31 * 24 * HOUR

texts = some.text(some.characters(exclude_categories=["Cs"]), min_size=1)
times = some.one_of(
    some.integers(NOW - HOUR, NOW + HOUR),
    some.integers(NOW - 2 * MONTH, NOW + 2 * MONTH),
    some.sampled_from([0, -1, 2**31, -(2**31), NOW - 2**31, NOW + 2**31 - 1, 2**63, -(2**63), 2**100]),
    some.integers(),
)
verifiers = some.one_of(
    some.binary(min_size=32, max_size=32).map(lambda raw: urlsafe_b64encode(raw).decode().rstrip("=")),
    some.text("AB-_+/=9", min_size=43, max_size=43),
    some.text(min_size=1),
).map(Verifier)
data = some.dictionaries(some.text("aZ_:-9", min_size=1, max_size=64), some.binary(), max_size=8)
records = some.builds(
    Record,
    handle=some.just("handle"),
    verifier=verifiers,
    user=some.none() | some.sampled_from(HOSTILE_USERS) | texts,
    created_ms=times,
    rotated_ms=times,
    auth_ms=some.none() | times,
    seen_ms=times,
    expires_ms=times,
    deadline_ms=times,
    client=some.binary() | some.just(BINARY),
    data=data,
)
graces = some.none() | some.tuples(verifiers, times)


def packed_with(record: Record, grace: tuple[Verifier, int] | None) -> bytes:
    """Return *record* packed, with its previous verifier and the end of that one's grace."""
    return pack(record) if grace is None else pack(record, previous=grace[0], grace_until_ms=grace[1])


@given(records, graces)
def test_what_is_packed_comes_back(record: Record, grace: tuple[Verifier, int] | None) -> None:
    """Any record unpacks to its equal, and what is read of it alone is the same."""
    packed = packed_with(record, grace)

    assert unpack(packed, record.handle) == record
    assert listing(packed) == (record.user, record.seen_ms, record.expires_ms)
    assert data_of(packed) == record.data
    assert load(packed, record.handle, record.verifier, record.expires_ms - 1) == record
    assert load(packed, record.handle, record.verifier, record.expires_ms) == UNKNOWN


@given(records, graces, times, times, data)
def test_what_is_replaced_is_all_that_changes(
    record: Record, grace: tuple[Verifier, int] | None, seen_ms: int, expires_ms: int, new: dict[str, bytes]
) -> None:
    """Other times or other data leave the rest as it is, also from one way of packing to the other."""
    packed = packed_with(record, grace)

    moved = with_times(packed, seen_ms=seen_ms, expires_ms=expires_ms)
    changed = with_data(moved, new)

    expected = replace(record, seen_ms=seen_ms, expires_ms=expires_ms)
    assert unpack(moved, record.handle) == expected
    assert unpack(changed, record.handle) == replace(expected, data=new)
    if grace is not None:
        now_ms = min(grace[1], expires_ms) - 1
        assert absence(changed, grace[0], now_ms) is None


@given(records, verifiers, graces, times)
def test_only_accepted_verifiers_are_live(
    record: Record, verifier: Verifier, grace: tuple[Verifier, int] | None, now_ms: int
) -> None:
    """The current verifier is accepted, the previous one within its grace, and never another."""
    packed = packed_with(record, grace)
    for presented in (record.verifier, verifier, *(() if grace is None else (grace[0],))):
        is_previous = grace is not None and presented == grace[0] and now_ms < grace[1]
        expected = None if presented == record.verifier or is_previous else superseded(record.rotated_ms)
        if record.expires_ms <= now_ms:
            expected = UNKNOWN

        assert absence(packed, presented, now_ms) == expected
        found = load(packed, record.handle, presented, now_ms)
        assert found == (replace(record, verifier=presented) if expected is None else expected)


def test_base64_that_stands_for_the_same_bytes_is_another_verifier() -> None:
    """The last character of a verifier has two bits that say nothing; it is compared all the same."""
    own = Verifier("A" * 43)
    twin = Verifier("A" * 42 + "B")

    for record in (new_record(verifier=own), new_record(verifier=twin)):
        other = twin if record.verifier == own else own
        assert load(pack(record), record.handle, other, NOW) == SUPERSEDED
        assert load(pack(record), record.handle, record.verifier, NOW) == record


def test_usual_record_takes_little_more_than_its_data() -> None:
    """Verifier, times and lengths take 65 bytes, a key or value seven more than what it says."""
    record = new_record(client=b"", data={"name": b"1" * 90, "pad": b"2" * 203})

    assert len(pack(record)) <= 65 + 300 + 16


@pytest.mark.parametrize("grace", [None, (new_verifier(), NOW)], ids=["usual", "other"])
def test_text_and_mappings_of_other_classes_are_packed(grace: tuple[Verifier, int] | None) -> None:
    """Keys of an enumeration, values of a bytearray and a mapping that is no dict come back as plain ones."""

    class Key(StrEnum):
        CART = "cart"

    record = new_record(user=Key.CART, data=MappingProxyType({Key.CART: bytearray(b"1")}))

    found = unpack(packed_with(record, grace), record.handle)

    assert (found.user, found.data) == ("cart", {"cart": b"1"})
    assert [type(each) for pair in found.data.items() for each in pair] == [str, bytes]


def test_many_keys_come_back() -> None:
    """256 keys, empty values and no data at all are nothing special."""
    for some_data in ({f"k{number}": b"v" * number for number in range(256)}, {"empty": b""}, {}):
        record = new_record(data=some_data, user="u" * 70_000, client=b"c" * 70_000)
        assert unpack(pack(record), record.handle) == record
        assert unpack(pack(replace(record, user="u")), record.handle) == replace(record, user="u")
