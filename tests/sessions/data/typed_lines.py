"""A program for type checkers, which nobody runs."""

RIGHT = """
import json
from typing import Any, TypedDict, assert_type

import tornado.web

from stormcellar import Key, Lifetime, Session, SessionManager, SessionMixin
from stormcellar import reauthenticated, session_settings
from stormcellar.stores import open_store


class Item(TypedDict):
    name: str
    price: int


CART = Key[list[Item]]("cart")
VISITS = Key[int]("visits")
NICK: Key[str | None] = Key("nick")


class Shop(SessionMixin, tornado.web.RequestHandler):
    async def get(self) -> None:
        assert_type(self.session, Session)
        assert_type(self.session[CART], list[Item])
        assert_type(self.session.get(CART), list[Item] | None)
        assert_type(self.session.get(CART, []), list[Item])
        assert_type(self.session.get(VISITS, "never"), int | str)
        assert_type(self.session.pop(NICK), str | None)
        assert_type(self.session.pop(VISITS, None), int | None)
        self.session[VISITS] = self.session.get(VISITS, 0) + 1
        self.session.setdefault(CART, []).append({"name": "tea", "price": 3})
        assert_type(await self.session.modify(VISITS, lambda n: (n or 0) + 1), int)
        if CART in self.session and "visits" in self.session:
            del self.session[CART]
        for key in self.session:
            print(key == VISITS, json.dumps(dict(self.session)))
        await self.session.login("alice", keep={CART, VISITS, "other"})

    @reauthenticated(within=300)
    async def post(self) -> None:
        assert_type(self.session["other"], Any)
        self.session["other"] = self.session.get("other", 0) + 1
        self.session |= {"other": [1]}
        self.session.update(other=None)
        assert_type(await self.session.modify("other", lambda n: (n or 0) + 1), Any)
        await self.session.login("alice", keep={"other"})


manager = SessionManager(open_store("memory"), secrets=["k" * 32], lifetime=Lifetime(idle_s=900))
app = tornado.web.Application([("/", Shop)], **session_settings(manager))
"""

WRONG = """
REFUSED = Key[set[str]]("tags")  # error


async def wrong(session: Session) -> None:
    session[CART] = 5  # error
    session[VISITS] = "one"  # error
    session[7] = 1  # error
    del session[7]  # error
    session[CART].add({"name": "tea", "price": 3})  # error
    session[CART].append({"name": "tea"})  # error
    session[CART][0]["prize"]  # error
    session.get(VISITS) + 1  # error
    session.setdefault(CART, 5)  # error
    session.pop(CART).lower()  # error
    await session.modify(VISITS, lambda n: "one")  # error
    await session.modify(VISITS, lambda n: n + 1)  # error
    await session.login(42)  # error
    session.login("alice")  # error
    session.visits  # error
"""
