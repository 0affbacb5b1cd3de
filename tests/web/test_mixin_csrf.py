"""Form tokens: an unsafe request needs one that was rendered for the browser that sends it."""  # F1 F2 F3

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler

from stormcellar import SessionMixin
from stormcellar.sessions.cookies import SessionId
from stormcellar.stores import StoreUnavailable
from tests.support.browser import token
from tests.support.embedding import Lab, cookie_lines, post_json, set_names

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application with a form, which says who is signed in, and pages that sign in and out."""
    lab = Lab()
    lab.serve("/", get=_form, post=_accept)
    lab.serve("/login", post=_login)
    lab.serve("/logout", post=_logout)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def _form(self):
    self.write(self.xsrf_form_html())


def _accept(self):
    self.write(f"accepted for {self.session.user}")


async def _login(self):
    await self.session.login("alice")
    self.write(self.xsrf_form_html())


async def _logout(self):
    await self.session.logout()
    self.write(self.xsrf_form_html())


async def submit(browser, **fields):
    """Post *fields* as a form."""
    return (await browser.fetch("POST", "/", body=urlencode(fields), headers=FORM)).code


async def opened(browser):
    """Open the form; return its token."""
    return token(await browser.get("/"))


# --- what is accepted ---


@pytest.mark.parametrize("who", ["visitor", "anonymous", "user"])
@pytest.mark.gen_test
async def test_token_of_the_form(who, lab, browser):
    """A form is accepted from the browser that opened it, more than once."""
    if who != "visitor":
        await lab.open_session(browser, user="alice" if who == "user" else None, a=1)

    xsrf = await opened(browser)

    assert [await submit(browser, _xsrf=xsrf) for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("header", ["X-Xsrftoken", "X-Csrftoken", "x-XSRFtoken"])
@pytest.mark.gen_test
async def test_token_in_a_header(header, lab, browser):
    """A script may send the token in a header."""
    xsrf = await opened(browser)

    response = await browser.fetch("POST", "/", body="a=1", headers={**FORM, header: xsrf})

    assert response.code == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;x=y"],
)
@pytest.mark.gen_test
async def test_json_needs_no_token(content_type, lab, browser):
    """JSON is exempt, with parameters and in any case: no page of another site can send it unasked."""
    response = await browser.fetch("POST", "/", body="{}", headers={"Content-Type": content_type})

    assert response.code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.gen_test
async def test_safe_methods_need_no_token(method, lab, browser):
    """What must have no side effect needs no token."""
    lab.serve("/safe", get=_accept, head=_accept, options=_accept)

    assert (await browser.fetch(method, "/safe")).code == 200


@pytest.mark.gen_test
async def test_two_forms_differ(lab, browser):
    """Each rendering masks the token anew, and each is accepted."""
    await lab.open_session(browser, user="alice")

    tokens = [await opened(browser), await opened(browser)]

    assert tokens[0] != tokens[1]
    assert [await submit(browser, _xsrf=each) for each in tokens] == [200, 200]


@pytest.mark.gen_test
async def test_two_tabs_of_a_visitor(lab, browser):
    """A visitor may send the form of an earlier tab: opening a second one does not spoil it."""
    first = await opened(browser)
    second_page = await browser.get("/")

    assert cookie_lines(second_page) == []
    assert [await submit(browser, _xsrf=each) for each in (first, token(second_page))] == [200, 200]


@pytest.mark.parametrize("opened_before", [False, True])
@pytest.mark.gen_test
async def test_form_rendered_before_its_session(opened_before, lab, browser):
    """A form rendered before its response makes a session is good for that session."""

    def get(self):
        form = self.xsrf_form_html()
        self.session["a"] = 1
        self.write(form)

    lab.serve("/new", get=get)
    if opened_before:
        await opened(browser)

    page = await browser.get("/new")

    assert set_names(page) == ["id"]
    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_form_rendered_before_its_sign_in(lab, browser):
    """So is one rendered before its response signs a visitor in."""

    async def get(self):
        form = self.xsrf_form_html()
        await self.session.login("alice")
        self.write(form)

    lab.serve("/new", get=get)

    page = await browser.get("/new")

    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.gen_test
async def test_form_in_the_response_to_a_sign_in_or_out(path, lab, browser):
    """The form that answers a sign-in or a sign-out is made for what the browser holds from then on."""
    await lab.open_session(browser, user="bob")
    xsrf = await opened(browser)

    page = await browser.post_form(path, xsrf)

    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_form_under_the_cookie_of_an_ended_session(lab, browser):
    """A form rendered as the cookie is cleared is accepted without it."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(50_000)

    page = await browser.get("/")

    assert set_names(page) == ["-id", "id-form"]
    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_form_under_a_superseded_cookie(lab, browser):
    """A form rendered under a superseded cookie is accepted with it: it may be the sign-in."""
    sid = await lab.open_session(browser, user="alice")
    await lab.supersede(sid)

    page = await browser.get("/")

    assert cookie_lines(page) == []
    assert await submit(browser, _xsrf=token(page)) == 200


# --- what is refused ---


@pytest.mark.parametrize("who", ["visitor", "anonymous", "user"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.gen_test
async def test_no_token(method, who, lab, browser):
    """Without a token every unsafe method is refused, before any store is asked."""
    if who != "visitor":
        await lab.open_session(browser, user="alice" if who == "user" else None, a=1)
    lab.serve("/all", **dict.fromkeys(("post", "put", "patch", "delete"), _accept))

    response = await browser.fetch(method, "/all", body="a=1", headers=FORM)

    assert response.code == 403
    assert cookie_lines(response) == []
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_token_of_another_session(lab, browser):
    """A token made for another session is refused, and so is a visitor's for another visitor."""
    users = [browser.copy(), browser.copy()]
    for each in users:
        await lab.open_session(each, user="alice")
    visitors = [browser.copy(), browser.copy()]
    tokens = [await opened(each) for each in (*users, *visitors)]

    crossed = [
        await submit(users[0], _xsrf=tokens[1]),
        await submit(users[0], _xsrf=tokens[2]),
        await submit(visitors[0], _xsrf=tokens[3]),
        await submit(visitors[0], _xsrf=tokens[0]),
    ]

    assert crossed == [403] * 4


@pytest.mark.gen_test
async def test_token_in_the_url(lab, browser):
    """A token in the URL does not count: URLs end up in logs and in Referer headers."""
    await lab.open_session(browser, user="alice")
    xsrf = await opened(browser)

    response = await browser.fetch("POST", f"/?_xsrf={xsrf}", body="a=1", headers=FORM)

    assert response.code == 403


@pytest.mark.gen_test
async def test_token_in_a_cookie(lab, browser):
    """A token in a cookie does not count, nor does Tornado's own double submit."""
    await lab.open_session(browser, user="alice")
    xsrf = await opened(browser)
    browser.cookies["_xsrf"] = xsrf

    assert await submit(browser, a="1") == 403
    browser.cookies["_xsrf"] = "chosen-by-the-attacker"
    assert await submit(browser, _xsrf="chosen-by-the-attacker") == 403


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "",
        "text/json",
        "application/jsonp",
        "text/plain; application/json",
        "application/json, text/plain",
        "application/json-patch+json",
    ],
)
@pytest.mark.gen_test
async def test_other_types_need_a_token(content_type, lab, browser):
    """What a form of another site can send, or might look like JSON, is not exempt."""
    response = await browser.fetch("POST", "/", body='{"a": 1}', headers={"Content-Type": content_type})

    assert response.code == 403


@pytest.mark.gen_test
async def test_multipart_form(lab, browser):
    """A form with files needs the token like any other."""
    part = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    xsrf = await opened(browser)
    bodies = ["--b\r\n" + part.format(*field) + "--b--\r\n" for field in (("a", "1"), ("_xsrf", xsrf))]
    sent = {"Content-Type": "multipart/form-data; boundary=b"}

    codes = [(await browser.fetch("POST", "/", body=body, headers=sent)).code for body in bodies]

    assert codes == [403, 200]


@pytest.mark.gen_test
async def test_token_after_sign_in(lab, browser):
    """A token of before the sign-in is refused after it, a visitor's and a session's alike."""  # C15
    visitor = await opened(browser)
    await browser.post_form("/login", visitor)
    session = await opened(browser)
    await browser.post_form("/login", session)

    assert [await submit(browser, _xsrf=each) for each in (visitor, session)] == [403, 403]


@pytest.mark.gen_test
async def test_token_after_sign_out(lab, browser):
    """A token of before the sign-out is refused after it."""  # C15
    await lab.open_session(browser, user="alice")
    before = await opened(browser)

    page = await browser.post_form("/logout", before)

    assert set_names(page) == ["-id", "id-form"]
    assert await submit(browser, _xsrf=before) == 403


@pytest.mark.gen_test
async def test_nonce_is_taken_at_sign_in(lab, browser):
    """Signing in takes the visitor's nonce away, so that its tokens never count again."""  # C15
    xsrf = await opened(browser)
    planted = browser.cookies["id-form"]

    page = await browser.post_form("/login", xsrf)

    assert set_names(page) == ["id", "-id-form"]
    browser.cookies["id-form"] = planted
    assert await submit(browser, _xsrf=xsrf) == 403


@pytest.mark.gen_test
async def test_nonce_does_not_outlive_a_sign_out(lab, browser):
    """A nonce held beside a session is replaced at sign-out, though the answer renders a form."""  # C15
    xsrf = await opened(browser)
    nonce = browser.cookies["id-form"]
    await lab.open_session(browser, user="alice")

    page = await browser.post_form("/logout", await opened(browser))

    assert set_names(page) == ["-id", "id-form"]
    assert browser.cookies["id-form"] != nonce
    assert await submit(browser, _xsrf=xsrf) == 403


@pytest.mark.gen_test
async def test_planted_nonce_is_no_secret(lab, browser):
    """A nonce that somebody planted never becomes the secret of a session."""

    def get(self):
        self.write(self.xsrf_form_html())
        self.session["a"] = 1

    browser.cookies["id-form"] = planted = "A" * 43
    lab.serve("/new", get=get)

    await browser.get("/new")

    sid = lab.sessions.cookies.read([f"id={browser.cookies['id']}"])
    assert sid.secret != planted


@pytest.mark.gen_test
async def test_changed_tokens(lab, browser):
    """A token with any one character changed is refused."""
    await lab.open_session(browser, user="alice")
    xsrf = await opened(browser)
    # The last character holds two bits of the token and four of nothing.
    changed = [xsrf[:n] + ("B" if xsrf[n] != "B" else "C") + xsrf[n + 1 :] for n in range(0, 85, 7)]

    codes = {await submit(browser, _xsrf=each) for each in changed}

    assert codes == {403}


@pytest.mark.gen_test
async def test_tokens_of_every_wrong_length(lab, browser):
    """A token that is cut short or drawn out is refused, whatever its length."""
    await lab.open_session(browser, user="alice")
    xsrf = await opened(browser)
    assert len(xsrf) == 86
    wrong = [xsrf[:n] for n in range(1, 86)] + [xsrf + "A" * n for n in range(1, 90)]

    accepted = [each for each in wrong if lab_accepts(lab, browser, each)]
    codes = {await submit(browser, _xsrf=each) for each in ("", xsrf[:85], xsrf + "A", xsrf * 2, xsrf[:43])}

    assert (accepted, codes) == ([], {403})


def lab_accepts(lab, browser, xsrf):
    """Whether the check itself takes *xsrf* for the session of *browser*."""
    sid = lab.sessions.cookies.read([f"id={browser.cookies['id']}"])
    return lab.sessions.forms.check(xsrf, sid.secret)


@pytest.mark.parametrize(
    "xsrf",
    [".", "..", "A" * 86, "A" * 86 + "." + "A" * 86, "2|1|2|3", "é" * 86, "\x00", "=" * 86, "A." * 5000, " "],
)
@pytest.mark.gen_test
async def test_hostile_tokens(xsrf, lab, browser):
    """Whatever is sent as a token is refused without an error of ours."""
    await lab.open_session(browser, user="alice")

    assert await submit(browser, _xsrf=xsrf) == 403


@pytest.mark.gen_test
async def test_token_with_neighbours(lab, browser):
    """Only the two places of a token count: one hidden behind others is not looked for."""
    xsrf = await opened(browser)

    assert await submit(browser, _xsrf=f"A.A.{xsrf}") == 403


@pytest.mark.parametrize("nonce", ["", "short", "A" * 42, "A" * 44, "A" * 42 + "=", "é" * 43])
@pytest.mark.gen_test
async def test_malformed_nonce(nonce, lab, browser):
    """A nonce that is not ours is none: the form gets a new one."""
    browser.cookies["id-form"] = nonce

    page = await browser.get("/")

    assert set_names(page) == ["id-form"]
    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_invalid_text_in_the_field(lab, browser):
    """A token that is not UTF-8 is a 400."""
    response = await browser.fetch("POST", "/", body="_xsrf=%FF", headers=FORM)

    assert response.code == 400


# --- where and when ---


@pytest.mark.gen_test
async def test_prepare_without_the_mixins(lab, browser):
    """A handler that overrides `prepare` and forgets the mixin's is protected all the same."""

    def prepare(self):
        ran.append("prepare")

    def post(self):
        ran.append("post")

    ran = []
    lab.serve("/careless", prepare=prepare, post=post)

    response = await browser.fetch("POST", "/careless", body="a=1", headers=FORM)

    assert (response.code, ran) == (403, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
@pytest.mark.parametrize("media", ["form", "json"])
@pytest.mark.gen_test
async def test_other_sites(media, headers, status, lab, browser):
    """The second layer refuses another site even with a valid token, and even JSON."""  # F2 C14
    xsrf = await opened(browser)
    body = urlencode({"_xsrf": xsrf}) if media == "form" else "{}"
    sent = FORM if media == "form" else {"Content-Type": "application/json"}

    response = await browser.fetch("POST", "/", body=body, headers={**sent, **headers})

    assert response.code == status


@pytest.mark.gen_test
async def test_own_origin(lab, browser):
    """A browser that names this site as the origin passes."""
    xsrf = await opened(browser)

    response = await browser.fetch(
        "POST", "/", body=urlencode({"_xsrf": xsrf}), headers={**FORM, "Origin": browser.base}
    )

    assert response.code == 200


@pytest.mark.gen_test
async def test_login_of_a_visitor_needs_a_token(lab, browser):
    """Another site cannot sign a visitor in as somebody else: the sign-in needs a token too."""  # C14
    response = await browser.fetch("POST", "/login", body="a=1", headers=FORM)

    assert response.code == 403
    assert await lab.records() == []


# --- the nonce ---


@pytest.mark.gen_test
async def test_nonce_only_with_a_form(lab, browser):
    """A visitor gets a nonce only with a form, HttpOnly and without expiry, and no record."""  # A15
    lab.serve("/plain", get=_accept)

    plain, form = await browser.get("/plain"), await browser.get("/")

    (line,) = cookie_lines(form)
    pair, _, attributes = line.partition("; ")
    assert cookie_lines(plain) == []
    assert (len(pair), pair[:8]) == (51, "id-form=")
    assert attributes == "HttpOnly; Path=/; SameSite=Lax"
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_no_nonce_with_a_session(lab, browser):
    """Whoever has a session needs no nonce."""
    await lab.open_session(browser, a=1)

    assert cookie_lines(await browser.get("/")) == []


@pytest.mark.gen_test
async def test_form_that_gave_way_to_an_error(lab, browser):
    """A form that was dropped for an error page leaves no nonce behind."""  # A15

    def get(self):
        self.write(self.xsrf_form_html())
        raise HTTPError(500)

    async def post(self):
        await self.session.logout()
        self.xsrf_form_html()
        raise HTTPError(500)

    lab.serve("/fails", get=get, post=post)

    visited = await browser.get("/fails")
    await lab.open_session(browser, user="alice")
    signed_out = await post_json(browser, "/fails")

    assert [set_names(visited), set_names(signed_out)] == [[], ["-id"]]


@pytest.mark.parametrize("who", ["visitor", "visitor with a nonce", "user", "forger"])
@pytest.mark.gen_test
async def test_form_in_an_early_error_page(who, lab, browser):
    """The page of an error that came before `prepare` may hold a form, and that form is accepted."""
    if who == "visitor with a nonce":
        await opened(browser)
    elif who == "user":
        await lab.open_session(browser, user="alice")
    elif who == "forger":
        browser.cookies["id"] = lab.signed(SessionId.mint())[:-1] + "z"

    def write_error(self, status_code, **kwargs):
        self.finish(self.xsrf_form_html())

    lab.serve("/early", post=_accept, write_error=write_error)

    page = await browser.fetch("POST", "/early", body="a=1", headers=FORM)

    assert (page.code, page.headers["Cache-Control"], page.headers["Vary"]) == (403, "no-store", "Cookie")
    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_form_in_the_page_of_an_outage(lab, browser):
    """An error page without a store may hold a form; the session cookie stays, and no other is set."""
    await lab.open_session(browser, user="alice")
    lab.store.fail["load"] = StoreUnavailable("down")

    def write_error(self, status_code, **kwargs):
        self.finish(self.xsrf_form_html())

    lab.serve("/down", get=_form, write_error=write_error)

    page = await browser.get("/down")
    lab.store.fail.clear()

    assert (page.code, cookie_lines(page)) == (503, [])
    assert await submit(browser, _xsrf=token(page)) == 200


@pytest.mark.gen_test
async def test_form_before_prepare(lab, browser, caplog):
    """A form cannot be made before the session is loaded; the exception says what to do."""

    def prepare(self):
        self.xsrf_form_html()

    lab.serve("/early", prepare=prepare, get=_form)

    response = await browser.get("/early")

    assert response.code == 500
    assert "form tokens need the session: await super().prepare() first" in caplog.text


@pytest.mark.gen_test
async def test_handler_without_the_mixin(lab, browser):
    """A handler without the mixin keeps Tornado's own check, which our token does not satisfy."""
    lab.serve("/stock", bases=(RequestHandler,), post=lambda self: self.write("done"))
    xsrf = await opened(browser)

    response = await browser.fetch("POST", "/stock", body=urlencode({"_xsrf": xsrf}), headers=FORM)

    assert response.code == 403
    assert not issubclass(RequestHandler, SessionMixin)


@pytest.mark.gen_test
async def test_an_origin_that_is_no_url_is_refused(lab, browser):
    """An embedding application, too, answers 403 where Tornado's own comparison would raise."""
    lab.serve("/json", post=_accept)
    response = await browser.fetch(
        "POST", "/json", body=b"{}", headers={"Origin": "http://[", "Content-Type": "application/json"}
    )

    assert response.code == 403
