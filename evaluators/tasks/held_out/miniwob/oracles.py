"""Scripts that solve some of the tasks, to show that the pages and actions work.

Each uses only what a model is shown, and only a model's actions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Any

from dataset_builders.environments.base import Oracle, OracleStep
from dataset_builders.errors import EnvironmentFailureError

Elements = list[dict[str, Any]]
Script = Callable[["Page", str], Iterator[str]]

_SUBMIT = ("Submit", "Login", "Search")


class Page:
    """The page as it is now."""

    def __init__(self, look: Callable[[], Elements]) -> None:
        self.look = look

    def numbers(self, **wanted: str) -> list[int]:
        """Return the numbers of the elements that have all of these values, in the page's order."""
        return [
            number
            for number, element in enumerate(self.look(), 1)
            if all(str(element.get(name)) == value for name, value in wanted.items())
        ]

    def click(self, **wanted: str) -> str:
        """Return the action that clicks the first such element.

        Raises:
            EnvironmentFailureError: There is none: the script does not support this page.
        """
        numbers = self.numbers(**wanted)
        if not numbers:
            raise EnvironmentFailureError(f"miniwob: no oracle: the page has no {wanted}")
        return f"click {numbers[0]}"

    def submit(self) -> str:
        """Return the action that clicks the button that ends the task."""
        buttons = [n for text in _SUBMIT for n in self.numbers(tag="button", text=text)]
        return f"click {buttons[0]}" if buttons else self.click(tag="button")


def solve(task: str, wanted: str, look: Callable[[], Elements]) -> Oracle:
    """Yield steps that solve a task.

    Args:
        task: Its name.
        wanted: Its instruction.
        look: Returns the current elements of the page.

    Raises:
        EnvironmentFailureError: No script is known for it.
    """
    script = SCRIPTS.get(task)
    if script is None:
        raise EnvironmentFailureError(f"miniwob: no oracle for {task}")
    return _moves(script(Page(look), wanted))


def _moves(actions: Iterator[str]) -> Generator[OracleStep, str, None]:
    for action in actions:
        yield OracleStep("This brings the task further.", action)


def _quoted(wanted: str) -> list[str]:
    return re.findall(r'"([^"]*)"', wanted)


def _click_button(page: Page, wanted: str) -> Iterator[str]:
    names = _quoted(wanted) or re.findall(r"button (\w+)", wanted)
    for name in names:
        yield page.click(tag="button", text=name)


def _click_first_button(page: Page, wanted: str) -> Iterator[str]:
    del wanted
    yield page.submit()


def _click_link(page: Page, wanted: str) -> Iterator[str]:
    yield page.click(tag="span", text=_quoted(wanted)[0])


def _close_dialog(page: Page, wanted: str) -> Iterator[str]:
    names = _quoted(wanted) or ["x"]
    yield page.click(tag="button", text="Close" if names[0] == "x" else names[0])


def _focus(page: Page, wanted: str) -> Iterator[str]:
    place = int((re.findall(r"(\d+)(?:st|nd|rd|th)", wanted) or ["1"])[0])
    yield f"click {page.numbers(tag='input')[place - 1]}"


def _fill(page: Page, wanted: str) -> Iterator[str]:
    texts = _quoted(wanted)
    fields = page.numbers(tag="input")
    for field, text in zip(fields, texts * len(fields), strict=False):
        yield f"click {field}"
        yield f"type {text}"
    yield page.submit()


def _pick(page: Page, wanted: str) -> Iterator[str]:
    """Select what the task names, among options, boxes and radio buttons."""
    names = re.findall(r"Select (.*?)(?: from the (?:scroll )?list)? and click", wanted)[0]
    for name in [] if names == "nothing" else names.split(", "):
        options = page.numbers(tag="option", text=name)
        # A label comes right before its box.
        yield f"click {options[0] if options else page.numbers(tag='label', text=name)[0] + 1}"
    yield page.submit()


def _date_or_time(page: Page, wanted: str) -> Iterator[str]:
    date = re.findall(r"\d+/\d+/\d+", wanted)
    hour, minute, half = (re.findall(r"(\d+):(\d+) ?([AP]M)", wanted) or [("0", "0", "")])[0]
    yield page.click(tag="input")
    yield "press arrowleft"
    yield "press arrowleft"
    yield f"type {date[0].replace('/', '') if date else f'{int(hour):02}{minute}{half}'}"
    yield page.submit()


def _algebra(page: Page, wanted: str) -> Iterator[str]:
    del wanted
    problem = page.look()[page.numbers(id="math-problem")[0] - 1]["text"]
    first, sign, second, result = re.findall(r"(\S+) ([+-]) (\S+) = (\S+)", problem)[0]
    side = 1 if sign == "+" else -1
    known = int(result)
    answer = known - side * int(second) if first == "x" else side * (known - int(first))
    yield page.click(tag="input")
    yield f"type {answer}"
    yield page.submit()


def _grid(page: Page, wanted: str) -> Iterator[str]:
    yield page.click(id=re.findall(r"\(.*?\)", wanted)[0])


def _color(page: Page, wanted: str) -> Iterator[str]:
    named = re.findall(r"the (\w+) colored", wanted)
    boxes = page.numbers(tag="div")
    # Without a name the question itself shows the colour, in its own box.
    color = named[0] if named else page.look()[boxes[0] - 1]["color"]
    yield f"click {page.numbers(tag='div', color=color)[-1]}"


def _widget(page: Page, wanted: str) -> Iterator[str]:
    kind = _quoted(wanted)[0]
    tag = {"tag": kind} if kind in ("button", "textarea") else {"tag": "input", "type": kind}
    yield page.click(**tag)


def _spinner(page: Page, wanted: str) -> Iterator[str]:
    target = int(re.findall(r"Select (-?[0-9]+)", wanted)[0])
    up, down = page.numbers(tag="a")
    for _ in range(abs(target)):
        yield f"click {up if target > 0 else down}"
    yield page.submit()


def _collapsible(page: Page, wanted: str) -> Iterator[str]:
    del wanted
    yield page.click(tag="h3")
    yield page.submit()


def _sections(heads: dict[str, str]) -> Script:
    """Open one section after the other until the link appears."""

    def script(page: Page, wanted: str) -> Iterator[str]:
        name = _quoted(wanted)[0]
        for place in range(len(page.numbers(**heads))):
            if not page.numbers(tag="span", text=name):
                yield f"click {page.numbers(**heads)[place]}"
        yield page.click(tag="span", text=name)

    return script


def _tab(page: Page, wanted: str) -> Iterator[str]:
    yield page.click(tag="a", text=re.findall(r"Tab #\d+", wanted)[0])


def _menu(page: Page, wanted: str) -> Iterator[str]:
    *parents, last = wanted.removeprefix("Select ").split(">")
    for name in parents:
        yield page.click(tag="div", text=name).replace("click", "hover")
    yield page.click(tag="div", text=last)


def _tree(page: Page, wanted: str) -> Iterator[str]:
    name, opened = _quoted(wanted)[0], set[str]()
    while not page.numbers(tag="span", text=name):
        closed = [e["text"] for e in page.look() if e.get("class") == "folder"]
        folder = next((text for text in closed if text not in opened), None)
        if folder is None:
            return
        opened.add(folder)
        yield page.click(tag="span", text=folder)
    yield page.click(tag="span", text=name)


SCRIPTS: dict[str, Script] = {
    "choose-list": _pick,
    "click-button": _click_button,
    "click-button-sequence": _click_button,
    "click-checkboxes": _pick,
    "click-checkboxes-large": _pick,
    "click-checkboxes-transfer": _pick,
    "click-collapsible": _collapsible,
    "click-collapsible-2": _sections({"tag": "h3"}),
    "click-color": _color,
    "click-dialog": _close_dialog,
    "click-dialog-2": _close_dialog,
    "click-link": _click_link,
    "click-menu": _menu,
    "click-option": _pick,
    "click-scroll-list": _pick,
    "click-tab": _tab,
    "click-tab-2": _sections({"tag": "a"}),
    "click-tab-2-hard": _sections({"tag": "a"}),
    "click-test": _click_first_button,
    "click-test-2": _click_button,
    "click-widget": _widget,
    "enter-date": _date_or_time,
    "enter-password": _fill,
    "enter-text": _fill,
    "enter-text-dynamic": _fill,
    "enter-time": _date_or_time,
    "focus-text": _focus,
    "focus-text-2": _focus,
    "grid-coordinate": _grid,
    "login-user": _fill,
    "navigate-tree": _tree,
    "simple-algebra": _algebra,
    "use-spinner": _spinner,
}
