"""References to environments: files, modules and entry points."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import pytest

from dataset_builders.environments import HELD_IN, load_environment, own_code
from dataset_builders.environments.class_checks import RESERVED
from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.environments.references import declared, is_reference, portable, resolve
from dataset_builders.errors import ConfigError, DataError, EnvironmentFailureError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from evaluators.tasks.held_out import HELD_OUT
from evaluators.tasks.registry import BENCHMARKS
from tests.support.own_environments import GUESS, write_guess


def test_the_names_that_are_taken_are_all_of_the_papers() -> None:
    tasks = {load_environment(name).task for name in HELD_IN}
    assert {*HELD_IN, *HELD_OUT, *tasks, *(b.name for b in BENCHMARKS)} <= RESERVED


def test_a_file_is_an_environment_that_any_process_can_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_guess(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = load_environment("./guess.py:Guess", top=40)
    assert (spec.name, spec.task, spec.place, spec.is_own) == ("guess", "guess", place, True)
    assert spec.reference == "guess.py:Guess"
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert load_environment("guess.py:Guess").place == load_environment(place).place == place
    assert spec.task_ids("train")[:2] == ("guess-train-1", "guess-train-2")
    dialogue = spec.make(isolate=True)
    try:
        turn, info = dialogue.reset(options={"task_id": "guess-train-3"})
        assert (turn, info["split"]) == ("Guess a number from 1 to 40.", "train")
        assert dialogue.step("I say 20.")[0] == "lower"
        assert dialogue.process_id is not None  # type: ignore[attr-defined]
        assert dialogue.step("3.")[1:3] == (1.0, True)
    finally:
        dialogue.close()


def test_error_output_is_capped_and_explains_a_death(tmp_path: Path) -> None:
    line = "        if int(action) == self.number:"
    noise = (
        "        import os, sys\n        print('x\\n' * 1_500_000, file=sys.stderr, flush=True)\n"
        "        if action == '13':\n            print('no luck', file=sys.stderr, flush=True)\n"
        "            os._exit(9)\n"
    )
    dialogue = load_environment(write_guess(tmp_path, line, noise + line)).make(isolate=True)
    assert isinstance(dialogue, IsolatedDialogue)
    try:
        dialogue.reset(options={"task_id": "guess-train-3"})
        for _ in range(2):
            assert dialogue.step("20.")[0] == "lower"
            child = dialogue._child
            assert child is not None
            assert os.fstat(child.noise.fileno()).st_size == 0
        with pytest.raises(EnvironmentFailureError, match="exit code 9: no luck"):
            dialogue.step("13.")
    finally:
        dialogue.close()


def test_the_class_says_where_it_runs(tmp_path: Path) -> None:
    place = write_guess(
        tmp_path, '    name = "guess"', '    name = "guess"\n    isolation = "inline"'
    )
    spec = load_environment(place)
    assert spec.isolation(spec.world()) == "inline"
    assert type(spec.make(isolate=True)).__name__ == "Guess"


def test_a_module_and_an_entry_point_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_guess(tmp_path, name="guessing_module")
    info = tmp_path / "guessing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guessing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agenttuning.environments]\nguess = guessing_module:Guess\nlost = guessing_module:No\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert declared() == {"guess": "guessing_module:Guess", "lost": "guessing_module:No"}
    assert is_reference("guess")
    assert not is_reference("guesses")
    by_module, by_name = load_environment("guessing_module:Guess"), load_environment("guess")
    assert by_module == by_name
    assert by_name.reference == "guessing_module:Guess"
    (played,) = play(by_name, ["guess-train-4"], OraclePolicy())
    assert (played.environment, played.reward, played.error) == ("guess", 1.0, "")


def test_paths_are_relative_to_a_folder_and_records_leave_it_out(tmp_path: Path) -> None:
    place = resolve("./a/b.py:C", tmp_path)
    assert place == f"{tmp_path / 'a' / 'b.py'}:C"
    assert portable(place) == "b.py:C"
    assert resolve("package.module:C", tmp_path) == "package.module:C"


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "guess_starts.py").write_text('STARTS = {"train": 5}\n')
    line = 'STARTS = {"train": 1, "dev": 11, "test": 21}'
    place = write_guess(tmp_path, line, "from guess_starts import STARTS")
    assert load_environment(place).task_ids("train")[0] == "guess-train-5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "guess"', 'name = "database"', "'database', which is taken"),
        ('name = "guess"', 'name = "hotpot_qa"', "'hotpot_qa', which is taken"),
        ('name = "guess"', 'name = "gu-ess"', "'gu-ess', expected letters"),
        ('    name = "guess"\n', "", "lacks name"),
        ("    world = World\n", "", "world: found None, expected a subclass of TextEnvironment"),
        ("    round_limit = 4\n", "", "lacks round_limit"),
        ("    def write(", "    def scribe(", "lacks write"),
        ("    def _act(", "    def act(", "lacks _act"),
        ("STARTS = {", "STARTS = {{", r"guess.py:6: '\{' was never closed"),
        ("STARTS = {", "STARTS = 1 / 0 or {", r"import raised ZeroDivisionError: .*guess.py:6"),
        ("STARTS = {", "import nosuchmodule; STARTS = {", "no module named 'nosuchmodule'"),
        ("STARTS = {", "raise SystemExit(3); STARTS = {", "import raised SystemExit: 3"),
        ("class Guess(", "class Ges(", "found no 'Guess', did you mean Ges?"),
        ("class Guess(Dialogue)", "class Guess", "found class Guess, expected a subclass of"),
        ("class Guess(Dialogue)", "class Guess(World)", "; a world: name the Dialogue class"),
        ("class Guess(Dialogue)", "Guess = 3\nclass G(Dialogue)", "found int, expected"),
    ],
)  # fmt: skip
def test_what_is_not_an_environment_is_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    place = write_guess(tmp_path, old, new)
    for _ in range(2):  # A failed import leaves nothing behind.
        with pytest.raises(ConfigError, match=message) as caught:
            load_environment(place)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./nowhere.py:Guess", "nowhere.py: no such file"),
        ("no.such.module:Guess", "no module named 'no'"),
        ("json:loads", "found function, expected a subclass of ToolEnvironment or Dialogue"),
        ("json:", "expected module:Class or ./file.py:Class"),
        (":Guess", "expected module:Class or ./file.py:Class"),
        ("guess", "'guess' is unknown; known: .*module:Class, ./file.py:Class"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_environment(reference)


def test_it_has_only_its_own_prompt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompt: found 'published', expected 'own'"):
        load_environment(write_guess(tmp_path), prompt="published", agentinstruct="x")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("['guess-train-1', 'guess-train-1']", "'guess-train-1' is there twice"),
        ("['guess-train-1', 2]", "found 2, expected text, guess-train-<rest>"),
        ("['one']", "found 'one', expected text, guess-train-<rest>"),
        ("'guess-train-1'", "found str, expected a sequence of texts"),
        ("[][0]", r"guess.py:TASK: task_ids raised IndexError: .*\(guess.py:1[0-9]\)"),
    ],
)
def test_task_ids_are_checked(tmp_path: Path, returned: str, message: str) -> None:
    line = '        return [f"guess-{split}-{STARTS[split] + n}" for n in range(6)]'
    spec = load_environment(write_guess(tmp_path, line, f"        return {returned}"))
    with pytest.raises((ConfigError, DataError), match=message.replace("TASK", "Guess")):
        spec.task_ids("train")


def test_options_are_the_arguments_of_the_world(tmp_path: Path) -> None:
    place = write_guess(tmp_path)
    with pytest.raises(ConfigError, match="option 'tops' is unknown; known: top; did you mean"):
        load_environment(place, tops=3).world()
    with pytest.raises(ConfigError, match="top: found 'x'"):
        load_environment(place, top="x").world()
    raising = write_guess(tmp_path, "self.top = top", "self.top = 1 // (top - 30)", "raises")
    with pytest.raises(ConfigError, match=r"__init__ raised ZeroDivisionError: .*\(raises.py:15\)"):
        load_environment(raising).world()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("score=1.0", 'score=float("nan")', "guess: score: found nan, expected 0 to 1"),
        ("score=1.0", "score=1.5", "guess: score: found 1.5, expected 0 to 1"),
        ("score=1.0", "score=-0.1", "guess: score: found -0.1, expected 0 to 1"),
        ("score=1.0", 'score="1"', "guess: score: found '1', expected 0 to 1"),
        ("score=1.0", "score=None", "guess: score: found None, expected 0 to 1"),
        ('StepResult("higher" if', "StepResult(3 if", "observation: found int, expected text"),
        ("ResetResult(text, text)", "ResetResult(None, text)", "observation: found NoneType"),
    ],
)
def test_a_wrong_result_is_the_environments_error(
    tmp_path: Path, old: str, new: str, error: str
) -> None:
    inline = GUESS.replace('name = "guess"', 'name = "guess"; isolation = "inline"')
    (tmp_path / "guess.py").write_text(inline.replace(old, new))
    spec = load_environment(f"{tmp_path}/guess.py:Guess")
    (played,) = play(spec, ["guess-test-23"], OraclePolicy())
    assert (played.exit_reason, played.reward) == ("environment_error", 0.0)
    assert error in played.error


@pytest.mark.parametrize(
    ("old", "what"),
    [
        ("STARTS = {", "import"),
        ("        self.top = top", "__init__"),
        ('        return [f"guess', "task_ids"),
    ],
)
def test_code_that_hangs_in_this_process_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, what: str
) -> None:
    monkeypatch.setattr(own_code, "TIME_LIMIT", 0.2)
    indent = old[: len(old) - len(old.lstrip())]
    hang = f"{indent}try:\n{indent}    import time; time.sleep(600)\n{indent}except Exception: 1\n"
    place = write_guess(tmp_path, old, hang + old)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(ConfigError, match=f"{what}: no end within 0.2 s"):
        load_environment(place).task_ids("train")
    assert signal.getsignal(signal.SIGALRM) is before


# Prompt templates


def test_a_template_in_python_or_in_yaml_beside_the_file(tmp_path: Path) -> None:
    alone = load_environment(write_guess(tmp_path)).wording()
    assert (alone.opening, dict(alone.pieces)) == ((), {})
    given = (
        "    round_limit = 4\n    prompt_template = {'opening': [{'role': 'system', 'content': "
        "'Guess.'}], 'first': 'Task: {observation}'}\n"
    )
    spec = load_environment(write_guess(tmp_path, "    round_limit = 4\n", given, "python"))
    dialogue = spec.make()
    turn, _ = dialogue.reset(options={"task_id": "guess-dev-11"})
    assert turn == "Task: Guess a number from 1 to 30."
    assert [(m.role, m.content) for m in dialogue.opening()] == [("system", "Guess.")]
    folder = tmp_path / "with_yaml"
    folder.mkdir()
    (folder / "prompt.yaml").write_text("opening: []\nfirst: 'Q: {observation}'\n")
    assert load_environment(write_guess(folder)).wording().pieces == {"first": "Q: {observation}"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{'opening': [{'role': 'robot', 'content': 'x'}]}", "role: found 'robot', expected one"),
        ("{'opening': ['x']}", "expected a list `opening`"),
        ("{'first': 3}", "found 3, expected text"),
        ("['x']", "expected a list `opening`"),
    ],
)
def test_a_template_of_another_form_is_one_line(
    tmp_path: Path, template: str, message: str
) -> None:
    text = f"    round_limit = 4\n    prompt_template = {template}\n"
    spec = load_environment(write_guess(tmp_path, "    round_limit = 4\n", text))
    with pytest.raises(ConfigError, match=message):
        spec.wording()
