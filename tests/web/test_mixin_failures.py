"""What `SessionMixin` answers when a session cannot be saved or loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.web import authenticated

from stormcellar import Lifetime, SessionChanged
from stormcellar.sessions.session import state_of
from stormcellar.stores import StoreFull, StoreRefused, StoreUnavailable
from tests.support.embedding import Lab, count, errors, look, post_json, set_names


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab(lifetime=Lifetime(touch_after_s=60))
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def _dressed(change: Any) -> Any:
    """Return a method that makes *change* to the session and decorates its response."""

    def method(self: Any) -> None:
        change(self.session)
        self.set_status(202)
        self.set_header("X-Mine", "1")
        self.add_header("Set-Cookie", "added=1")
        self.set_cookie("mine", "1")
        self.write("all is well")

    return method


def _put(session: Any) -> None:
    session["a"] = 1


# --- when saving fails ---


@pytest.mark.gen_test
async def test_gone_is_409(lab, browser):
    """A session that ends while its request runs: 409, without what the handler set."""  # D1
    sid = await lab.open_session(browser, a=0)

    async def post(self):
        await lab.end(sid.handle)
        _dressed(_put)(self)

    lab.serve("/", post=post)

    response = await post_json(browser)

    assert (response.code, response.reason) == (409, "Conflict")
    assert "X-Mine" not in response.headers
    assert response.headers.get_list("Set-Cookie") == []
    assert b"all is well" not in response.body
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_rotated_meanwhile_is_409(lab, browser):
    """A request that loaded before a rotation cannot write after it, and leaves the cookie alone."""  # D2
    sid = await lab.open_session(browser, a=0)

    async def get(self):
        await lab.supersede(sid)
        self.session["a"] = 1

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.code == 409
    assert response.headers.get_list("Set-Cookie") == []
    assert await lab.data() == {"a": 0}


@pytest.mark.parametrize("fault", [StoreUnavailable("down"), StoreFull("full"), StoreRefused("no")])
@pytest.mark.parametrize("has_session", [True, False])
@pytest.mark.gen_test
async def test_store_down_at_save_is_503(has_session, fault, lab, browser, caplog):
    """A store that fails: 503 with Retry-After, without what the handler wrote, one line in the log."""
    if has_session:
        await lab.open_session(browser, a=0)
    lab.store.fail |= {"apply": fault, "create": fault}
    lab.serve("/", post=_dressed(_put))

    response = await post_json(browser)

    assert response.code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "X-Mine" not in response.headers
    assert response.headers.get_list("Set-Cookie") == []
    assert b"all is well" not in response.body
    assert [r.getMessage() for r in caplog.records] == [f"POST '/': {type(fault).__name__}"]
    assert lab.access == [503]


@pytest.mark.parametrize("fault", [RuntimeError("bug"), asyncio.CancelledError(), KeyError("x")])
@pytest.mark.parametrize("operation", ["load", "apply"])
@pytest.mark.gen_test
async def test_unexpected_exception_of_a_store_is_500(operation, fault, lab, browser, caplog):
    """Whatever a store raises, when loading or saving, the client is answered 500 and gets no cookie."""
    await lab.open_session(browser, a=0)
    lab.store.fail[operation] = fault
    lab.serve("/", post=_dressed(_put))

    response = await post_json(browser)

    assert response.code == 500
    assert "X-Mine" not in response.headers
    assert response.headers.get_list("Set-Cookie") == []
    assert len(errors(caplog)) == 1
    assert lab.access == [500]


@pytest.mark.gen_test
async def test_too_large_is_413(lab, browser):
    """More than a session holds: 413, and nothing is written."""  # G15
    await lab.open_session(browser, a=0)

    def put(session):
        session["a"] = 1
        session["big"] = "x" * 70_000

    lab.serve("/", post=_dressed(put))

    response = await post_json(browser)

    assert response.code == 413
    assert "X-Mine" not in response.headers
    assert await lab.data() == {"a": 0}


@pytest.mark.gen_test
async def test_value_made_unfit_is_500(lab, browser):
    """A stored list into which something was put that is not JSON: 500, and nothing is written."""
    await lab.open_session(browser, cart=[1])

    def get(self):
        self.session["a"] = 1
        self.session["cart"].append({1, 2})

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.code == 500
    assert await lab.data() == {"cart": [1]}


@pytest.mark.gen_test
async def test_unfit_value_and_a_lenient_error_page(lab, browser):
    """An error page that answers 400 for it neither hangs nor saves."""
    await lab.open_session(browser, cart=[1])

    def get(self):
        self.session["cart"].append({1, 2})

    def write_error(self, status_code, **kwargs):
        self.set_status(400)
        self.finish("your fault")

    lab.serve("/", get=get, write_error=write_error)

    response = await browser.get("/")

    assert (response.code, response.body) == (400, b"your fault")
    assert await lab.data() == {"cart": [1]}


@pytest.mark.parametrize("fault", [None, StoreUnavailable("down"), RuntimeError("bug")])
@pytest.mark.gen_test
async def test_error_page_of_the_handler(fault, lab, browser):
    """A failed save is shown by the handler's own `write_error`, which is told the exception."""
    sid = await lab.open_session(browser, user="alice")

    async def get(self):
        self.session["a"] = 1
        if fault is None:
            await lab.end(sid.handle)

    def write_error(self, status_code, *, exc_info):
        self.set_cookie("page", "1")
        self.finish(f"{status_code} {exc_info[0].__name__} for {self.current_user}")

    if fault is not None:
        lab.store.fail["apply"] = fault
    lab.serve("/", get=get, write_error=write_error)

    response = await browser.get("/")

    expected = {None: "409 SessionChanged", StoreUnavailable: "503 StoreUnavailable"}
    assert (
        response.body.decode()
        == f"{expected.get(type(fault) if fault else None, '500 RuntimeError')} for alice"
    )
    assert set_names(response) == ["page"]


@pytest.mark.gen_test
async def test_error_page_that_changes_the_session(lab, browser, caplog):
    """An error page that changes the session again is answered all the same, and nothing is written."""
    sid = await lab.open_session(browser, log=[])

    async def get(self):
        self.session["log"].append("page")
        await lab.end(sid.handle)

    def write_error(self, status_code, **kwargs):
        self.session["log"].append("error")
        self.finish(f"error {status_code}")

    lab.serve("/", get=get, write_error=write_error)

    response = await browser.get("/")

    assert (response.code, response.body) == (409, b"error 409")
    assert lab.store.calls["apply"] == 1
    assert errors(caplog) == [f"session {sid.handle} changed too late to be saved: the response is finished"]


@pytest.mark.gen_test
async def test_lenient_error_page(lab, browser, caplog):
    """An error page that makes a 400 of a store's exception saves nothing by that."""
    await lab.open_session(browser, a=0)
    lab.store.fail["apply"] = RuntimeError("bug")

    def write_error(self, status_code, **kwargs):
        self.set_status(400)
        self.finish(f"{self.session['a']}")

    lab.serve("/", post=_dressed(_put), write_error=write_error)

    response = await post_json(browser)

    assert (response.code, response.body) == (400, b"0")
    assert lab.store.calls["apply"] == 1
    assert len(errors(caplog)) == 1


@pytest.mark.gen_test
async def test_waiting_for_a_response_that_fails(lab, browser):
    """A handler that awaits finish() goes on when the save has failed; the client was told."""
    lab.store.fail["create"] = StoreUnavailable("down")

    async def get(self):
        self.session["a"] = 1
        await self.finish("done")
        went_on.append(self.get_status())

    went_on = []
    lab.serve("/", get=get)

    response = await browser.get("/")
    await lab.sessions.drain()

    assert (response.code, went_on) == (503, [503])


@pytest.mark.gen_test
async def test_error_page_that_fails_too(lab, browser):
    """If the error page fails as well, the client is still answered."""
    await lab.open_session(browser, a=0)
    lab.store.fail["apply"] = StoreUnavailable("down")

    def write_error(self, status_code, **kwargs):
        raise ValueError("boom")

    lab.serve("/", get=count, write_error=write_error)

    response = await browser.get("/")

    assert (response.code, response.body) == (503, b"")


@pytest.mark.gen_test
async def test_handler_may_catch_the_error(lab, browser):
    """A handler that commits itself may answer a failure as it likes."""
    sid = await lab.open_session(browser, a=0)

    async def get(self):
        await lab.end(sid.handle)
        self.session["a"] = 1
        try:
            await self.session.commit()
        except SessionChanged:
            state_of(self.session).drop_data()
            self.write("never mind")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"never mind")


@pytest.mark.gen_test
async def test_error_of_a_commit_in_the_handler(lab, browser):
    """A failed commit that the handler lets pass is answered like a failed save."""
    sid = await lab.open_session(browser, a=0)

    async def post(self):
        await lab.end(sid.handle)
        _dressed(_put)(self)
        await self.session.commit()

    lab.serve("/", post=post)

    response = await post_json(browser)

    assert response.code == 409
    assert response.headers.get_list("Set-Cookie") == []
    assert lab.store.calls["apply"] == 1


# --- when loading fails ---


@pytest.mark.gen_test
async def test_store_down_at_load(lab, browser):
    """With a cookie and no store: 503 with Retry-After and the cookie untouched."""
    await lab.open_session(browser, user="alice")
    lab.store.fail["load"] = StoreUnavailable("down")
    lab.serve("/", get=look)

    response = await browser.get("/")

    assert response.code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers.get_list("Set-Cookie") == []


@pytest.mark.gen_test
async def test_store_down_without_a_session(lab, browser):
    """Without a store, visitors still read, and pages without the mixin still work for everybody."""
    lab.store.fail["load"] = StoreUnavailable("down")
    lab.serve("/", get=look)

    as_visitor = await browser.get("/")
    await lab.open_session(browser, user="alice")
    without_mixin = await browser.get("/ping")

    assert [as_visitor.code, without_mixin.code] == [200, 200]


@pytest.mark.gen_test
async def test_recovery_without_a_restart(lab, browser):
    """Once the store answers again, so does the page, with the same session."""
    await lab.open_session(browser, visits=4)
    lab.serve("/", get=count)
    lab.store.fail["load"] = StoreUnavailable("down")
    down = await browser.get("/")

    lab.store.fail.clear()
    up = await browser.get("/")

    assert (down.code, up.body) == (503, b"visit 5")


@pytest.mark.gen_test
async def test_session_before_prepare(lab, browser, caplog):
    """Without the mixin's `prepare` there is no session, and the exception says what to do."""

    def prepare(self):
        self.session["a"] = 1

    lab.serve("/", prepare=prepare, get=look)

    response = await browser.get("/")

    assert response.code == 500
    assert "RuntimeError: the session is not loaded yet: await super().prepare() first" in caplog.text


@pytest.mark.gen_test
async def test_application_without_the_settings(lab, browser, caplog):
    """An application that was not given `session_settings` is answered, and the log says what is missing."""
    lab.serve("/", get=look)
    del lab.app.settings["stormcellar"]

    response = await browser.get("/")

    assert response.code == 500
    assert "no session manager: Application(..., **session_settings(manager))" in caplog.text


@pytest.mark.gen_test
async def test_current_user_in_an_early_error_page(lab, browser):
    """The page of an error that came before `prepare` may ask for the user: there is none."""
    await lab.open_session(browser, user="alice")

    def write_error(self, status_code, **kwargs):
        self.finish(f"{status_code} {self.current_user}")

    lab.serve("/", post=look, write_error=write_error)

    response = await browser.fetch("POST", "/", body="a=1")

    assert response.body == b"403 None"


@pytest.mark.gen_test
async def test_authenticated(lab, browser):
    """`@authenticated` sends a visitor to sign in, and lets a user through."""
    lab.serve("/private", get=authenticated(look))

    visitor = await browser.get("/private?x=1")
    await lab.open_session(browser, user="alice")
    user = await browser.get("/private?x=1")

    assert (visitor.code, visitor.headers["Location"]) == (302, "/login?next=%2Fprivate%3Fx%3D1")
    assert user.body == b'{"user": "alice", "data": {}}'
