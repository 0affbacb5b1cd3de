"""The MongoDB document that holds a session, and the filters and updates for it.

Pure functions from the values of the contract to BSON and back; `MongoStore` sends the results::

    {_id: handle, verifier, previous?, grace_until?, user?, auth?, created, rotated, seen, expires, deadline,
     client: binary, data: {key: binary, ...}}

    {_id: handle, ended: date, expires}     a tombstone

Times are BSON dates, which are 64-bit milliseconds, so nothing is rounded and the TTL index reads the same
`expires` as every filter. Optional fields are absent rather than null. A caller's value never becomes a field
name or an operator: keys match `records.KEY`, filters compare by `$eq`, updates quote by `$literal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS

from stormcellar.stores.mongo.indexes import TTL_SLACK_S
from stormcellar.stores.records import (
    LATEST_MS,
    TOMBSTONE_MS,
    Delta,
    Handle,
    Record,
    Rotation,
    Verifier,
    are_times,
    check_record,
)

Document = dict[str, Any]

# A foreign document with ill-formed text, or dates outside Python's range, must not fail its whole batch.
CODEC: CodecOptions[Document] = CodecOptions(
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)

IMMUTABLE_FIELD = 66

_TIMES = ("created", "rotated", "seen", "expires", "deadline")
_REQUIRED: dict[str, type] = {
    "verifier": str,
    **dict.fromkeys(_TIMES, DatetimeMS),
    "client": bytes,
    "data": dict,
}
_OPTIONAL: dict[str, type] = {"user": str, "auth": DatetimeMS, "previous": str, "grace_until": DatetimeMS}
# https://bsonspec.org/spec.html
_NUMBERS: dict[type, int] = {str: 2, DatetimeMS: 9, bytes: 5, dict: 3}
_ARRAY, _EVERY_NUMBER = 4, [*range(1, 20), -1, 127]

# Each node of this filter costs the server some 3 microseconds a write, so there are as few as possible.
# `$type` and every comparison also match an array that contains such a value; an absent field has no type.
_PARSES: Document = {
    **{name: {"$type": _NUMBERS[kind]} for name, kind in _REQUIRED.items()},
    "$nor": [{name: {"$type": _ARRAY}} for name in _REQUIRED],
    **{
        name: {"$not": {"$type": [number for number in _EVERY_NUMBER if number != _NUMBERS[kind]]}}
        for name, kind in _OPTIONAL.items()
    },
    "$jsonSchema": {"properties": {"data": {"additionalProperties": {"bsonType": "binData"}}}},
}

# No document: a handle is never empty.
NOBODY: Document = {"_id": {"$eq": ""}}

TOMBSTONE: Document = {"ended": {"$type": _NUMBERS[DatetimeMS]}, "verifier": {"$exists": False}}

# Whatever is not a tombstone, also what does not parse.
NO_TOMBSTONE: Document = {"$nor": [TOMBSTONE]}

# A rotation and a tombstone may appear as a replacement of the whole document: the server logs the shorter
# form.
ENDED_SESSIONS: list[Document] = [
    {
        "$match": {
            "$or": [
                {"operationType": "delete"},
                {
                    "operationType": "update",
                    "updateDescription.updatedFields.verifier": {"$exists": True},
                    "updateDescription.updatedFields.previous": {"$exists": False},
                },
                {"operationType": "update", "updateDescription.updatedFields.ended": {"$exists": True}},
                {"operationType": "replace", "fullDocument.previous": {"$exists": False}},
            ]
        }
    },
    {"$project": {"documentKey": 1}},
]


def to_document(record: Record) -> Document:
    """Return the document for *record*, or raise ValueError if a store cannot keep it."""
    check_record(record)
    optional = {"user": record.user, "auth": _date(record.auth_ms)}
    return {
        "_id": record.handle,
        "verifier": record.verifier,
        "created": _date(record.created_ms),
        "rotated": _date(record.rotated_ms),
        "seen": _date(record.seen_ms),
        "expires": _date(record.expires_ms),
        "deadline": _date(record.deadline_ms),
        "client": record.client,
        "data": dict(record.data),
        **{name: value for name, value in optional.items() if value is not None},
    }


def to_record(document: Mapping[str, Any]) -> Record | None:
    """Return the record in *document* with its current verifier, or None if it does not parse."""
    if not (_is_session(document) and has_times(document)):
        return None
    return Record(
        handle=Handle(document["_id"]),
        verifier=Verifier(document["verifier"]),
        user=document.get("user"),
        created_ms=int(document["created"]),
        rotated_ms=int(document["rotated"]),
        auth_ms=int(document["auth"]) if "auth" in document else None,
        seen_ms=int(document["seen"]),
        expires_ms=int(document["expires"]),
        deadline_ms=int(document["deadline"]),
        client=bytes(document["client"]),
        data={key: bytes(value) for key, value in document["data"].items()},
    )


def _is_session(document: Mapping[str, Any]) -> bool:
    return (
        isinstance(document["_id"], str)
        and all(isinstance(document.get(name), kind) for name, kind in _REQUIRED.items())
        and all(isinstance(document[name], kind) for name, kind in _OPTIONAL.items() if name in document)
        and all(isinstance(value, bytes) for value in document["data"].values())
        # The driver's class for JavaScript is a subclass of str.
        and Code not in map(type, document.values())
    )


def has_times(document: Mapping[str, Any]) -> bool:
    """Return whether a calendar has each time of a document whose fields have their types."""
    return are_times(*(int(document[name]) for name in (*_TIMES, "auth") if name in document))


def ended_ms(document: Mapping[str, Any]) -> int | None:
    """Return when the session was destroyed if *document* is its tombstone; otherwise None."""
    ended = document.get("ended")
    return int(ended) if isinstance(ended, DatetimeMS) and "verifier" not in document else None


def tombstone(now_ms: int) -> list[Document]:
    """Return the pipeline that replaces a document by a tombstone.

    The TTL index removes it `TOMBSTONE_MS` from now on the server's clock.
    """
    slack_ms = 1000 * TTL_SLACK_S - TOMBSTONE_MS
    expires = {"$subtract": ["$$NOW", slack_ms]}
    return [{"$replaceWith": {"_id": "$_id", "ended": _literal(_date(now_ms)), "expires": expires}}]


def live(now_ms: int) -> Document:
    """Return the filter that matches documents that parse and have not expired.

    Of the times only the expiry is compared with the calendar: each comparison costs a write 3 microseconds.
    """
    return {**_PARSES, "expires": {"$gt": _date(now_ms), "$lte": _date(LATEST_MS)}}


def belongs_to(user: str, now_ms: int) -> Document:
    """Return the filter that matches the live sessions of *user*."""
    parses = live(now_ms)
    return {**parses, "user": {"$eq": user, **parses["user"]}}


def has_current(verifier: Verifier) -> Document:
    """Return the filter that matches the current verifier alone, where `live` matches."""
    return {"verifier": {"$eq": verifier}}


def accepts(verifier: Verifier, now_ms: int) -> Document:
    """Return the filter that matches the current verifier, and the previous one within its grace."""
    in_grace = {"previous": {"$eq": verifier}, "grace_until": {"$gt": _date(now_ms)}}
    return {"$or": [{"verifier": {"$eq": verifier}}, in_grace]}


def is_accepted(document: Mapping[str, Any], verifier: str, now_ms: int) -> bool:
    """Return whether a loaded document accepts *verifier*: the same test as the filter `accepts`."""
    if document["verifier"] == verifier:
        return True
    return document.get("previous") == verifier and int(document.get("grace_until", 0)) > now_ms


def holds(delta: Delta) -> Document:
    """Return the filter that matches while every `expect` of *delta* holds."""
    return {
        f"data.{key}": {"$exists": False} if value is None else {"$eq": value}
        for key, value in delta.expect.items()
    }


def changes(delta: Delta, *, now_ms: int, expires_ms: int | None) -> Document:
    """Return the update that writes *delta* and, unless *expires_ms* is None, slides the expiry."""
    # An empty update would replace the document, so without activity `seen` is compared with the epoch.
    seen_ms = 0 if expires_ms is None else now_ms
    update: Document = {"$max": {"seen": _date(seen_ms)}}
    if expires_ms is not None:
        update["$max"]["expires"] = _date(expires_ms)
    if delta.put:
        update["$set"] = {f"data.{key}": value for key, value in delta.put.items()}
    if delta.drop:
        update["$unset"] = {f"data.{key}": "" for key in delta.drop}
    return update


def never_inserting(change: Document | list[Document]) -> Document | list[Document]:
    """Return *change* such that, sent as an upsert, it fails with `IMMUTABLE_FIELD` if it matches nothing.

    The insert would have to give the document another `_id` than the filter does, which no server allows.
    """
    if isinstance(change, dict):
        return {**change, "$setOnInsert": {"_id": False}}
    # An upsert starts from the fields that the filter compares by equality; `created` is not one of them.
    is_new = {"$eq": [{"$type": "$created"}, "missing"]}
    return [{"$set": {"_id": {"$cond": [is_new, False, "$_id"]}}}, *change]


def rotated(old: Verifier, rotation: Rotation) -> list[Document]:
    """Return the one-stage pipeline that replaces the verifier *old* and what goes with it."""
    grace_ms, delta, rotated_ms = rotation.grace_ms, rotation.delta, rotation.rotated_ms
    return [
        {
            "$set": {
                "verifier": _literal(rotation.new_verifier),
                "previous": _literal(old if grace_ms else None),
                "grace_until": _literal(_date(rotated_ms + grace_ms) if grace_ms else None),
                "user": _literal(rotation.user),
                "auth": _literal(_date(rotation.auth_ms)),
                "rotated": _literal(_date(rotated_ms)),
                "expires": _literal(_date(rotation.expires_ms)),
                "deadline": _literal(_date(rotation.deadline_ms)),
                "seen": {"$max": ["$seen", _literal(_date(rotated_ms))]},
                "client": _literal(rotation.client),
                "data": {"$mergeObjects": [_survivors(rotation.keep, delta.drop), _literal(dict(delta.put))]},
            }
        }
    ]


def _survivors(keep: frozenset[str] | None, drop: frozenset[str]) -> str | Document:
    """Return the expression for the stored data that a rotation keeps."""
    if keep is None and not drop:
        return "$data"
    if keep is None:
        stays: Document = {"$not": [{"$in": ["$$this.k", _literal(sorted(drop))]}]}
    else:
        stays = {"$in": ["$$this.k", _literal(sorted(keep - drop))]}
    return {"$arrayToObject": {"$filter": {"input": {"$objectToArray": "$data"}, "cond": stays}}}


def _literal(value: Any) -> Any:
    return "$$REMOVE" if value is None else {"$literal": value}


def _date(ms: int | None) -> DatetimeMS | None:
    return None if ms is None else DatetimeMS(ms)
