from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyoxigraph")

from dataset_builders.environments import load_environment
from dataset_builders.environments.knowledge_graph.endpoint import EndpointGraph
from dataset_builders.environments.knowledge_graph.facts import load_facts
from dataset_builders.environments.knowledge_graph.graph import load_graph
from dataset_builders.environments.knowledge_graph.questions import FILES, read_questions
from dataset_builders.errors import (
    ConfigError,
    DataError,
    EnvironmentFailureError,
    SourceNotFoundError,
)
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate
from tests.support.graph_samples import sparql_server, write_slice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slice(tmp_path_factory.mktemp("slice"))


def _record(folder: Path, **changes: Any) -> dict[str, Any]:
    """A question as AgentBench's files have them, about the sample graph."""
    tails = load_facts(folder).edges["m.p00"]["people.person.profession"]
    record: dict[str, Any] = {
        "question": "what does name p00 do?",
        "qid": "WebQTest-1_ab-c",
        "source": "webqsp",
        "entities": {"Name p00": "m.p00", "Job, of a person": "people.profession"},
        "actions": ["get_relations(m.p00)", "get_neighbors(m.p00,people.person.profession)"],
        "answer": [{"answer_argument": tail} for tail in tails],
    }
    return record | changes


def _write(questions: Path, **files: list[dict[str, Any]]) -> Path:
    questions.mkdir(exist_ok=True)
    for split, records in files.items():
        (questions / FILES[split]).write_text(json.dumps(records))
    return questions


def test_an_endpoint_and_the_embedded_graph_play_alike(folder: Path) -> None:
    embedded = load_environment("knowledge_graph", data=str(folder))
    tasks = embedded.task_ids("test")[:24]
    with sparql_server(load_graph(folder).store) as url:
        remote = load_environment("knowledge_graph", data=str(folder), endpoint=url)
        assert play(remote, tasks, OraclePolicy()) == play(embedded, tasks, OraclePolicy())
        assert validate(remote, num_tasks=6).ok


def test_agentbenchs_questions_are_played_on_an_endpoint(folder: Path, tmp_path: Path) -> None:
    questions = _write(tmp_path / "kg", test=[_record(folder)])
    with sparql_server(load_graph(folder).store) as url:
        spec = load_environment("knowledge_graph", questions=str(questions), endpoint=url)
        assert spec.task_ids("test") == ("knowledge_graph-test-WebQTest-1_ab-c",)
        assert validate(spec, split="test").ok
        dialogue = spec.make()
        first, info = dialogue.reset(options={"split": "test", "index": 0})
        assert first.endswith("do?\nEntities: [Name p00, Job, of a person]")
        assert (info["split"], info["kind"]) == ("test", "webqsp")
        assert "get_relations(Name p00)" in next(dialogue.oracle())


def test_agentbenchs_ontology_decides_what_is_listed(folder: Path, tmp_path: Path) -> None:
    profession = "people.person.profession"
    questions = _write(tmp_path / "kg", test=[_record(folder)])
    ontology = questions / "ontology"
    ontology.mkdir()
    vocabulary = {"relations": [profession], "attributes": ["degree.people.person.profession"]}
    (ontology / "vocab.json").write_text(json.dumps(vocabulary))
    (ontology / "fb_roles").write_text(f"people.person {profession} the.type\n")
    with sparql_server(load_graph(folder).store) as url:
        world = load_environment("knowledge_graph", questions=str(questions), endpoint=url).world()
        world.reset(options={"split": "test", "index": 0})
        assert world.step("get_relations(Name p00)")[0] == f"[{profession}]"
        made = world.step(f"get_neighbors(Name p00, {profession})")[0]
        assert made == "variable #0, which are instances of the.type"
    (ontology / "fb_roles").write_text("only two\n")
    with pytest.raises(DataError, match="line 1: found 2 words"):
        load_environment(
            "knowledge_graph", questions=str(questions), endpoint="http://127.0.0.1:9/"
        ).world().reset(options={"split": "test", "index": 0})


def test_what_dev_and_test_ask_is_no_training_question(folder: Path, tmp_path: Path) -> None:
    other = _record(folder, qid="2", question="another?")
    questions = _write(tmp_path, train=[_record(folder, qid="1"), other], dev=[_record(folder)])
    assert list(read_questions(questions, "train")) == ["2"]


def test_the_published_questions_can_be_read(shared: Path) -> None:
    questions = shared / "data/knowledgegraph"
    if not questions.is_dir():
        pytest.skip(f"no questions of AgentBench: {questions} is absent")
    sizes = [len(read_questions(questions, split)) for split in ("train", "dev", "test")]
    assert sizes == [1214 - 13, 20, 150]


def test_questions_without_an_endpoint_need_freebase(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need all of Freebase") as caught:
        load_environment("knowledge_graph", questions=str(tmp_path)).world()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qid": None}, "record 0: qid: found NoneType, expected str"),
        ({"entities": []}, "record 0: entities: found list, expected dict"),
        ({"answer": [{"name": "x"}]}, "record 0: answer: expected objects with answer_argument"),
        ({"actions": ["get_relations"]}, "record 0: actions: expected calls"),
    ],
)
def test_damaged_questions_name_record_and_field(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _write(tmp_path, test=[_record(folder, **changes)])
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path, "test")


def test_absent_questions_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"std\.json"):
        read_questions(tmp_path, "test")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (500, r"HTTP 500: Virtuoso 42000 out of memory"),
        (b"<html>", "the answer is not JSON"),
        (b'{"boolean": true}', "not of the form"),
        (0.5, "no answer within 0.1 s"),
    ],
)
def test_a_failing_endpoint_breaks_the_episode_in_one_line(
    folder: Path, answer: object, message: str
) -> None:
    with sparql_server(answer) as url:
        graph = EndpointGraph(url, timeout=0.1 if isinstance(answer, float) else 5)
        with pytest.raises(EnvironmentFailureError, match=message) as caught:
            graph.rows("SELECT ?x WHERE { ?x ?y ?z }")
        assert "\n" not in str(caught.value)
        spec = load_environment(
            "knowledge_graph", data=str(folder), endpoint=url, timeout=graph.timeout
        )
        (trajectory,) = play(spec, spec.task_ids("dev")[:1], OraclePolicy())
    # The fault is the endpoint's: the model is not told that its call was wrong.
    assert trajectory.exit_reason == "environment_error"
    assert url in trajectory.error


def test_an_endpoint_that_is_not_there(folder: Path) -> None:
    with sparql_server(b"") as url:
        pass
    with pytest.raises(EnvironmentFailureError, match="ConnectionRefusedError"):
        EndpointGraph(url).rows("SELECT ?x WHERE { ?x ?y ?z }")
    for bad, timeout in (("localhost/sparql", 1.0), ("ftp://x/", 1.0), (url, 0.0)):
        with pytest.raises(ConfigError, match="expected"):
            EndpointGraph(bad, timeout)
