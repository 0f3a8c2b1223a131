"""Mind2Web on pages made here, in the published schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.environments.mind2web import made_up
from dataset_builders.environments.mind2web.dialogue import Mind2WebDialogue
from dataset_builders.environments.mind2web.environment import Mind2WebEnvironment
from dataset_builders.environments.prompts import published_prompt
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate
from dataset_builders.storage import DATA_VARIABLE


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The made-up set, in a folder such as a user's."""
    made_up.write(tmp_path / "mind2web")
    return tmp_path / "mind2web"


def step_record(
    right: list[int], wrong: list[int], op: str = "CLICK", value: str = ""
) -> dict[str, Any]:
    """An annotation of one step on a page of links, in which an element's id is its number."""
    links = "".join(
        f'<a backend_node_id="{n}"><text backend_node_id="t{n}">link {n}</text></a>'
        for n in sorted(right + wrong)
    )
    return {
        "annotation_id": "note",
        "website": "site",
        "domain": "d",
        "subdomain": "s",
        "confirmed_task": "Reach the link.",
        "action_reprs": ["[link]  it -> CLICK"],
        "actions": [
            {
                "action_uid": "uid",
                "raw_html": "",
                "cleaned_html": f'<html backend_node_id="h">{links}</html>',
                "operation": {"op": op, "original_op": op, "value": value},
                "pos_candidates": [{"tag": "a", "backend_node_id": str(n)} for n in right],
                "neg_candidates": [{"tag": "a", "backend_node_id": str(n)} for n in wrong],
            }
        ],
    }


def store(
    folder: Path, record: Any, *, split: str = "test_domain", ranks: Any = "all"
) -> Mind2WebEnvironment:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}_0.json").write_text(json.dumps([record]), "utf-8")
    if ranks == "all":
        ranks = made_up.make_ranks(record)
    if ranks is not None:
        (folder / "ranks.json").write_text(json.dumps(ranks), "utf-8")
    return Mind2WebEnvironment(folder)


def begin(environment: Mind2WebEnvironment, split: str = "test") -> dict[str, Any]:
    (task,) = environment.task_ids(split)
    _, info = environment.reset(options={"task_id": task})
    return info


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_oracle_earns_1_and_an_idle_agent_0(folder: Path, split: str) -> None:
    result = validate(load_environment("mind2web", data=folder), split=split, num_tasks=100)
    assert (result.oracle, result.idle) == (1, 0), result.failures
    assert result.num_tasks == {"train": 36, "test": 12}[split]


def test_setup_makes_up_pages_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "put the Mind2Web data" in Mind2WebEnvironment.missing()
    said: list[str] = []
    Mind2WebEnvironment.setup(None, said.append)
    Mind2WebEnvironment.setup(None, said.append)
    assert "MADE-UP" in said[-1]
    assert Mind2WebEnvironment.missing() == ""
    tasks = Mind2WebEnvironment().task_ids("train")
    assert Mind2WebEnvironment().task_ids("test")
    assert [record.message.count("MADE-UP") for record in caplog.records] == [1]
    assert all("-made-up-" in task for task in tasks)
    with pytest.raises(SourceNotFoundError, match="put the Mind2Web data"):
        Mind2WebEnvironment.setup(str(tmp_path / "nothing"), said.append)


def test_the_users_data_wins_over_made_up_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mind2WebEnvironment.setup(None, lambda _: None)
    store(tmp_path / "mind2web", step_record([1], [2, 3]))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert Mind2WebEnvironment().task_ids("test") == ("mind2web-test-note_uid",)


def test_identifiers_and_order_are_the_same_on_every_machine(folder: Path, tmp_path: Path) -> None:
    made_up.write(tmp_path / "again")
    first, second = Mind2WebEnvironment(folder), Mind2WebEnvironment(tmp_path / "again")
    ids = first.task_ids("train")
    assert ids == second.task_ids("train")
    assert ids[0] == "mind2web-train-made-up-train-0_made-up-train-0-0"
    for task in ids[:6]:
        shown = [each.reset(options={"task_id": task})[1]["choices"] for each in (first, second)]
        assert shown[0] == shown[1]


def test_the_former_actions_are_the_annotated_ones(folder: Path) -> None:
    dialogue = load_environment("mind2web", data=folder).make()
    ids = dialogue.task_ids("train")
    texts = [dialogue.reset(options={"task_id": task})[0] for task in ids[:3]]
    lines = [text.partition("Previous actions:\n")[2].partition("\n\n")[0] for text in texts]
    assert lines[0] == "None"
    assert re.fullmatch(r"\[searchbox\]  Find -> TYPE: \w+", lines[1])
    assert lines[2].splitlines()[0] == lines[1]
    assert "-> SELECT: " in lines[2].splitlines()[1]


def test_a_model_sees_demonstrations_and_one_page(folder: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Page."}, {"role": "assistant", "content": "Answer: B."}]
    shown = tmp_path / "shown.json"
    shown.write_text(json.dumps([*turns, {"role": "user", "content": "slot"}]), "utf-8")
    spec = load_environment("mind2web", data=folder, demonstrations=shown)
    dialogue = spec.make()
    opening = dialogue.opening()
    assert [(m.role, m.content, m.trained) for m in opening] == [
        ("user", "Page.", False),
        ("assistant", "Answer: B.", False),
    ]
    (played,) = play(spec, spec.task_ids("train")[:1], OraclePolicy())
    assert played.num_rounds > 1
    assert played.messages[:2] == opening
    dialogue.reset(options={"task_id": played.task_id})
    assert dialogue.trim(played.messages[:-1]) == (*opening, played.messages[-2])
    assert played.prompt != load_environment("mind2web", data=folder).make().prompt.label


@pytest.mark.parametrize(
    ("content", "error", "expected"),
    [
        ("{", DataError, "shown.json: demonstrations: "),
        ('{"role": "user"}', DataError, "expected a list"),
        ('[{"role": "clown", "content": ""}]', DataError, "message 0: role: found 'clown'"),
        (None, SourceNotFoundError, "demonstrations: No such file"),
    ],
)
def test_bad_demonstrations(
    folder: Path, tmp_path: Path, content: str | None, error: type[Exception], expected: str
) -> None:
    if content is not None:
        (tmp_path / "shown.json").write_text(content)
    spec = load_environment("mind2web", data=folder, demonstrations=tmp_path / "shown.json")
    with pytest.raises(error, match=expected):
        spec.make()


def test_published_words_are_the_rows_own(shared: Path) -> None:
    """Every real row comes back byte for byte from its parts."""
    copy = shared / "data/agentinstruct"
    prompt = published_prompt("mind2web", str(copy), Mind2WebDialogue.published_pieces)
    assert prompt.opening == ()
    assert prompt.pieces["first"] == prompt.pieces["feedback"]
    lines = (copy / "mind2web.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 14
    for row in rows:
        text = row["conversations"][0]["value"]
        parts = re.fullmatch(
            r"'''\n(.*)\n'''\n\nBased .*\nTask: (.*)\nPrevious actions:\n(.*)\nWhat should .*?"
            r"\n\nA\. None of the above\n(.*)",
            text,
            re.DOTALL,
        )
        assert parts
        page, task, previous, choices = parts.groups()
        worded = prompt.fill("first", choices=choices, previous=previous, task=task, page=page)
        assert worded == text


def test_text_that_looks_like_a_slot_stays(tmp_path: Path) -> None:
    record = step_record([1], [2])
    record["confirmed_task"] = "Find {choices} and {page}."
    page = record["actions"][0]["cleaned_html"]
    record["actions"][0]["cleaned_html"] = page.replace("link 1", "{task} {previous}")
    dialogue = load_environment("mind2web", data=store(tmp_path / "d", record).data).make()
    text, info = dialogue.reset(options={"split": "test", "index": 0})
    assert "Task: Find {choices} and {page}." in text
    assert info["page"] in text
    assert text.count("{task} {previous}") == 2


@pytest.mark.parametrize("task", ["mind2web-test-x", "mind2web-all-x", "database-test-x", "x"])
def test_unknown_tasks(folder: Path, task: str) -> None:
    with pytest.raises(ConfigError, match="is unknown"):
        Mind2WebEnvironment(folder).reset(options={"task_id": task})


def test_unknown_splits(folder: Path) -> None:
    with pytest.raises(ConfigError, match="known: train, dev, test, test_task, test_website"):
        Mind2WebEnvironment(folder).task_ids("validation")
    with pytest.raises(SourceNotFoundError, match="no steps of split dev"):
        Mind2WebEnvironment(folder).task_ids("dev")


def _no_operation(record: dict[str, Any]) -> None:
    del record["actions"][0]["operation"]


def _number_for_id(record: dict[str, Any]) -> None:
    record["actions"][0]["neg_candidates"][0]["backend_node_id"] = 7


def _odd_words(record: dict[str, Any]) -> None:
    record["action_reprs"].append("more")


def _no_task(record: dict[str, Any]) -> None:
    record["confirmed_task"] = None


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_no_operation, r"actions\[0\]: operation: found none"),
        (_number_for_id, r"neg_candidates\[0\]: backend_node_id: found int, expected text"),
        (_odd_words, "action_reprs: found 2, expected 1"),
        (_no_task, "confirmed_task: found nothing, expected text"),
    ],
)
def test_a_bad_record_is_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], expected: str
) -> None:
    record = step_record([1], [2])
    ranks = made_up.make_ranks(record)
    spoil(record)
    with pytest.raises(DataError, match=rf"test_domain_0\.json: item 1: .*{expected}") as error:
        store(tmp_path / "d", record, ranks=ranks).task_ids("test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<html><a></html>", "cleaned_html: not a well-formed page: mismatched tag"),
        ('<html backend_node_id="h"/>', "cleaned_html: backend_node_id: candidate '1' is not on"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "it declares a document type"),
    ],
)
def test_a_bad_page_is_one_line(tmp_path: Path, page: str, expected: str) -> None:
    record = step_record([1], [2])
    record["actions"][0]["cleaned_html"] = page
    with pytest.raises(DataError, match=expected):
        begin(store(tmp_path / "d", record))


def test_a_damaged_file_is_one_line(folder: Path) -> None:
    path = next(folder.rglob("train_0.json"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"train_0\.json: .*cut short or damaged"):
        Mind2WebEnvironment(folder).task_ids("train")
