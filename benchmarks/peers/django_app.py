"""Django's cached sessions under gunicorn: `python django_app.py STORE URL PORT`. Settings: README.md."""

from __future__ import annotations

import secrets
import sys

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path
from gunicorn.app.base import BaseApplication

TEXT = "text/plain"
PAD = "x" * 270
# The default limit of 300 entries would drop sessions under load.
MEMORY = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 10_000_000}}


def configure(store: str, url: str) -> None:
    """Set Django up for *store*."""
    redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        CACHES={"default": MEMORY if store == "memory" else redis},
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_urlsafe(32),
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    django.setup()


def bare(request: HttpRequest) -> HttpResponse:
    """Respond without the session."""
    return HttpResponse("hello", TEXT)


def start(request: HttpRequest) -> HttpResponse:
    """Start a session."""
    request.session.update({"name": "somebody", "pad": PAD, "user": "somebody"})
    return HttpResponse("somebody", TEXT)


def read(request: HttpRequest) -> HttpResponse:
    """Respond with the name in the session."""
    name = request.session.get("name")
    return HttpResponse(name, TEXT) if name else anonymous()


def write(request: HttpRequest) -> HttpResponse:
    """Increment a counter in the session."""
    if "name" not in request.session:
        return anonymous()
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse("hello", TEXT)


def login(request: HttpRequest) -> HttpResponse:
    """Rotate the session ID, as `django.contrib.auth.login` does."""
    if "name" not in request.session:
        return anonymous()
    request.session.cycle_key()
    request.session["user"] = "somebody"
    return HttpResponse("hello", TEXT)


def anonymous() -> HttpResponse:
    """Refuse a request without a session."""
    return HttpResponse("anonymous", TEXT, status=401)


urlpatterns = [path(view.__name__, view) for view in (bare, start, read, write, login)]


class Gunicorn(BaseApplication):
    """One worker process with threads, so that one can run while others wait for Redis."""

    def __init__(self, port: int) -> None:
        self._port = port
        super().__init__()

    def load_config(self) -> None:
        """Set the options that differ from gunicorn's defaults."""
        for name, value in {
            "bind": f"127.0.0.1:{self._port}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": 4,
            "keepalive": 75,
            "graceful_timeout": 1,
            "loglevel": "critical",
            "control_socket_disable": True,
            "post_worker_init": lambda worker: print("ready", flush=True),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIHandler:
        """Return the application."""
        return WSGIHandler()


if __name__ == "__main__":
    configure(sys.argv[1], sys.argv[2])
    Gunicorn(int(sys.argv[3])).run()
