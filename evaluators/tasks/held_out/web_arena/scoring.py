"""WebArena's scores of answers and URLs, by its rules.

Scores of page contents need the page, and are computed by BrowserGym.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

from dataset_builders.errors import EnvironmentFailureError
from evaluators.tasks.held_out.web_arena.tasks import Task

Same = Callable[[str, str, str], bool]
"""Whether an answer means the same as the right one, for an intent: (answer, right, intent)."""

NOT_ACHIEVABLE = "N/A"

_TOKEN = re.compile(r"\w+(?:[.,:/'-]\w+)*|\S")


def clean(answer: str) -> str:
    """Normalise an answer: no outer blanks and quotes, lower case."""
    answer = answer.strip()
    for quote in ("'", '"'):
        if len(answer) > 1 and answer.startswith(quote) and answer.endswith(quote):
            answer = answer[1:-1]
            break
    return answer.lower()


def string_score(task: Task, answer: str, same: Same | None) -> float:
    """Score a `string_match` task: 1 if every comparison holds, else 0.

    `exact_match` compares cleaned answers. `must_include` requires every phrase in the answer; a
    single phrase of one character must be a separate word. `fuzzy_match` calls a judge. An
    impossible task requires "N/A", or the right reason according to the judge.

    Args:
        task: The task.
        answer: The model's.
        same: The judge; None for none.

    Raises:
        EnvironmentFailureError: Only a judge could tell, and there is none.
    """
    cleaned = clean(answer)
    return float(all(_holds(task, how, cleaned, same) for how in task.answers))


def _holds(task: Task, how: str, answer: str, same: Same | None) -> bool:
    right = task.answers[how]
    if how == "exact_match":
        return answer == clean(right)
    if how == "must_include":
        alone = len(right) == 1 and len(clean(right[0])) == 1
        among = _TOKEN.findall(answer) if alone else answer
        return all(clean(phrase) in among for phrase in right)
    if right == NOT_ACHIEVABLE:
        if answer == clean(NOT_ACHIEVABLE):
            return True
        return same is not None and bool(answer) and same(answer, task.note, task.intent)
    if not answer:
        return False
    if same is None:
        raise EnvironmentFailureError(
            f"web_arena: task {task.number}: needs a judge (judge: base_url, model, api_key_env)"
        )
    return all(same(answer, reference, task.intent) for reference in right)


def url_score(task: Task, url: str, sites: Mapping[str, str]) -> float:
    """Score a `url_match` task: whether the last page is one of the right ones.

    The right host and path have to be in the page's, and each parameter of the right
    addresses has to have one of its values there.

    Args:
        task: The task.
        url: URL of the last page.
        sites: URL by name, such as "__GITLAB__".
    """
    right = task.url
    for name, address in sites.items():
        right = right.replace(name, address.rstrip("/"))
    here, asked = _parsed(url)
    wanted: dict[str, set[str]] = {}
    places = []
    for each in right.split(" |OR| "):
        place, parameters = _parsed(each)
        places.append(place)
        for name, values in parameters.items():
            wanted.setdefault(name, set()).update(values)
    if not any(place in here for place in places):
        return 0.0
    return float(all(values & set(asked.get(name, ())) for name, values in wanted.items()))


def _parsed(url: str) -> tuple[str, dict[str, list[str]]]:
    parts = urlsplit(url.strip().rstrip("/"))
    return (parts.netloc + parts.path).rstrip("/"), parse_qs(parts.query)
