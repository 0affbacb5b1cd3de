"""What caches are told: nobody is shown another's page or given another's cookie."""  # F6

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.web import GZipContentEncoding, HTTPError

from tests.support.embedding import Lab, post_json


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab()
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def told(response):
    """Return what *response* tells caches: Vary and Cache-Control."""
    return response.headers.get("Vary"), response.headers.get("Cache-Control")


PUBLIC = (None, None)
VARIES = ("Cookie", None)
PRIVATE = ("Cookie", "no-store")


def _nothing(self):
    self.write("page")


def _looks(self):
    self.write(str("x" in self.session))


def _reads(self):
    self.write(str(self.session.get("a")))


def _asks_who(self):
    self.write(str(self.current_user))


async def _reads_again(self):
    value = self.session.get("a")
    await self.session.reload()
    self.write(str(value))


def _writes(self):
    self.session["b"] = 1


def _form(self):
    self.write(self.xsrf_form_html())


async def _commits(self):
    self.session["b"] = 1
    await self.session.commit()


async def _streams(self):
    self.write("begin")
    await self.flush()


def _fails(self):
    raise HTTPError(404)


@pytest.mark.parametrize(
    ("get", "visitor", "anonymous", "user"),
    [
        (_nothing, PUBLIC, PUBLIC, PRIVATE),
        (_looks, VARIES, VARIES, PRIVATE),
        (_reads, VARIES, PRIVATE, PRIVATE),
        (_reads_again, VARIES, PRIVATE, PRIVATE),
        (_asks_who, VARIES, VARIES, PRIVATE),
        (_writes, PRIVATE, PRIVATE, PRIVATE),
        (_commits, PRIVATE, PRIVATE, PRIVATE),
        (_form, PRIVATE, PRIVATE, PRIVATE),
        (_streams, PUBLIC, PUBLIC, PRIVATE),
        (_fails, PUBLIC, PUBLIC, PRIVATE),
    ],
)
@pytest.mark.gen_test
async def test_what_caches_are_told(get, visitor, anonymous, user, lab, browser):
    """A page varies if it looked at the session; it is not stored if it shows, sets or belongs to one."""
    lab.serve("/", get=get)
    with_session, with_user = browser.copy(), browser.copy()
    await lab.open_session(with_session, a=1)
    await lab.open_session(with_user, user="alice", a=1)

    actual = [told(await each.get("/")) for each in (browser, with_session, with_user)]

    assert actual == [visitor, anonymous, user]


@pytest.mark.parametrize("verb", ["login", "logout", "renew"])
@pytest.mark.gen_test
async def test_responses_that_change_the_cookie(verb, lab, browser):
    """Every response that sets or deletes the cookie is kept by nobody."""

    async def change(self):
        await getattr(self.session, verb)(*["bob"] * (verb == "login"))

    await lab.open_session(browser, a=1)
    lab.serve("/", post=change)

    response = await post_json(browser, "/")

    assert response.headers.get_list("Set-Cookie") != []
    assert told(response) == PRIVATE


@pytest.mark.gen_test
async def test_ended_session_is_cleared_uncached(lab, browser):
    """So is the one that clears the cookie of an ended session, though its handler never looked."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(50_000)
    lab.serve("/", get=_nothing)

    assert told(await browser.get("/")) == PRIVATE


@pytest.mark.parametrize(
    ("said", "told_with_cookie"),
    [
        ("public, max-age=60", "no-store"),
        ("max-age=60", "no-store"),
        ("private", "private"),
        ("no-store, max-age=0", "no-store, max-age=0"),
    ],
)
@pytest.mark.gen_test
async def test_a_cookie_is_never_for_shared_caches(said, told_with_cookie, lab, browser):
    """What the handler says of caching stands, but not where it would give one person's cookie to others."""

    def get(self):
        self.set_header("Cache-Control", said)
        if self.get_query_argument("write", None):
            self.session["b"] = 1

    lab.serve("/", get=get)

    without_cookie, with_cookie = await browser.get("/"), await browser.get("/?write=1")

    assert without_cookie.headers["Cache-Control"] == said
    assert (with_cookie.headers["Cache-Control"], len(browser.cookies)) == (told_with_cookie, 1)


@pytest.mark.gen_test
async def test_superseded_session_varies(lab, browser):
    """Under a superseded cookie a page that looked varies: the newer cookie gets another page."""
    sid = await lab.open_session(browser, user="alice")
    await lab.supersede(sid)
    lab.serve("/", get=_asks_who)

    assert told(await browser.get("/")) == VARIES


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], "Cookie"),
        (["Accept"], "Accept, Cookie"),
        (["Accept, Origin"], "Accept, Origin, Cookie"),
        (["Accept", "Origin"], "Accept, Origin, Cookie"),
        (["cookie"], "cookie"),
        (["Accept,COOKIE"], "Accept,COOKIE"),
        (["*"], "*"),
        (["X-Cookie"], "X-Cookie, Cookie"),
    ],
)
@pytest.mark.gen_test
async def test_vary_of_the_handler(own, expected, lab, browser):
    """What the handler varies by stays, and Cookie is added once."""

    def get(self):
        for value in own:
            self.add_header("Vary", value)
        self.session["a"] = 1

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert ", ".join(response.headers.get_list("Vary")) == expected


@pytest.mark.gen_test
async def test_vary_beside_compression(lab, browser):
    """Tornado's own Vary for compressed pages is merged with ours."""
    lab.app.add_transform(GZipContentEncoding)
    lab.serve("/", get=_reads)

    response = await browser.get("/")

    assert told(response) == ("Cookie, Accept-Encoding", None)


@pytest.mark.parametrize("own", ["private, max-age=60", "no-cache", "no-store, private"])
@pytest.mark.gen_test
async def test_cache_control_of_the_handler(own, lab, browser):
    """What the handler tells caches stays as it is; Vary is added."""
    await lab.open_session(browser, user="alice")

    def get(self):
        self.set_header("Cache-Control", own)
        self.session["a"] = 1

    lab.serve("/", get=get)

    assert told(await browser.get("/")) == ("Cookie", own)


@pytest.mark.gen_test
async def test_not_modified(lab, browser):
    """A 304 says the same as the page it stands for."""
    await lab.open_session(browser, user="alice")
    lab.serve("/", get=_nothing)
    page = await browser.get("/")

    again = await browser.get("/", If_None_Match=page.headers["Etag"])

    assert (again.code, told(again)) == (304, PRIVATE)


@pytest.mark.gen_test
async def test_error_page_of_a_user(lab, browser):
    """The error page of a signed-in user is kept by nobody, whatever the handler had set."""
    await lab.open_session(browser, user="alice")

    def get(self):
        self.set_header("Cache-Control", "public, max-age=60")
        raise HTTPError(404)

    lab.serve("/", get=get)

    assert told(await browser.get("/")) == PRIVATE
