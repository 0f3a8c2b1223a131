from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyoxigraph")

from dataset_builders.environments import load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.knowledge_graph.dialogue import GraphDialogue
from dataset_builders.environments.knowledge_graph.environment import f1
from dataset_builders.environments.knowledge_graph.facts import Facts, load_facts
from dataset_builders.environments.knowledge_graph.graph import EmbeddedGraph, load_graph
from dataset_builders.environments.knowledge_graph.ontology import GraphOntology
from dataset_builders.environments.knowledge_graph.tools import Toolbox
from dataset_builders.environments.knowledge_graph.variables import (
    Both,
    Entity,
    Extreme,
    Neighbors,
    Number,
    Program,
    Variable,
)
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import ScriptedPolicy
from tests.support.graph_samples import write_slice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slice(tmp_path_factory.mktemp("slice"))


@pytest.fixture(scope="module")
def facts(folder: Path) -> Facts:
    return load_facts(folder)


@pytest.fixture(scope="module")
def graph(folder: Path) -> EmbeddedGraph:
    return load_graph(folder)


@pytest.fixture
def tools(graph: EmbeddedGraph) -> Toolbox:
    return Toolbox(graph, GraphOntology(), {"Ann": "m.p00", "Bob": "m.p01", "A film": "m.f00"})


def topics(program: Program) -> set[str]:
    match program:
        case Entity(identifier):
            return {identifier}
        case Both(first, second):
            return topics(first) | topics(second)
        case Neighbors(source) | Extreme(source) | Number(source):
            return topics(source)


def walk(facts: Facts, program: Program) -> set[str]:
    """The members by looking edges up, without SPARQL."""
    match program:
        case Entity(identifier):
            return {identifier}
        case Neighbors(source, relation):
            reached = walk(facts, source)
            return {
                tail for head in reached for tail in facts.edges.get(head, {}).get(relation, ())
            }
        case Both(first, second):
            return walk(facts, first) & walk(facts, second)
        case Extreme(source, attribute, largest):
            values = facts.degrees[attribute]
            bearers = {each for each in walk(facts, source) if each in values}
            ranked = [values[each] for each in bearers - topics(source)]
            best = (max if largest else min)(ranked, default=None)
            return {each for each in bearers if values[each] == best}
        case Number(source):
            return {str(len(walk(facts, source) - topics(source)))}


@st.composite
def programs(draw: Any, facts: Facts) -> Program:
    relations, heads = sorted(facts.ranges), sorted(facts.edges)
    sets = st.recursive(
        st.builds(Neighbors, st.builds(Entity, st.sampled_from(heads)), st.sampled_from(relations)),
        lambda inner: st.one_of(
            st.builds(Neighbors, inner, st.sampled_from(relations)),
            st.builds(Both, inner, inner),
            st.builds(Extreme, inner, st.sampled_from(sorted(facts.degrees)), st.booleans()),
        ),
        max_leaves=4,
    )
    program: Program = draw(sets)
    return Number(program) if draw(st.booleans()) and draw(st.booleans()) else program


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_sparql_finds_what_walking_the_edges_finds(
    data: st.DataObject, facts: Facts, graph: EmbeddedGraph
) -> None:
    program = data.draw(programs(facts))
    found = Toolbox(graph, GraphOntology(), {}).members(Variable("t", program))
    expected = walk(facts, program)
    assert found == (expected if isinstance(program, Number) else expected - topics(program))


def test_the_tools_by_agentbenchs_rules(tools: Toolbox, facts: Facts) -> None:
    relations = sorted(facts.edges["m.p00"])
    assert tools.call("get_relations(Ann)").text == f"[{', '.join(relations)}]"
    profession = "people.person.profession"
    for number, name in enumerate(("Ann", "m.p01")):
        tools.call(f"get_relations({name})")
        reply = tools.call(f"get_neighbors({name}, {profession})")
        assert reply.text == f"variable #{number}, which are instances of people.profession"
    shared = tools.call("intersection(variable #0, #1)")
    assert shared.text == "variable #2, which are instances of people.profession"
    assert tools.call("count(#2)").text == "variable #3, which is a number"
    expected = set(facts.edges["m.p00"][profession]) & set(facts.edges["m.p01"][profession])
    assert tools.members(tools.variables[2]) == expected
    assert tools.members(tools.variables[3]) == {str(len(expected))}


def test_attributes_rank_a_set(tools: Toolbox, facts: Facts) -> None:
    film = "film.actor.film..film.performance.film"
    tools.call("get_relations(Ann)")
    tools.call(f"get_neighbors(Ann, {film})")
    genres = "degree.film.film.genre"
    assert genres in tools.call("get_attributes(#0)").text
    assert genres not in tools.call("get_relations(#0)").text
    for tool, best in (("argmax", max), ("argmin", min)):
        text = tools.call(f"{tool}(#0, {genres})").text
        assert text.endswith("instances of film.film")
        values = {each: facts.degrees[genres][each] for each in facts.edges["m.p00"][film]}
        members = tools.members(tools.variables[-1])
        assert members == {each for each in values if values[each] == best(values.values())}


@pytest.mark.parametrize(
    ("line", "problem", "call"),
    [
        ("get_neighbors(Ann, people.person.nationality)", "bad_arguments", None),  # not listed
        ("get_relations(Nobody)", "bad_arguments", None),
        ("get_relations(#0)", "bad_arguments", None),
        ("get_relations(Ann, Bob)", "bad_arguments", None),
        ("get_attributes(Ann)", "bad_arguments", None),
        ("argmax(#0, height)", "bad_arguments", None),
        ("count(Ann)", "bad_arguments", None),
        ("intersection(Ann, Bob)", "types_differ", None),
        ("get_relations(Ann", "syntax", "get_relations"),
        ("get_relations()", "syntax", "get_relations"),
        ("union(#0, #1)", "syntax", "union"),
        ("__import__('os')", "syntax", "__import__"),
        ("nothing at all", "no_call", ""),
        ("get_relations(m.0> ?y . ?a ?b <x)", "bad_arguments", None),
    ],
)
def test_calls_that_make_no_sense(
    tools: Toolbox, line: str, problem: str, call: str | None
) -> None:
    reply = tools.call(line)
    assert (reply.text, reply.problem) == ("", problem)
    assert reply.call == (line if call is None else call)
    assert tools.variables == []


def test_one_call_of_a_line_is_executed(tools: Toolbox) -> None:
    relations = tools.call("get_relations(Ann)").text
    assert tools.call("guess(Ann) or get_relations(Ann), get_relations(Bob)").text == relations


@pytest.mark.parametrize("line", ["get_relations(" * 1_500, "a" * 150_000])
def test_a_line_is_read_in_time_that_grows_with_its_length(tools: Toolbox, line: str) -> None:
    # Both took minutes: models that repeat themselves and Gymnasium's checker send such lines.
    started = time.process_time()
    assert tools.call(line).problem in ("syntax", "no_call")
    assert time.process_time() - started < 2


def test_the_last_failure_of_a_line_is_told(tools: Toolbox) -> None:
    reply = tools.call("count(Ann) nothing(Ann) count(Bob)")
    assert (reply.problem, reply.call) == ("bad_arguments", "count(Ann)")
    assert tools.call("count() x) count(#0)").call == "count() x)"


def test_sets_of_different_types_and_numbers_do_not_mix(tools: Toolbox) -> None:
    tools.call("get_relations(Ann)")
    tools.call("get_neighbors(Ann, people.person.profession)")
    tools.call("get_neighbors(Ann, people.person.nationality)")
    assert tools.call("intersection(#0, #1)").problem == "types_differ"
    tools.call("count(#0)")
    assert tools.call("get_relations(#2)").problem == "bad_arguments"
    assert tools.call("intersection(#2, #2)").problem == "types_differ"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.from_regex(r"(get_relations|count|intersection|argmax)\([#a-z0-9., ]*\)?"),
        ),
        max_size=6,
    )
)
def test_no_line_breaks_the_tools(graph: EmbeddedGraph, lines: list[str]) -> None:
    tools = Toolbox(graph, GraphOntology(), {"a": "m.p00"})
    for line in lines:
        reply = tools.call(line)
        assert bool(reply.text) != bool(reply.problem)


def _dialogue(folder: Path) -> GraphDialogue:
    dialogue = load_environment("knowledge_graph", data=str(folder)).make()
    assert isinstance(dialogue, GraphDialogue)
    return dialogue


@pytest.mark.parametrize(
    ("turn", "action"),
    [
        ("Thought: x\nAction: get_relations(Ann)", "get_relations(Ann)"),
        ("Action 2: count(#0)\nAction: count(#1)", "count(#0)"),
        ("  Action: count(#0)", None),  # a line has to begin with it
        ("Thought: done\nFinal Answer: #3", "Final Answer: #3"),
        ("Find Answer: #1 Final Answer: #2", "Final Answer: #1"),
        ("Action: count(#0)\nFinal Answer: #1", "Final Answer: #1"),
        ("Final Answer: 3", None),
        ("Action: get\\_relations(Ann)", "get_relations(Ann)"),
        ("Action: count(#0)\nObservation: variable #1\nFinal Answer: #1", "count(#0)"),
        ("Action(get_relations(Ann)): go", "Action(get_relations(Ann)): go"),
        ("Action:", ":"),
        ("", None),
    ],
)
def test_turns_are_read_as_agentbench_reads_them(
    folder: Path, turn: str, action: str | None
) -> None:
    assert _dialogue(folder).parse(turn) == action


@given(st.sampled_from(["count(#0)", "get_relations(Ann)", "Final Answer: #12"]), st.text())
def test_what_is_written_can_be_read(folder: Path, action: str, thought: str) -> None:
    thought = thought.replace("Observation:", "").replace("Action", "").replace("Answer", "")
    thought = " ".join(thought.split()).replace("\\_", "")
    dialogue = _dialogue(folder)
    assert dialogue.parse(dialogue.write(OracleStep(thought, action))) == action


def test_made_up_observations_are_not_kept(folder: Path) -> None:
    spec = load_environment("knowledge_graph", data=str(folder))
    said = "Action: get\\_relations(x)\nObservation: [a.b.c]"
    (trajectory,) = play(spec, spec.task_ids("dev")[:1], ScriptedPolicy([said]))
    kept = {turn.content for turn in trajectory.messages if turn.trained}
    assert kept == {"Action: get_relations(x)\n"}


def test_every_problem_has_words_of_its_own(folder: Path) -> None:
    dialogue = _dialogue(folder)
    dialogue.reset(options={"split": "dev", "index": 0})
    turns = (
        "Action: count(Ann)",
        "Action: intersection(#0, #1)",
        "Action: count(",
        "Action: look around",
        "I wonder.",
        "Final Answer: #7",
        "Final Answer: #" + "9" * 6000,
    )
    answers = [dialogue.step(turn) for turn in turns]
    assert all(not over and not info["valid_format"] for _, _, over, _, info in answers)
    texts = [text for text, *_ in answers]
    assert len(set(texts)) == len(turns) - 1
    assert "count(Ann)" in texts[0]


def test_published_words_are_those_of_the_rows(shared: Path, folder: Path) -> None:
    rows = shared / "data/agentinstruct"
    if not rows.is_dir():
        pytest.skip(f"no rows of AgentInstruct: {rows} is absent")
    prompt = load_environment(
        "knowledge_graph", data=str(folder), prompt="published", agentinstruct=str(rows)
    ).wording()
    assert len(prompt.opening) == 18  # instruction, acknowledgement, demonstration of 8 steps
    assert prompt.pieces["first"] == "A new question: {observation}"
    assert prompt.pieces["feedback"] == "Observation: {observation}"
    assert "may make a mistake" in prompt.fill("bad_arguments", call="count(x)")
    assert "same type" in prompt.pieces["types_differ"]


@given(st.frozensets(st.integers(0, 9).map(str)), st.frozensets(st.integers(0, 9).map(str)))
def test_f1(found: frozenset[str], expected: frozenset[str]) -> None:
    score = f1(found, expected)
    assert 0 <= score <= 1
    assert (score == 1) == (bool(found) and found == expected)
    assert (score == 0) == found.isdisjoint(expected)
    if score:
        shared = len(found & expected)
        precision, recall = shared / len(found), shared / len(expected)
        assert score == pytest.approx(2 * precision * recall / (precision + recall))
