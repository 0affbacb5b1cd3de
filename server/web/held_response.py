"""`HeldResponse`: a finished response, held back while its session is saved."""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from tornado.concurrent import future_set_result_unless_cancelled
from tornado.httputil import HTTPHeaders
from tornado.log import app_log, gen_log

from stormcellar.sessions.json_values import NotJSON
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta
from stormcellar.web.session_handler import HandlerState, SessionHandler
from stormcellar.web.session_headers import settle_cookies


class HeldResponse:
    """Status, headers, cookies and body of a finished response.

    The handler gets new ones, because its later changes must have no effect, as on a stock handler. Tornado
    must regard it as finished, or it would run the handler after a redirect in `prepare`.
    """

    def __init__(self, handler: SessionHandler) -> None:
        settle_cookies(handler)
        self._status = handler._status_code, handler._reason
        self._headers = handler._headers
        self._body = handler._write_buffer
        handler._headers = HTTPHeaders()
        handler._write_buffer = []
        handler._finished = True
        _detach(handler)

    def restore(self, handler: SessionHandler) -> None:
        """Undo what the handler did after finish(), so that the response can be sent."""
        handler._finished = False
        handler.__dict__.pop("_new_cookie", None)
        handler._status_code, handler._reason = self._status
        handler._headers = self._headers
        handler._write_buffer = self._body


def _detach(handler: SessionHandler) -> None:
    """Stop Tornado from calling this handler again while the save is pending.

    Clear the close callback, and replace `data_received` and the HTTP method with no-ops.
    """
    request: Any = handler.request
    request.connection.set_close_callback(None)
    for name in ("data_received", request.method.lower()):
        setattr(handler, name, _ignore)


def _ignore(*args: object, **kwargs: object) -> None:
    """Replaces a method of a finished handler."""


def delta_to_save(handler: SessionHandler, state: SessionState) -> Delta | None:
    """Return what a response with the present status saves: nothing with a 5xx."""
    if handler._status_code >= 500:
        state.drop_data()
    elif state.sealed:
        _drop_late_changes(state)
    else:
        try:
            return state.data.pending()
        except NotJSON:
            state.drop_data()  # or the error page would fail for the same reason
            raise
    return None


def _drop_late_changes(state: SessionState) -> None:
    with suppress(NotJSON):
        if state.data.pending() is None:
            return
    gen_log.error("session %s changed too late to be saved: %s", state.handle, state.sealed)
    state.drop_data()


def send_when_saved(
    handler: SessionHandler,
    held: HandlerState,
    saving: Coroutine[Any, Any, None],
    send: Callable[[], Future[None]],
) -> Future[None]:
    """Hold the response, await *saving* in a task, then *send* it; an error of *saving* is sent instead.

    Returns:
        A future that resolves when the response was sent, or could not be.
    """
    response = HeldResponse(handler)
    assert held.state is not None
    held.state.seal("the response is finished")
    held.answered = answered = Future[None]()
    held.sessions.spawn(_save_then_send(handler, held, saving, response, send))
    return answered


async def _save_then_send(
    handler: SessionHandler,
    held: HandlerState,
    saving: Coroutine[Any, Any, None],
    response: HeldResponse,
    send: Callable[[], Future[None]],
) -> None:
    answered, state = held.answered, held.state
    assert answered is not None and state is not None
    try:
        await saving
    except (Exception, CancelledError) as error:  # the client gets an answer to every error
        held.answered = None
        response.restore(handler)
        state.drop_data()
        _send_exception(handler, error)
    else:
        held.answered = None
        response.restore(handler)
        try:
            # Not awaited: a client that reads slowly must not delay a shutdown.
            sent = send()
        except Exception as error:  # as Tornado does when finish() raises in the handler
            _send_exception(handler, error)
        else:
            sent.add_done_callback(lambda _: future_set_result_unless_cancelled(answered, None))
            return
    future_set_result_unless_cancelled(answered, None)


def _send_exception(handler: SessionHandler, error: BaseException) -> None:
    try:
        handler._handle_request_exception(error)
    except Exception:
        app_log.error("Exception in exception handler", exc_info=True)
