"""A real browser: headless Chromium with Selenium, and the actions of our tests."""

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

# The sandbox does not work as root; the other switches prevent network traffic of the browser itself.
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
    """Skip the test if *what* is not installed; fail it in CI."""
    if not found:
        _missing(what)


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed; see .ci/run"
    if os.environ.get("CI") == "true":
        pytest.fail(f"required in CI: {reason}")
    pytest.skip(reason)


class Chromium:
    """One browser for one site, with a new profile; a context manager.

    It accepts any certificate, because the CA is one of the tests. *switches* are further ones of Chromium.
    """

    def __init__(self, profile: Path, base: str, *switches: str) -> None:
        binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
        require(binary, "chromium")
        require(driver, "chromedriver")
        options = ChromeOptions()
        options.binary_location = str(binary)
        options.accept_insecure_certs = True
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for switch in (*SWITCHES, *switches, f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        service = ChromeService(str(driver), log_output=subprocess.DEVNULL)
        self.driver = Chrome(options, service)
        self.base = base
        self.resize(WIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.driver.quit()

    # --- actions of a person ---

    def open(self, path: str) -> None:
        """Open a path of the site."""
        self.driver.get(self.base + path)

    def fill_in(self, **fields: str) -> None:
        """Fill in the fields with these names."""
        for name, text in fields.items():
            field = self.find(f'[name="{name}"]:not([type=hidden])')
            field.clear()
            field.send_keys(text)

    def press(self, label: str) -> None:
        """Click the first button or link labelled *label*, and wait for the next page."""
        self.leave(self.find_labelled(label).click)

    def leave(self, go: Callable[[], Any]) -> None:
        """Call *go*, which must open another page, and wait for the page."""
        here = self.find("html")
        go()
        self.wait(lambda: _is_gone(here))

    def sign_in(self, user: str, password: str) -> None:
        """Open, fill in and send the sign-in form."""
        self.open("/login")
        self.fill_in(username=user, password=password)
        self.press("Sign in")

    def resize(self, width: int) -> None:
        """Set the width of the page in CSS pixels."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Set the preferred colour scheme, `light` or `dark`."""
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def block(self, *patterns: str) -> None:
        """From now on load no URL that matches one of *patterns*, and any other."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": patterns})

    # --- what the page shows ---

    def find(self, selector: str) -> WebElement:
        """Return the first element that matches a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_labelled(self, label: str) -> WebElement:
        """Return the first button or link labelled *label*."""
        return self.driver.find_element(
            By.XPATH, f'//*[self::a or self::button][normalize-space()="{label}"]'
        )

    @property
    def path(self) -> str:
        """The URL of the page without the base URL."""
        return self.driver.current_url.removeprefix(self.base)

    @property
    def heading(self) -> str:
        """The h1 heading of the page."""
        return self.find("h1").text

    @property
    def text(self) -> str:
        """The text of the page."""
        return self.find("body").text

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds."""
        WebDriverWait(self.driver, WAIT_S, poll_frequency=0.02).until(lambda _: condition())

    # --- inspection ---

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; the CSP does not apply to the driver."""
        return self.driver.execute_script(code, *arguments)

    def cookies(self) -> dict[str, dict[str, Any]]:
        """Return every cookie of the browser, including HttpOnly cookies."""
        found = self.driver.execute_cdp_cmd("Storage.getCookies", {})["cookies"]
        return {cookie["name"]: cookie for cookie in found}

    def forget(self) -> None:
        """Delete every cookie and the console messages so far."""
        self.driver.execute_cdp_cmd("Storage.clearCookies", {})
        self.driver.get_log("browser")

    def complaints(self) -> list[str]:
        """Return the console messages about CSP violations since the last call."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if "Content Security Policy" in message]

    def audit(self) -> list[str]:
        """Return the violations that axe-core finds on the page, one line each."""
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
    except Exception:  # the driver raises different types
        return True
    return False
