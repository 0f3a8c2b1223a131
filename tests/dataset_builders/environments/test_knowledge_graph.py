from __future__ import annotations

import lzma
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pyoxigraph")

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.knowledge_graph.facts import load_facts
from dataset_builders.environments.knowledge_graph.sampling import KINDS, sample_questions
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from tests.support.graph_samples import write_rows, write_slice

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slice(tmp_path_factory.mktemp("slice"))


@pytest.fixture(scope="module")
def spec(folder: Path) -> EnvironmentSpec:
    return load_environment("knowledge_graph", data=str(folder))


@pytest.mark.parametrize("split", SPLITS)
def test_oracle_earns_1_and_idling_nothing(spec: EnvironmentSpec, split: str) -> None:
    found = validate(spec, split=split, num_tasks=60)
    assert found.ok, found.failures
    assert found.num_tasks == 60


def test_no_program_and_no_topic_occurs_in_two_splits(folder: Path) -> None:
    facts = load_facts(folder)
    by_split = [sample_questions(facts, split) for split in SPLITS]
    for parts in (
        [{question.calls for question in questions} for questions in by_split],
        [{topic for q in questions for topic in q.entities.values()} for questions in by_split],
    ):
        assert sum(map(len, parts)) == len(set().union(*parts))
    for questions in by_split:
        assert {question.kind for question in questions} == set(KINDS)
        assert len({question.calls for question in questions}) == len(questions)


def test_questions_are_the_same_in_every_process(folder: Path) -> None:
    facts = load_facts(folder)
    first, again = (sample_questions(facts, "train", 50) for _ in range(2))
    assert first == again
    assert first == sample_questions(facts, "train", 200)[:50]


def test_every_question_names_its_topics_and_its_calls_use_them(folder: Path) -> None:
    for question in sample_questions(load_facts(folder), "train", 200):
        assert question.answers
        assert all(name in question.text for name in question.entities)
        assert sum("get_relations(Name" in call for call in question.calls) == len(
            question.entities
        )


def test_questions_do_not_use_words_that_two_relations_share(tmp_path: Path) -> None:
    heads = [f"/m/a{i}" for i in range(60)]
    relations = ("/film/film/genre", "/tv/program/genre", "/film/film/country")
    write_rows(tmp_path / "labels.tsv.xz", [(head, f"The {head[3:]}") for head in heads])
    write_rows(
        tmp_path / "triples.tsv.xz",
        [(head, relation, f"/m/z{i}") for i, head in enumerate(heads) for relation in relations],
    )
    questions = sample_questions(load_facts(tmp_path), "train")
    assert questions
    assert not any("genre" in call for question in questions for call in question.calls)


def test_a_slice_without_numbers_to_rank_yields_the_other_kinds(tmp_path: Path) -> None:
    heads = [f"/m/a{i}" for i in range(120)]
    triples = [(head, "/a/b/c", f"/m/z{i % 3}") for i, head in enumerate(heads)]
    write_rows(tmp_path / "triples.tsv.xz", triples)
    write_rows(tmp_path / "labels.tsv.xz", [(head, f"The {head[3:]}") for head in heads])
    kinds = Counter(q.kind for q in sample_questions(load_facts(tmp_path), "train"))
    assert set(kinds) == {"one_hop"}


def test_partial_answers_earn_f1(spec: EnvironmentSpec, folder: Path) -> None:
    index = KINDS.index("argmax")
    question = sample_questions(load_facts(folder), "train", index + 1)[index]
    environment = spec.world()
    environment.reset(options={"split": "train", "index": index})
    for call in question.calls:
        environment.step(call)
    # Variable 0 is the whole set of which argmax took one member.
    (topic,), relation = question.entities.values(), question.calls[1][:-1].split(", ")[1]
    members = load_facts(folder).edges[topic][relation]
    _, score, over, _, info = environment.step("Final Answer: #0")
    assert over
    assert info["exit_reason"] == "answered"
    assert score == pytest.approx(2 / (len(members) + 1))
    assert not info["success"]


def test_rounds_end_an_episode_that_never_answers(spec: EnvironmentSpec) -> None:
    tasks = spec.task_ids("dev")[:1]
    (trajectory,) = play(spec, tasks, ScriptedPolicy(["I think."]))
    assert (trajectory.exit_reason, trajectory.num_rounds) == ("round_limit", 15)
    assert trajectory.valid_rounds == 0


def test_unknown_tasks_and_splits_are_refused(spec: EnvironmentSpec) -> None:
    environment = spec.world()
    with pytest.raises(ConfigError, match="known: train, dev, test"):
        environment.task_ids("std")
    for task_id in ("knowledge_graph-train-9999", "knowledge_graph-train-", "os-train-0000"):
        with pytest.raises(ConfigError, match="is unknown"):
            environment.reset(options={"task_id": task_id})


def test_absent_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"triples\.tsv\.xz.*put a slice") as caught:
        load_environment("knowledge_graph", data=str(tmp_path)).task_ids("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("/m/a", "/a/b/c", "/m/b"), ("/m/a", "/a/b/c")], "line 2: found 2 fields, expected 3"),
        ([("/m/a", "", "/m/b")], "line 1: found 3 fields"),
    ],
)
def test_damaged_triples_name_their_line(
    tmp_path: Path, rows: list[tuple[str, ...]], message: str
) -> None:
    write_rows(tmp_path / "triples.tsv.xz", rows)
    write_rows(tmp_path / "labels.tsv.xz", [("/m/a", "A")])
    with pytest.raises(DataError, match=message):
        load_facts(tmp_path)


def test_a_file_that_is_not_compressed_is_told(tmp_path: Path) -> None:
    (tmp_path / "triples.tsv.xz").write_text("plain")
    write_rows(tmp_path / "labels.tsv.xz", [("/m/a", "A")])
    with pytest.raises(DataError, match="compressed with xz"):
        load_facts(tmp_path)


def test_changed_data_is_read_again(tmp_path: Path) -> None:
    write_slice(tmp_path)
    before = load_facts(tmp_path)
    assert load_facts(tmp_path) is before
    write_rows(tmp_path / "labels.tsv.xz", [("/m/f00", "Another")])
    assert load_facts(tmp_path).labels == {"m.f00": "Another"}


def test_200_training_tasks_on_the_real_slice(shared: Path) -> None:
    data = shared / "data/freebase_slice"
    if not data.is_dir():
        pytest.skip(f"no slice of Freebase: {data} is absent")
    spec = load_environment("knowledge_graph", data=str(data))
    assert [len(spec.task_ids(split)) for split in SPLITS] == [2500, 100, 150]
    found = validate(spec, num_tasks=200)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})
    programs = [
        {question.calls for question in sample_questions(load_facts(data), split)}
        for split in SPLITS
    ]
    assert sum(map(len, programs)) == len(set().union(*programs)) == 2750


def test_a_slice_too_small_to_ask_about_is_one_error(tmp_path: Path) -> None:
    folder = write_slice(tmp_path)
    path = next(folder.glob("triples.tsv*"))
    path.write_bytes(lzma.compress(b"") if path.suffix == ".xz" else b"")
    with pytest.raises(DataError, match=r"triples\.tsv.*"):
        load_environment("knowledge_graph", data=str(folder)).task_ids("train")


def test_a_made_up_observation_is_not_kept(tmp_path: Path) -> None:
    spec = load_environment("knowledge_graph", data=str(write_slice(tmp_path)))
    turns = ["Observation: [a.b]", "Action: count(#0)\nObservation: 7"]
    (trajectory,) = play(spec, spec.task_ids("train")[:1], ScriptedPolicy(turns))
    said = [message.content for message in trajectory.messages if message.trained]
    assert said[:2] == ["", "Action: count(#0)\n"]
