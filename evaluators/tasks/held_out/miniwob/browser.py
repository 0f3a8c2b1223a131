"""Headless Chromium with MiniWoB++'s pages, which plays one task at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataset_builders.errors import EnvironmentFailureError, MissingExtraError, SourceNotFoundError
from evaluators.tasks.held_out.miniwob.actions import Command

_BINARY, _DRIVER = "MINIWOB_CHROME_BINARY", "MINIWOB_CHROMEDRIVER"
_NO_EXTRA = "miniwob needs miniwob: pip install 'agenttuning-plugin[miniwob]'"
_HINT = "apt-get install chromium chromium-driver"
_NEVER_MS = 86_400_000
_SETTLE_SECONDS = 0.05
_SETTLE_HOVER_SECONDS = 0.4
"""Menus wait 0.3 s before they open under the mouse."""

_POINTING = ("hover", "movemouse")
_KEYS = {
    "enter": "ENTER",
    "space": "SPACE",
    "tab": "TAB",
    "backspace": "BACKSPACE",
    "arrowleft": "ARROW_LEFT",
    "arrowright": "ARROW_RIGHT",
    "arrowup": "ARROW_UP",
    "arrowdown": "ARROW_DOWN",
}


def programs() -> tuple[str | None, str | None]:
    """Return Chromium and its driver: from the `miniwob` package's settings, or the path."""
    browser = os.environ.get(_BINARY) or shutil.which("chromium") or shutil.which("google-chrome")
    return browser, os.environ.get(_DRIVER) or shutil.which("chromedriver")


def missing() -> str:
    """Return why the browser cannot run here, with the remedy; "" if it can."""
    if find_spec("miniwob") is None:
        return _NO_EXTRA
    names = zip(("chromium", "chromedriver"), programs(), strict=True)
    lacking = [name for name, path in names if path is None or not Path(path).exists()]
    return (
        f"miniwob needs a browser, found no {' and no '.join(lacking)}: {_HINT}" if lacking else ""
    )


def check() -> None:
    """Check that the browser can run here.

    Raises:
        MissingExtraError: `miniwob` is not installed.
        SourceNotFoundError: There is no Chromium, or no driver.
    """
    if lacking := missing():
        raise (MissingExtraError if lacking == _NO_EXTRA else SourceNotFoundError)(lacking)


class Browser:
    """A running browser; it ends with `close`, with this object and with the process.

    Pages get an episode limit of one day, so that neither slow models nor batching change a score,
    and animations are disabled.

    Raises:
        MissingExtraError: `miniwob` is not installed.
        SourceNotFoundError: There is no Chromium, or no driver.
        EnvironmentFailureError: It does not start.
    """

    def __init__(self) -> None:
        check()
        from miniwob.environment import MiniWoBEnvironment

        folder = tempfile.mkdtemp(prefix="agenttuning-miniwob-")
        self.close = weakref.finalize(self, _stop, None, folder)
        with _failures(), _told_programs(folder):
            # The package's own parsing of a task's text would fail on other pages.
            self._env: Any = MiniWoBEnvironment("click-test", field_extractor=lambda _: [])
        self.close.detach()
        self.close = weakref.finalize(self, _stop, self._env, folder)
        self._env.set_record_screenshots(False)
        self._driver: Any = self._env.instance.driver
        # The package waits 5 s for pages that load; ours are loaded, so a missing element stays
        # missing.
        self._driver.implicitly_wait(0)
        self._script = resources.files(__package__).joinpath("page.js").read_text("utf-8")

    def begin(self, task: str, seed: int) -> str:
        """Start an episode; return its instruction.

        Raises:
            EnvironmentFailureError: The browser fails, or is gone; true of all methods.
        """
        with _failures():
            address = self._env.instance.url.rsplit("/", 1)[0]
            self._driver.get(f"{address}/{task}.html")
            self._driver.execute_script(
                f"core.EPISODE_MAX_TIME = {_NEVER_MS}; if (window.jQuery) jQuery.fx.off = true;"
            )
            observation, _ = self._env.reset(seed=seed)
            return " ".join(str(observation["utterance"]).split())

    def elements(self) -> list[dict[str, Any]]:
        """Return the visible elements; an element's number is its position, from 1."""
        with _failures():
            found: list[dict[str, Any]] = self._driver.execute_script(self._script)
            return found

    def html(self) -> str:
        """Return the page's HTML: the task's box, and dialogs and lists that overlay it."""
        with _failures():
            return str(
                self._driver.execute_script(
                    "const out = ['reward-display', 'click-canvas', 'sync-task-cover'];"
                    "return Array.from(document.body.children)"
                    ".filter((e) => !out.includes(e.id) && e.tagName !== 'SCRIPT')"
                    ".map((e) => e.outerHTML).join('\\n');"
                )
            )

    def result(self) -> tuple[bool, float]:
        """Return whether the episode is over, and its reward in [-1, 1], 0 before."""
        with _failures():
            metadata = self._env.instance.get_metadata()
            return bool(metadata["done"]), float(metadata["env_reward"])

    def perform(self, command: Command) -> str:
        """Execute an action; return what was wrong with it in one line, or ""."""
        from selenium.common.exceptions import (
            InvalidSessionIdException,
            NoSuchWindowException,
            UnexpectedAlertPresentException,
            WebDriverException,
        )

        with _failures():
            try:
                problem = self._perform(command)
            except (InvalidSessionIdException, NoSuchWindowException):
                raise
            except UnexpectedAlertPresentException:
                with suppress(WebDriverException):
                    self._driver.switch_to.alert.dismiss()
                problem = "a message box opened and was closed"
            except WebDriverException as error:
                if "disconnected" in str(error) or "crash" in str(error):
                    raise
                problem = f"{type(error).__name__}: {str(error.msg).splitlines()[0][:200]}"
            pointing = command.kind in _POINTING
            time.sleep(_SETTLE_HOVER_SECONDS if pointing else _SETTLE_SECONDS)
            return problem

    def _perform(self, command: Command) -> str:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        kind, argument = command.kind, command.argument
        chain = ActionChains(self._driver, duration=0)
        if kind == "type":
            chain.send_keys(argument).perform()
            return ""
        if kind == "press":
            chain.send_keys(getattr(Keys, _KEYS[argument])).perform()
            return ""
        elements = self._named(kind, argument)
        if not elements:
            return f"there is no element {argument[:100]}"
        if kind in _POINTING:
            chain.move_to_element(elements[0]).perform()
            return ""
        if kind == "clickoption" and elements[0].tag_name != "option":
            return "it is not an option of a list"
        return self._click_one(elements)

    def _named(self, kind: str, argument: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        if kind in ("click", "hover"):
            script = "return (window.wobElements || [])[arguments[0] - 1] || null;"
            element = self._driver.execute_script(script, int(argument))
            return [] if element is None else [element]
        by = By.ID if kind == "clickid" else By.XPATH
        return list(self._driver.find_elements(by, argument))

    def _click_one(self, elements: list[Any]) -> str:
        """Click the first that can be; by the key "enter" where something lies over it."""
        from selenium.common.exceptions import (
            ElementClickInterceptedException,
            ElementNotInteractableException,
        )
        from selenium.webdriver.common.keys import Keys

        for element in elements:
            try:
                element.click()
            except ElementClickInterceptedException:
                element.send_keys(Keys.ENTER)
            except ElementNotInteractableException:
                continue
            return ""
        return "it cannot be clicked"


@contextmanager
def _told_programs(folder: str) -> Iterator[None]:
    """Configure which programs the `miniwob` package starts, without side effects on this process.

    The browser is started by a script, so that it ends with the driver: the driver puts it into its
    own process group, which killing ours does not reach.
    """
    browser, driver = programs()
    start = Path(folder) / "browser"
    ends = "setpriv --pdeathsig KILL " if shutil.which("setpriv") else ""
    start.write_text(f'#!/bin/sh\nexec {ends}"{browser}" "$@"\n', "utf-8")
    start.chmod(0o700)
    before = {name: os.environ.get(name) for name in (_BINARY, _DRIVER)}
    os.environ.update({_BINARY: str(start), _DRIVER: str(driver)})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _failures() -> Iterator[None]:
    from selenium.common.exceptions import WebDriverException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (WebDriverException, HTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise EnvironmentFailureError(
            f"miniwob: the browser failed: {type(error).__name__}: {first}"
        ) from None


def _stop(env: Any, folder: str) -> None:
    """End the browser; it may be dead, or stuck."""
    if env is not None:
        process = env.instance.driver.service.process
        with suppress(Exception):  # it is killed anyway
            env.instance.driver.quit()
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
