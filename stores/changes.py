"""Writes and rotations as functions from a record's old values to its new ones."""

from __future__ import annotations

from collections.abc import Mapping

from stormcellar.stores.records import Delta, Record, Rotation


def holds(expect: Mapping[str, bytes | None], data: Mapping[str, bytes]) -> bool:
    """Return whether each key of *expect* has its value in *data*; None means absent."""
    return all(data.get(key) == value for key, value in expect.items())


def written(data: Mapping[str, bytes], delta: Delta) -> dict[str, bytes]:
    """Return *data* after *delta*."""
    return {key: value for key, value in {**data, **delta.put}.items() if key not in delta.drop}


def rotated(record: Record, rotation: Rotation) -> Record:
    """Return *record* after *rotation*."""
    keep = rotation.keep
    kept = {key: value for key, value in record.data.items() if keep is None or key in keep}
    return Record(
        record.handle,
        rotation.new_verifier,
        rotation.user,
        record.created_ms,
        rotated_ms=rotation.rotated_ms,
        auth_ms=rotation.auth_ms,
        seen_ms=max(record.seen_ms, rotation.rotated_ms),
        expires_ms=rotation.expires_ms,
        deadline_ms=rotation.deadline_ms,
        client=rotation.client,
        data=written(kept, rotation.delta),
    )
