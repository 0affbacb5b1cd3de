"""docs/javascript.md: its script in a real browser, against its server."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from stormcellar import SessionManager, SessionMixin, Throttled, reauthenticated
from stormcellar.stores import StoreUnavailable
from stormcellar.testing import FaultyStore, make_manager
from tests.docs.chapter import blocks, install
from tests.support.chromium import Chromium

PAGE = "javascript.md"
PASSWORD = "open sesame"
SIGN_IN = f'api.signIn("alice", "{PASSWORD}")'
IN_A_PAGE = """
const done = arguments[0];
import("/static/api.js")
  .then(async (api) => [await (%s)])
  .then(done, (error) => done({status: error.status, code: error.code, message: error.message}));
"""
Run = Callable[[str], Awaitable[Any]]


class Limited(SessionMixin, RequestHandler):
    """Refuses attempts."""

    def post(self) -> None:
        """Refuse one."""
        raise Throttled(7)


class Recovering(SessionMixin, RequestHandler):
    """Has no store at the first request."""

    reads = 0

    def get(self) -> None:
        """Fail once."""
        Recovering.reads += 1
        if self.reads == 1:
            raise StoreUnavailable("load")
        self.write({"reads": self.reads})


@pytest.fixture
def store() -> FaultyStore:
    """A store that fails if a test wants it."""
    return FaultyStore()


@pytest.fixture
def sessions(store: FaultyStore) -> SessionManager:
    """The manager."""
    return make_manager(store)


@pytest.fixture
def app(sessions: SessionManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Application:
    """The application of the page, and three handlers more."""
    install(PAGE, tmp_path, monkeypatch)
    (tmp_path / "api.js").write_text(next(each for each in blocks(PAGE, "js") if "// api.js" in each))
    notes = importlib.import_module("notes")
    # Tornado keeps one template loader for each folder, whatever the application.
    monkeypatch.setattr(RequestHandler, "_template_loaders", {})
    app: Application = notes.make_app(sessions, str(tmp_path), PASSWORD)

    class Keys(notes.Api):  # type: ignore[name-defined, misc]
        @reauthenticated(within=300)
        def post(self) -> None:
            pass

    Recovering.reads = 0
    app.add_handlers(".*", [("/limited", Limited), ("/keys", Keys), ("/recovering", Recovering)])
    return app


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    with Chromium(tmp_path_factory.mktemp("profile"), "") as browser:
        browser.driver.set_script_timeout(20)
        yield browser


@pytest.fixture
def js(chromium: Chromium, http_server: HTTPServer, http_port: int) -> Run:
    """A function that evaluates JavaScript in the page, and returns the value in a list, or the error."""
    chromium.forget()
    chromium.base = f"http://127.0.0.1:{http_port}"

    async def run(script: str) -> Any:
        if not chromium.driver.current_url.startswith(f"{chromium.base}/"):
            await asyncio.to_thread(chromium.open, "/")
        return await asyncio.to_thread(chromium.driver.execute_async_script, IN_A_PAGE % script)

    return run


@pytest.mark.gen_test
async def test_page_signs_in_writes_and_signs_out(js: Run) -> None:
    """Without being loaded again, with JSON and without a body."""
    refused = await js('api.call("POST", "/notes", {text: "tea"})')
    assert await js(SIGN_IN) == [None]
    await js('api.call("POST", "/notes", {text: "tea"})')
    read = await js('api.call("GET", "/notes")')
    await js('api.call("DELETE", "/notes")')
    empty = await js('api.call("GET", "/notes")')
    await js("api.signOut()")
    after = await js('api.call("GET", "/notes")')

    assert (refused["status"], refused["message"]) == (401, "Sign in first.")
    assert (read, empty) == ([{"notes": ["tea"]}], [{"notes": []}])
    assert after["status"] == 401


@pytest.mark.gen_test
async def test_old_form_token_is_replaced(js: Run) -> None:
    """The request succeeds although its token was made for another session."""
    assert await js(SIGN_IN) == [None]
    await js("document.querySelector('meta[name=form-token]').content = 'x'.repeat(86)")

    assert await js('api.call("DELETE", "/notes")') == [None]


@pytest.mark.gen_test
async def test_another_user_in_another_tab(js: Run) -> None:
    """A page of Alice does not write to the session of Bob."""
    assert await js(SIGN_IN) == [None]
    await js(
        f'fetch("/login", {{method: "POST", headers: {{"Content-Type": "application/json"}}, '
        f'body: JSON.stringify({{name: "bob", password: "{PASSWORD}"}})}})'
    )
    found = await js('api.call("POST", "/notes", {text: "of alice"})')

    assert (found["status"], found["code"]) == (409, "session_changed")
    assert "nothing was saved" in found["message"]


@pytest.mark.gen_test
async def test_errors_say_what_to_do(js: Run, store: FaultyStore, sessions: SessionManager) -> None:
    """Each status has its own text."""
    assert await js(SIGN_IN) == [None]
    large = await js('api.call("POST", "/notes", {text: "x".repeat(70000)})')
    limited = await js('api.call("POST", "/limited", {})')
    with store.failing():
        down = await js('api.call("POST", "/notes", {text: "tea"})')
    sessions.clock.advance(600)  # type: ignore[attr-defined]
    confirm = await js('api.call("POST", "/keys", {})')

    assert (large["status"], large["code"]) == (413, "session_too_large")
    assert limited["message"] == "That was too often. Try again in 7 seconds."
    assert (down["status"], "try again in 2 seconds" in down["message"]) == (503, True)
    assert confirm["message"] == "Confirm your password first."


@pytest.mark.gen_test
async def test_read_is_repeated_after_the_wait(js: Run) -> None:
    """Once, after the time that the server names; here the clock of the page is replaced."""
    found = await js(
        """(async () => {
          const own = window.setTimeout, waits = [];
          window.setTimeout = (done, ms) => { waits.push(ms); done(); };
          const read = await api.call("GET", "/recovering");
          window.setTimeout = own;
          return [read, waits];
        })()"""
    )

    assert found == [[{"reads": 2}, [2000]]]


@pytest.mark.gen_test
async def test_script_that_reads_the_cookie_of_tornado(js: Run) -> None:
    """The replacement of `getCookie` gives it a token that is accepted."""
    shim = next(each for each in blocks(PAGE, "js") if "function getCookie" in each)
    assert await js(SIGN_IN) == [None]
    answer = await js(
        f'(() => {{ {shim} return fetch("/logout", {{method: "POST", body: new URLSearchParams('
        '{_xsrf: getCookie("_xsrf")})}).then((it) => it.status); })()'
    )

    assert answer == [200]
