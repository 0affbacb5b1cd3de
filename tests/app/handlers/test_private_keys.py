"""Keys that begin with `_`: no client reads, writes, deletes or counts what the server keeps there."""

from __future__ import annotations

import pytest

from stormcellar import is_private_key
from stormcellar.sessions.session import FLASH
from stormcellar.stores import Credential, Delta
from tests.support.site import JSON, Site

PRIVATE = [f"{FLASH}000:0000000000000000", FLASH, "_", "_mine", "__proto__"]


@pytest.mark.parametrize("key", PRIVATE)
def test_these_keys_are_private(key: str) -> None:
    """Those of flash messages are, and whatever an application calls in the same way."""
    assert is_private_key(key)  # C4
    assert not is_private_key(key.strip("_") or "a_")


@pytest.mark.gen_test
@pytest.mark.parametrize("key", PRIVATE)
async def test_a_request_with_a_private_key_is_refused_whole(key: str, site: Site) -> None:
    """Neither a value, nor a deletion, nor a count reaches it; the good keys are not written either."""
    browser = site.browser()
    answers = [
        await browser.json("PATCH", "/session", {"good": 1, key: "You have won!"}),
        await browser.json("PATCH", "/session", {"good": 1, key: None}),
        await browser.json("POST", "/session/increment", {"key": key, "by": 1}),
    ]

    assert [(status, body["error"]["code"]) for status, body in answers] == [(400, "bad_request")] * 3  # C4
    assert all("Keys that begin with _ are private" in body["error"]["message"] for _, body in answers)
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_private_key_is_shown_to_nobody(site: Site) -> None:
    """Neither the session as JSON nor the home page shows it, and a write beside it leaves it alone."""
    browser = await site.signed_in()
    (record,) = await site.records()
    delta = Delta({"_mine": b'"secret-7"', "cart": b"[1]"})
    credential, now_ms = Credential(record.handle, record.verifier), site.sessions.now_ms()
    await site.store.apply(credential, delta, now_ms=now_ms, expires_ms=None)
    _, body = await browser.json("PATCH", "/session", {"cart": [2]})
    shown = [await browser.get("/session"), await browser.get("/"), await browser.get("/", Accept=JSON)]

    assert body["data"] == {"cart": [2]}  # C4
    assert all(b"_mine" not in page.body and b"secret-7" not in page.body for page in shown)
    (record,) = await site.records()
    assert record.data["_mine"] == b'"secret-7"'
