"""`Client.submit_form`: a form is filled in and sent as a browser does it."""

from __future__ import annotations

import pytest
from tornado.web import RequestHandler

from stormcellar.testing import Client, make_manager
from tests.testing.shop import PASSWORD, make_app


@pytest.mark.gen_test
async def test_login_by_the_form_of_the_application(client: Client) -> None:
    """A sign-in by the application's own form is one for the client as well; a wrong password is none."""
    await client.post("/cart", {"item": "tea"})

    wrong = await client.submit_form("/login", {"name": "alice", "password": "guess"})
    nobody = await client.user()
    right = await client.submit_form("/login", {"name": "alice", "password": PASSWORD}, follow_redirects=True)

    assert (wrong.code, nobody) == (401, None)
    assert right.json() == {"user": "alice", "data": {"cart": ["tea"]}}
    assert await client.user() == "alice"


@pytest.mark.gen_test
async def test_form_without_a_token_in_the_template() -> None:
    """A page that forgot its token is found by `submit_form`."""

    class Forgetful(RequestHandler):
        def get(self) -> None:
            self.write('<form method="post" action="/cart"><input name="item"></form>')

    app = make_app(make_manager())
    app.add_handlers(".*", [("/forgetful", Forgetful)])
    async with Client(app) as client:
        assert (await client.submit_form("/forgetful", {"item": "tea"})).code == 403
        assert (await client.post("/cart", {"item": "tea"})).code == 303


@pytest.mark.gen_test
async def test_form_that_is_not_on_the_page(client: Client) -> None:
    """The error lists the forms that there are."""
    with pytest.raises(ValueError, match=r"the fields colour, name; there are: q; _xsrf, name, password$"):
        await client.submit_form("/login", {"name": "alice", "colour": "red"})
    with pytest.raises(ValueError, match=r"there is no form$"):
        await client.submit_form("/", {"name": "alice"})


FORM_PAGE = """<title>x</title><form action=found?old=1 method=GET>
<input name=hidden type=hidden value=1><input name=q value=default><input type=submit name=go value=Go>
<input type=checkbox name=on checked><input type=checkbox name=off><input name=dead disabled value=1>
<input type=radio name=size value=s><input type=radio name=size value=m checked><input type=file name=photo>
<textarea name=text>
a&amp;b
</textarea><select name=pick><option value=1><option value=2 selected></select>
<select name=first><option value=x><option value=y></select><button name=act value=1>Go</button></form>
"""


@pytest.mark.gen_test
async def test_form_is_filled_in_as_by_a_browser() -> None:
    """What nobody changes keeps its value; buttons and what is not ticked are not sent."""

    class Page(RequestHandler):
        def get(self) -> None:
            self.write(FORM_PAGE)

    class Found(RequestHandler):
        def get(self) -> None:
            self.write({name: self.get_arguments(name, strip=False) for name in self.request.arguments})

    app = make_app(make_manager())
    app.add_handlers(".*", [("/deep/page", Page), ("/deep/found", Found)])
    async with Client(app) as client:
        response = await client.submit_form("/deep/page", {"q": "tea"})

    assert response.json() == {
        **{"hidden": ["1"], "q": ["tea"], "on": ["on"], "size": ["m"], "text": ["a&b\n"], "pick": ["2"]},
        "first": ["x"],
    }


@pytest.mark.gen_test
async def test_form_of_another_site() -> None:
    """A form that leads to another site is not sent."""

    class Page(RequestHandler):
        def get(self) -> None:
            self.write('<form method="post" action="https://pay.example/"><input name="sum"></form>')

    app = make_app(make_manager())
    app.add_handlers(".*", [("/pay", Page)])
    async with Client(app) as client:
        with pytest.raises(ValueError, match="the form leads to another site"):
            await client.submit_form("/pay", {"sum": "1"})
