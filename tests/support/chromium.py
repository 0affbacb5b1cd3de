"""A real browser: headless Chromium, driven by Selenium, with what our tests do in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_S = 20
AXE = Path(__file__).parents[2] / "var/node/node_modules/axe-core/axe.min.js"
WIDE, NARROW = 1000, 320

# As root there is no sandbox; the rest keeps it from calling home.
SWITCHES = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "force-device-scale-factor=1",
)


def require(found: object, what: str) -> None:
    """Skip the test where *what* is not installed; in CI it must be."""
    if not found:
        _missing(what)


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed; .ci/run says how"
    if os.environ.get("CI") == "true":
        pytest.fail(f"must run in CI: {reason}")
    pytest.skip(reason)


class Chromium:
    """One browser on one site, with a fresh profile: a context manager.

    It takes any certificate, since its CA is one of the tests.
    """

    def __init__(self, profile: Path, base: str) -> None:
        binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
        require(binary, "chromium")
        require(driver, "chromedriver")
        options = ChromeOptions()
        options.binary_location = str(binary)
        options.accept_insecure_certs = True
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for switch in (*SWITCHES, f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        service = ChromeService(str(driver), log_output=subprocess.DEVNULL)
        self.driver = Chrome(options, service)
        self.base = base
        self.resize(WIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.driver.quit()

    # --- what a person does ---

    def open(self, path: str) -> None:
        """Type an address of the site."""
        self.driver.get(self.base + path)

    def fill_in(self, **fields: str) -> None:
        """Type into the fields with these names."""
        for name, text in fields.items():
            field = self.find(f'[name="{name}"]:not([type=hidden])')
            field.clear()
            field.send_keys(text)

    def press(self, label: str) -> None:
        """Press the first button or link that reads *label*, and wait for the page it leads to."""
        self.leave(self.find_labelled(label).click)

    def leave(self, go: Callable[[], Any]) -> None:
        """Do what leads to another page, and wait for that."""
        here = self.find("html")
        go()
        self.wait(lambda: _is_gone(here))

    def sign_in(self, user: str, password: str) -> None:
        """Open the form, fill it in, send it."""
        self.open("/login")
        self.fill_in(username=user, password=password)
        self.press("Sign in")

    def resize(self, width: int) -> None:
        """Make the page this many CSS pixels wide."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Prefer a `light` or `dark` page."""
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    # --- what a person sees ---

    def find(self, selector: str) -> WebElement:
        """Return the first element for a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_labelled(self, label: str) -> WebElement:
        """Return the first button or link that reads *label*."""
        return self.driver.find_element(
            By.XPATH, f'//*[self::a or self::button][normalize-space()="{label}"]'
        )

    @property
    def path(self) -> str:
        """Where the browser is, without the site."""
        return self.driver.current_url.removeprefix(self.base)

    @property
    def heading(self) -> str:
        """The headline of the page."""
        return self.find("h1").text

    @property
    def text(self) -> str:
        """What there is to read."""
        return self.find("body").text

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds."""
        WebDriverWait(self.driver, WAIT_S, poll_frequency=0.02).until(lambda _: condition())

    # --- what an auditor sees ---

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, which the driver may do whatever the CSP says."""
        return self.driver.execute_script(code, *arguments)

    def cookies(self) -> dict[str, dict[str, Any]]:
        """Return every cookie the browser holds, also those no script may read."""
        found = self.driver.execute_cdp_cmd("Storage.getCookies", {})["cookies"]
        return {cookie["name"]: cookie for cookie in found}

    def forget(self) -> None:
        """Drop every cookie, and what the console told so far."""
        self.driver.execute_cdp_cmd("Storage.clearCookies", {})
        self.driver.get_log("browser")

    def complaints(self) -> list[str]:
        """Return what the console told since it was asked last about violations of the CSP."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if "Content Security Policy" in message]

    def audit(self) -> list[str]:
        """Return what axe-core finds wrong with the page, one line each."""
        require(AXE.exists(), "axe-core")
        self.script(AXE.read_text())
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.script("return document.documentElement.scrollWidth > window.innerWidth"))


def _is_gone(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except Exception:  # whichever way the driver says so
        return True
    return False
