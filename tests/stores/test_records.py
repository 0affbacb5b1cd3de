"""The values of the store contract: how records, deltas and rotations are made, and what they refuse."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from types import MappingProxyType

import pytest

from stormcellar.stores import Delta, Record, Rotation
from stormcellar.stores.conformance.cases import HOSTILE_KEYS, NOW, new_record, new_rotation, new_verifier
from stormcellar.stores.records import check_keys


def test_record_is_made_of_its_fields_in_their_order() -> None:
    """The arguments are the fields by name and place, and those with a default may be left out."""
    arguments = inspect.signature(Record).parameters
    values = [f"value of {name}" for name in arguments]

    record = Record(*values)

    assert [field.name for field in fields(Record)] == list(arguments)
    assert [getattr(record, name) for name in arguments] == values
    assert record == Record(**dict(zip(arguments, values, strict=True)))
    for field in fields(Record):
        is_required = field.default is MISSING and field.default_factory is MISSING
        assert (arguments[field.name].default is inspect.Parameter.empty) == is_required, field.name
    one, other = (Record("h", "v", None, NOW, NOW, None, NOW, NOW, NOW) for _ in range(2))
    assert (one.client, one.data) == (b"", {})
    assert one.data is not other.data


def test_record_is_a_frozen_value() -> None:
    """It cannot be changed; `replace`, copies and pickles make equal ones, and subclasses are possible."""

    class Labelled(Record):
        label = "a"

    record = new_record(data=MappingProxyType({"a": b"1"}))
    plain = replace(record, data={"a": b"1"})

    with pytest.raises(FrozenInstanceError):
        record.user = "x"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del record.user
    assert replace(record, user="x").user == "x"
    assert plain == record == copy.copy(record)
    assert pickle.loads(pickle.dumps(plain)) == copy.deepcopy(plain) == plain
    assert Labelled(*(getattr(record, field.name) for field in fields(record))).data == record.data


def test_key_is_refused_every_time() -> None:
    """What was refused once, or accepted, is so again; no kind of key passes for having been seen."""
    for _ in range(2):
        check_keys(["good", "a" * 64])
        for key in HOSTILE_KEYS:
            with pytest.raises(ValueError, match="does not match"):
                check_keys(["good", key])
        for key in (b"good", 1, None):
            with pytest.raises(TypeError):
                check_keys([key])  # type: ignore[list-item]


def test_delta_refuses_a_key_put_and_dropped() -> None:
    """The key is named, and one that is only expected besides is no contradiction."""
    with pytest.raises(ValueError, match=r"both put and dropped: a$"):
        Delta(put={"a": b"1", "b": b"2"}, drop=frozenset({"a"}))

    assert Delta(put={"a": b"1"}, drop=frozenset({"b"}), expect={"a": None, "b": b""}).drop == {"b"}


@pytest.mark.parametrize("user", ["", "\ud800", "a\udfff"], ids=ascii)
def test_rotation_refuses_what_is_no_user(user: str) -> None:
    """An empty user, or one with a lone surrogate, reaches no store by a rotation."""
    rotation = new_rotation(new_verifier(), user=None)

    with pytest.raises(ValueError, match="a user must be non-empty text"):
        replace(rotation, user=user)


def test_rotation_is_a_frozen_value_with_fields_by_name() -> None:
    """It cannot be changed or made by position; its delta is empty and its grace 0 unless given."""
    rotation = new_rotation(new_verifier())

    with pytest.raises(FrozenInstanceError):
        rotation.user = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Rotation(*(getattr(rotation, field.name) for field in fields(rotation)))
    assert (rotation.delta, rotation.grace_ms) == (Delta(), 0)
