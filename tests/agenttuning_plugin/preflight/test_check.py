"""`agenttuning check` on recipes that would train something else, or nothing, or fail late."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agenttuning_plugin.cli import main as cli
from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.preflight.check import check
from dataset_builders.errors import ConfigError

pytestmark = pytest.mark.usefixtures("axolotl_process")

Check = Callable[..., list[Finding]]


def talk(question: str, answer: str, **keys: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **keys}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    """A recipe in which nothing is wrong."""
    acts = [talk(f"task {i}", f"Thought: look.\nAction: step {i}", task="os") for i in range(6)]
    chats = [talk(f"question {i}", f"It is {i}.") for i in range(12)]
    return {
        "base_model": str(tiny_model_dir),
        "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
        "agenttuning": {
            "eta": 0.2,
            "agent": write(tmp_path / "agent.jsonl", acts),
            "general": write(tmp_path / "chat.jsonl", chats),
            "holdout": 4,
        },
        "sequence_len": 256,
        "max_steps": 4,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "output_dir": str(tmp_path / "out"),
        "bf16": False,
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


@pytest.fixture
def run_check(recipe: dict[str, Any], place: Path) -> Check:
    """Checks that recipe with changes to its section and its other keys."""

    def run(section: dict[str, Any] | None = None, **keys: Any) -> list[Finding]:
        changed = {**recipe, **keys, "agenttuning": {**recipe["agenttuning"], **(section or {})}}
        place.write_text(yaml.safe_dump(changed), "utf-8")
        return check(place)

    return run


def details(found: list[Finding], level: str) -> list[str]:
    return [finding.detail for finding in found if finding.level == level]


def test_nothing_wrong_is_found_in_a_sound_recipe(run_check: Check) -> None:
    found = run_check()
    assert not [finding for finding in found if finding.level != "ok"]
    rows = {finding.what: finding.detail for finding in found}
    assert "6" in rows["agent rows"]
    assert "12" in rows["general rows"]


def test_a_sweep_is_checked_as_the_recipe_that_is_varied(run_check: Check) -> None:
    found = run_check(sweep={"set": {"agenttuning.eta": [0, 0.5]}})
    assert not [finding for finding in found if finding.level != "ok"]
    (line,) = [finding.detail for finding in found if finding.what == "sweep"]
    assert line.startswith("varies agenttuning.eta; ")
    (wrong,) = details(run_check(sweep={"sets": {}}), "error")
    assert wrong == "sweep.sets: unknown key, did you mean set?"


LATE = [{"from_step": 2, "eta": 0.3}, {"from_step": 4, "eta": 0.5}]


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ({"holdout": 12}, {}, "holdout: found 12, expected at most 11"),
        ({"agent_holdout": 6}, {}, "agent_holdout: found 6, expected fewer than the different"),
        (
            {"task_weights": {"os": 1, "db": 1}},
            {},
            "agenttuning.task_weights.db: no row has this label; the data has os",
        ),
        ({"eta_stages": LATE}, {}, "eta_stages.1.from_step: found 4, expected less than max_steps"),
        ({}, {"sequence_len": 40}, "agent: no trainable row is left"),
        (
            {"evaluators": [{"type": "agent_task", "num_tasks": 999999}]},
            {},
            "num_tasks: found 999999",
        ),
        (
            {"evaluators": [{"type": "benchmark", "name": "webshop", "data": "/nowhere"}]},
            {},
            "webshop: no items_shuffle_1000.json",
        ),
        (
            {"evaluators": [{"type": "replay", "data": "no/such.jsonl"}]},
            {},
            "no/such.jsonl",
        ),
        ({}, {"metric_for_best_model": "eval_accuracy"}, "eval_accuracy, which is not logged"),
        (
            {"holdout": 0},
            {"metric_for_best_model": "loss"},
            "metric_for_best_model: found loss, which is not logged",
        ),
        (
            {"evaluators": [{"type": "general_loss"}]},
            {"metric_for_best_model": "eval_agenttuning_best_score"},
            "eval_agenttuning_best_score, which is not logged",
        ),
        ({}, {"gradient_acumulation_steps": 8}, "did you mean gradient_accumulation_steps?"),
        ({}, {"remark": "mine"}, "remark: unknown key, which Axolotl would drop"),
        ({"etta": 0.1}, {}, "agenttuning.etta: unknown key, did you mean eta?"),
        (
            {"evaluators": [{"type": "agent_task", "num_task": 1}]},
            {},
            "num_task: unknown key, did you mean num_tasks?",
        ),
        ({}, {"micro_batch_size": "many"}, "micro_batch_size: Input should be a valid integer"),
    ],
)
def test_what_would_go_wrong_is_found(
    section: dict[str, Any], keys: dict[str, Any], message: str, run_check: Check
) -> None:
    wrong = details(run_check(section, **keys), "error")
    assert [line for line in wrong if message in line], wrong
    assert len(wrong) == 1
    assert "\n" not in wrong[0]


@pytest.mark.parametrize(
    "metric", ["loss", "eval_loss", "eval_general_loss", "agenttuning_best_score"]
)
def test_figures_that_are_logged_may_choose_the_model(metric: str, run_check: Check) -> None:
    section = {
        "evaluators": [{"type": "general_loss"}, {"type": "agent_task", "num_tasks": 2}],
        "evaluation": {"best": {"evaluator": "database"}},
    }
    assert not details(run_check(section, metric_for_best_model=metric), "error")


def test_an_unlogged_figure_stops_a_run_before_its_first_step(
    run_check: Check, place: Path
) -> None:
    from axolotl.cli.config import load_cfg

    run_check({}, metric_for_best_model="eval_acuracy")
    with pytest.raises(ConfigError, match="which is not logged"):
        load_cfg(str(place))


def test_all_is_found_in_one_run(run_check: Check, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    section = {"agent": str(tmp_path / "none.jsonl"), "general": empty, "eta": 0.5}
    found = run_check(section, learning_rte=1, train_on_eos="all", plugins=[], max_steps=None)
    wrong = "\n".join(details(found, "error"))
    for part in (
        "plugins: found []",
        "train_on_eos: found 'all'",
        "max_steps: missing",
        "learning_rte: unknown key",
        "none.jsonl: no such file",
        "empty.jsonl",
    ):
        assert part in wrong


def test_trials_with_the_same_reward_are_not_the_same_data(run_check: Check) -> None:
    pytest.importorskip("atif")
    job = Path(__file__).resolve().parents[2] / "assets" / "traces" / "harbor-0.25.0"
    found = run_check({"agent": str(job)})
    assert any("harbor, 19 file(s): 6 records read" in line for line in details(found, "warning"))
    assert not any("the same data" in line for line in details(found, "warning"))


def test_sides_swapped_are_warned_of(run_check: Check, recipe: dict[str, Any]) -> None:
    sides = recipe["agenttuning"]
    found = run_check({"agent": sides["general"], "general": sides["agent"]})
    (line,) = details(found, "warning")
    assert line.startswith("agent and general may be swapped: 0 of 12 agent conversations and 6 of")


def test_one_file_on_both_sides_is_found_under_any_name(
    run_check: Check, recipe: dict[str, Any], tmp_path: Path
) -> None:
    chat = recipe["agenttuning"]["general"]
    (wrong,) = details(run_check({"agent": chat}), "error")
    assert "under general and under agent" in wrong
    copy = shutil.copyfile(chat, tmp_path / "copy.jsonl")
    (wrong,) = details(run_check({"general": [chat], "agent": [str(copy)]}), "error")
    assert "the same data as" in wrong
    hub = "someone/data"
    (wrong,) = details(run_check({"general": [chat, hub], "agent": hub}), "error")
    assert wrong == "someone/data: the same data under agent and under general"


def test_trajectories_of_a_replay_are_not_trained_on(
    run_check: Check, recipe: dict[str, Any]
) -> None:
    replay = {"type": "replay", "data": recipe["agenttuning"]["agent"]}
    (wrong,) = details(run_check({"evaluators": [replay]}), "error")
    assert wrong.endswith("replayed and trained on, expected trajectories of their own")


def test_dropped_records_are_counted(run_check: Check, tmp_path: Path) -> None:
    rows = [talk("hi", f"Action: go {i}") for i in range(3)] + [{"messages": []}]
    (line,) = details(run_check({"agent": write(tmp_path / "odd.jsonl", rows)}), "warning")
    assert "4 records read, 1 of them dropped" in line


def test_data_of_an_environment_is_used_as_in_a_run(run_check: Check, shared: Path) -> None:
    data = shared / "data/webshop"
    if not data.is_dir():
        pytest.skip(f"no WebShop: {data} is absent")
    evaluator = {"type": "agent_task", "environment": "webshop", "num_tasks": 2}
    assert details(run_check({"evaluators": [evaluator]}), "error")
    assert not details(run_check({"evaluators": [{**evaluator, "data": str(data)}]}), "error")


@pytest.mark.parametrize(
    ("evaluator", "folder"),
    [
        ({"environment": "database", "num_tasks": 300}, "dbbench"),
        ({"environment": "alfworld", "num_tasks": 50}, "alfworld"),
        ({"environment": "os", "num_tasks": 144}, "os_interaction"),
        ({"environment": "webshop", "num_tasks": 200}, "webshop"),
    ],
)
def test_an_environment_with_data_has_the_tasks_of_a_run(
    evaluator: dict[str, Any], folder: str, run_check: Check, shared: Path
) -> None:
    data = shared / "data" / folder
    if not data.is_dir():
        pytest.skip(f"{data} is absent")
    section = {"evaluators": [{"type": "agent_task", "data": str(data), **evaluator}]}
    assert not details(run_check(section), "error")
    section["evaluators"][0]["num_tasks"] += 1
    (wrong,) = details(run_check(section), "error")
    assert f"expected 1 to {evaluator['num_tasks']}" in wrong


def test_an_environment_with_own_data_has_the_tasks_of_a_run(
    run_check: Check, tmp_path: Path
) -> None:
    table = {"name": "t", "columns": ["a"], "rows": [["x"], ["y"]]}
    pair = {"question": "How many?", "sql": "SELECT count(*) FROM t", "tables": [table]}
    data = write(tmp_path / "pairs.jsonl", [pair, {**pair, "question": "How many rows?"}])
    own = {"split": "train", "data": data, "options": {"tasks": "pairs"}}
    for number, wrong in ((2, 0), (3, 1)):
        section = {"evaluators": [{"type": "agent_task", "num_tasks": number, **own}]}
        assert len(details(run_check(section), "error")) == wrong


def test_a_policy_that_would_stop_a_run_at_its_start_is_found(run_check: Check) -> None:
    section = {
        "evaluators": [{"type": "general_loss"}],
        "evaluation": {"best": {"evaluator": "general"}},
    }
    (wrong,) = details(run_check(section), "error")
    assert "found 'general', a loss" in wrong


def test_the_command_says_it_to_scripts(
    run_check: Check,
    place: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agenttuning", "check", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capfd.readouterr()

    run_check({"holdout": 50}, min_sample_len=3)
    capfd.readouterr()
    code, out, err = command(str(place))
    assert code == 1
    # Only these lines: another test's trainer may have left handlers that cannot write any more.
    assert len([line for line in err.splitlines() if line.startswith(f"error: {place}: ")]) == 2
    assert "ok  agent rows" in out
    code, out, _ = command(str(place), "--json")
    assert code == 1
    result = json.loads(out)
    assert result["ok"] is False
    assert sum(finding["level"] == "error" for finding in result["findings"]) == 2
    code, out, _ = command(str(place.with_name("none.yaml")), "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    run_check()
    capfd.readouterr()
    code, out, _ = command(str(place), "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)


TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ ('QUIET' if enable_thinking is false else 'LOUD') + m['content'] + eos_token }}"
    "{% else %}{{ m['role'] + ':' + m['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'QUIET' if enable_thinking is false else 'LOUD' }}{% endif %}"
)


def test_the_templates_variables_hold_for_check_and_build(
    run_check: Check, place: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    from agenttuning_plugin.trainers.axolotl_build import build_recipe

    template = {"chat_template": "jinja", "chat_template_jinja": TEMPLATE}
    section = {"chat_template_kwargs": {"messages": []}}
    (wrong,) = [each for each in run_check(section, **template) if each.level == "error"]
    assert wrong.detail.startswith("agenttuning.chat_template_kwargs: found 'messages'")
    section = {"chat_template_kwargs": {"enable_thinking": False}}
    assert not details(run_check(section, **template), "error")
    build_recipe(tmp_path / "built", place)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    rows = load_from_disk(str(tmp_path / "built"))
    for text in tokenizer.batch_decode(list(rows["input_ids"])):
        assert "QUIET" in text
        assert "LOUD" not in text


def test_calls_as_text_beside_a_template_with_calls_is_named(
    recipe: dict[str, Any], run_check: Check
) -> None:
    section: dict[str, Any] = {
        "agent": {"path": recipe["agenttuning"]["agent"], "calls_as_text": True}
    }
    assert not [each for each in run_check(section) if each.what == "tool calls"]
    section |= {"chat_template": "chatml-tools"}
    (warning,) = [each for each in run_check(section) if each.what == "tool calls"]
    assert warning.level == "warning"
    assert "calls_as_text: found true, expected false" in warning.detail
    assert "hermes" in warning.detail


def test_kernels_that_need_a_gpu_are_named_where_there_is_none(
    run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (warning,) = [each for each in run_check(**lora) if each.what == "device"]
    assert "lora_mlp_kernel" in warning.detail
    kernels = {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o", "embedding")}
    assert not [each for each in run_check(**lora, **kernels) if each.what == "device"]
