"""Environments of other packages: Gymnasium's, reasoning-gym's, textarena's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.adapters.seeded import FIRST_SEED
from dataset_builders.errors import ConfigError, EnvironmentFailureError, MissingExtraError
from dataset_builders.rollouts.validation import validate

DOOR = '''
import gymnasium
from gymnasium import spaces

class Door(gymnasium.Env):
    """A door with a code that the sign beside it states; three attempts."""

    observation_space = spaces.Text(100)
    action_space = spaces.Text(20)

    def __init__(self, digits=2, reward=1.0):
        self.digits, self.reward = digits, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        low = 10 ** (self.digits - 1)
        self.code = str(self.np_random.integers(low, 10 * low))
        return f"The sign says {self.code}.", {}

    def step(self, action):
        opened = action == self.code
        return "Open." if opened else "Shut.", self.reward * opened, opened, False, {}

    def oracle(self):
        yield "1"
        yield self.code

class Numbers(gymnasium.Env):
    observation_space = spaces.Discrete(2)
    action_space = spaces.Text(20)

if "test/Door-v0" not in gymnasium.registry:
    gymnasium.register("test/Door-v0", entry_point=Door, max_episode_steps=3)
'''


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "door_of_test.py").write_text(DOOR)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "door_of_test.py"


@pytest.mark.parametrize("reference", ["gym:door_of_test:test/Door-v0", "FILE:Door"])
def test_a_gymnasium_environment(door: Path, reference: str) -> None:
    spec = load_environment(reference.replace("FILE", str(door)), size=20)
    assert (spec.name, len(spec.task_ids("test"))) == (
        ("Door" if "FILE" in reference else "gym_door_of_test_test_Door_v0"),
        20,
    )
    found = validate(spec, num_tasks=1)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})


def test_episodes_of_a_gymnasium_environment(door: Path) -> None:
    spec = load_environment(f"{door}:Door", arguments={"digits": 3}, highest=2.0)
    dialogue = spec.make()
    first, _ = dialogue.reset(options={"task_id": "Door-dev-1"})
    assert first.startswith("End each of your turns with one action")
    code = first.split()[-1].rstrip(".")
    assert len(code) == 3
    again, _ = dialogue.reset(options={"task_id": "Door-dev-1"})
    assert again == first
    assert dialogue.reset(options={"task_id": "Door-test-1"})[0] != first
    dialogue.reset(options={"task_id": "Door-dev-1"})
    # Not in the action space, so not executed.
    turn, _, over, _, info = dialogue.step(f"Action: {'x' * 30}")
    assert turn.startswith("Not a valid action: expected Text(")
    assert (over, info["valid_format"]) == (False, False)
    *_, info = dialogue.step("Action: 1. No: wait\nAction: 1")
    assert info["valid_format"]
    _, reward, over, _, info = dialogue.step(f"It is on the sign.\nAction: {code}")
    assert (reward, over, info["exit_reason"]) == (0.5, True, "finished")


def test_the_step_limit_of_a_registered_environment(door: Path) -> None:
    spec = load_environment("gym:door_of_test:test/Door-v0")
    assert spec.round_limit == 3
    dialogue = spec.make()
    dialogue.reset(options={"split": "train", "index": 0})
    ends = [dialogue.step("Action: no")[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (True, False)]


def test_a_score_out_of_range_is_an_error_of_the_environment(door: Path) -> None:
    spec = load_environment(f"{door}:Door", arguments={"reward": 3})
    found = validate(spec, num_tasks=1)
    (failure,) = found.failures.values()
    assert "Door: score: found 3.0, expected 0 to 1" in failure


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("gym:NoSuch-v0", {}, "gym:NoSuch-v0: .*NoSuch"),
        ("gym:no_such_module:X-v0", {}, "no module named 'no_such_module'"),
        ("FILE:Numbers", {}, "Numbers: observation space: found Discrete.2., expected Text"),
        ("FILE:Door", {"size": 0}, "Door: size: found 0, expected 1 to 1,000,000"),
        ("FILE:Door", {"arguments": {"digit": 1}}, "making it raised TypeError"),
        ("FILE:Door", {"lowest": 2.0}, "lowest: found 2.0, expected less than 1.0"),
    ],
)
def test_bad_gymnasium_environments(
    door: Path, reference: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_environment(reference.replace("FILE", str(door)), **options).make().reset()


@pytest.mark.parametrize("task", ["Door-train-100", "Door-all-1", "Door-train-x", "other-dev-1"])
def test_tasks_that_are_not_there(door: Path, task: str) -> None:
    dialogue = load_environment(f"{door}:Door").make()
    with pytest.raises(ConfigError, match="Door: task"):
        dialogue.reset(options={"task_id": task})


@pytest.mark.parametrize("package", ["reasoning_gym", "textarena", "verifiers"])
def test_without_the_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    extra = package.replace("_", "-")
    with pytest.raises(MissingExtraError, match=rf"agenttuning-plugin\[{extra}\]"):
        load_environment(f"{package}:anything_at_all")


def reasoning(task: str, **options: object) -> EnvironmentSpec:
    pytest.importorskip("reasoning_gym", reason="extra reasoning-gym is not installed")
    return load_environment(f"reasoning_gym:{task}", **options)


def test_tasks_of_reasoning_gym() -> None:
    spec = reasoning("leg_counting", size=10, config={"min_animals": 2, "max_animals": 2})
    from reasoning_gym import create_dataset

    found = validate(spec, num_tasks=1)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})
    dialogue = spec.make()
    question, _ = dialogue.reset(options={"task_id": "reasoning_gym_leg_counting-test-3"})
    given = create_dataset(
        "leg_counting", seed=FIRST_SEED["test"], size=10, min_animals=2, max_animals=2
    )[3]
    assert question.startswith(given["question"])
    turn = f"<answer>1</answer> No.\n<answer> {given['answer']} </answer>"
    assert dialogue.step(turn)[1:3] == (1.0, True)
    dialogue.reset(options={"task_id": "reasoning_gym_leg_counting-test-3"})
    _, reward, over, _, info = dialogue.step("It has no marks.")
    assert (reward, over, info["exit_reason"]) == (0.0, True, "bad_format")


def test_an_answer_that_a_scorer_cannot_parse_is_wrong() -> None:
    dialogue = reasoning("prime_factorization").make()
    dialogue.reset(options={"split": "dev", "index": 0})
    _, reward, over, _, info = dialogue.step("<answer>x</answer>")
    assert (reward, over, info["valid_format"]) == (0.0, True, False)
    assert info["scorer"].startswith("ValueError")


def test_what_reasoning_gym_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"reasoning_gym:leg_count: no such dataset.*leg_co"):
        reasoning("leg_count")
    spec = reasoning("leg_counting", config={"legs": 2})
    with pytest.raises(ConfigError, match=r"create_dataset.*raised TypeError"):
        spec.make().reset()


PLAYERS = '''
LOW, HIGH, LAST = 1, 20, 0

def guess(shown):
    """Plays GuessTheNumber by bisection."""
    global LOW, HIGH, LAST
    if "between" in shown:
        LOW, HIGH = 1, 20
    elif "higher" in shown:
        LOW = LAST + 1
    elif "lower" in shown:
        HIGH = LAST - 1
    LAST = (LOW + HIGH) // 2
    return f"[{LAST}]"
'''


def arena(game: str, **options: object) -> EnvironmentSpec:
    pytest.importorskip("textarena", reason="extra textarena is not installed")
    return load_environment(f"textarena:{game}", **options)


def test_a_game_for_one_player(tmp_path: Path) -> None:
    (tmp_path / "players.py").write_text(PLAYERS)
    spec = arena("GuessTheNumber-v0", oracle=f"{tmp_path}/players.py:guess")
    found = validate(spec, num_tasks=1)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})


def test_a_negotiation_with_a_scripted_opponent() -> None:
    spec = arena("SimpleNegotiation-v0-short", opponent="[Accept]")
    dialogue = spec.make(isolate=True)
    try:
        first, _ = dialogue.reset(options={"split": "train", "index": 1})
        assert "You are Player 0 in the Negotiation Game" in first
        second, _, over, _, _ = dialogue.step("[Offer: 1 Wheat -> 2 Ore]")
        assert not over
        assert "Player 1 accepted the trade offer" in second
        assert "[Offer: 1 Wheat" not in second  # the model's own turn is not repeated
        reward = 0.0
        for _ in range(20):
            _, reward, over, _, info = dialogue.step("[Deny]")
            if over:
                break
        assert (over, reward, info["exit_reason"]) == (True, 1.0, "finished")
    finally:
        dialogue.close()


def test_games_that_cannot_be_played() -> None:
    with pytest.raises(ConfigError, match="textarena:GuessTheNumbr-v0: no such game"):
        arena("GuessTheNumbr-v0")
    dialogue = arena("SimpleNegotiation-v0").make()
    with pytest.raises(ConfigError, match=r"not a game for 1 .*its option opponent"):
        dialogue.reset()


TASKSET = '''
import verifiers.v1 as vf

class Data(vf.TaskData):
    answer: str

class Config(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()

class Stock(vf.Toolset[vf.ToolsetConfig]):
    TOOL_PREFIX = "shop"

    @vf.tool
    def stock(self, article: str) -> str:
        """Return how many pieces of an article are in stock."""
        if article != "A-17":
            raise ValueError("no such article")
        return "4"

class ShopTask(vf.Task[Data, vf.State, Config]):
    @classmethod
    def toolsets(cls, config):
        return [Stock(config.tools)] if WITH_TOOLS else []

    @vf.reward(weight=1.0)
    async def correct(self, trace):
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=0.0)
    async def asked(self, trace):
        return float(len(trace.tool_messages))

class ContainerTask(ShopTask):
    NEEDS_CONTAINER = True

    @vf.reward
    async def in_the_box(self, runtime):
        return 1.0

class ShopConfig(vf.TasksetConfig):
    container: bool = False

class Shop(vf.Taskset[ShopTask, ShopConfig]):
    def load(self):
        kind = ContainerTask if self.config.container else ShopTask
        for number in range(20):
            yield kind(Data(prompt=f"{number}: how many of A-17?", answer="4", system_prompt="s"))

__all__ = ["Shop"]
'''


def taskset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tools: bool, **options: object
) -> EnvironmentSpec:
    pytest.importorskip("verifiers.v1", reason="extra verifiers is not installed")
    name = f"shop_{tools}".lower()
    (folder / f"{name}.py").write_text(TASKSET.replace("WITH_TOOLS", str(tools)))
    monkeypatch.syspath_prepend(folder)
    return load_environment(f"verifiers:{name}", **options)


def test_a_taskset_of_verifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = taskset(tmp_path, monkeypatch, tools=True)
    assert [len(spec.task_ids(split)) for split in ("train", "dev", "test")] == [16, 2, 2]
    dialogue = spec.make()
    first, _ = dialogue.reset(options={"task_id": "verifiers_shop_true-test-19"})
    assert first == "19: how many of A-17?"
    assert [(m.role, m.content) for m in dialogue.opening()] == [("system", "s")]
    assert json.loads(dialogue.tools())[0]["function"]["name"] == "shop_stock"
    world = dialogue.env
    wrong = json.dumps({"name": "shop_stock", "arguments": {"article": "B"}})
    assert "no such article" in world.step(wrong)[0]
    right = json.dumps({"name": "shop_stock", "arguments": {"article": "A-17"}})
    assert world.step(right)[0] == "4"
    _, reward, over, _, info = world.step(json.dumps({"text": "There are 4."}))
    assert (reward, over, info["exit_reason"]) == (1.0, True, "answered")


def test_a_taskset_without_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = taskset(tmp_path, monkeypatch, tools=False, size=10)
    dialogue = spec.make()
    dialogue.reset(options={"split": "dev", "index": 0})
    assert dialogue.tools() == ""
    assert dialogue.env.step(json.dumps({"text": "It is 5."}))[1:3] == (0.0, True)


def test_a_task_that_needs_the_runtime_of_verifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = taskset(tmp_path, monkeypatch, tools=True, config={"container": True})
    with pytest.raises(EnvironmentFailureError, match="a container, its reward in_the_box"):
        spec.make().reset()
    with pytest.raises(ConfigError, match=r"verifiers:no_such: looking it up|no_such"):
        load_environment("verifiers:no_such")
