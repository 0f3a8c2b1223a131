"""lm_eval's tasks on a tiny real model, offline; one of them against our own scoring."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget
from evaluators.tasks.general.mmlu import LETTERS, MmluEvaluator
from evaluators.tasks.general.mmlu_data import MmluData, Question

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of its own dependencies, as they load.
    pytest.importorskip("lm_eval", reason="pip install 'agenttuning-plugin[general]'")

from evaluators.runner import run_evaluator
from evaluators.tasks.general.lm_eval_tasks import LmEvalEvaluator

# lm_eval's and its dependencies' own.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

CHOICE = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {test}, dev: {dev}}}
output_type: multiple_choice
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
num_fewshot: 2
doc_to_text: "{{{{text}}}}"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
WRITTEN = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {test}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_target: answer
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
filter_list:
  - {{name: first, filter: [{{function: take_first}}]}}
  - name: letter
    filter: [{{function: regex, regex_pattern: "([A-D])"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def questions(split: str, number: int) -> dict[str, Question]:
    return {
        f"tea/{n}": Question("tea", f"{split} {n} {'x' * n}?", ("a", "b", "c", "d"), "ABCD"[n % 4])
        for n in range(number)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, number in (("dev", 2), ("test", 7)):
        rows = [{"text": q.text(), "answer": q.answer} for q in questions(split, number).values()]
        (tmp_path / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"test": tmp_path / "test.json", "dev": tmp_path / "dev.json"}
    (tmp_path / "choice.yaml").write_text(CHOICE.format(task="tea_choice", **places))
    (tmp_path / "written.yaml").write_text(WRITTEN.format(task="tea_written", **places))
    return tmp_path


@pytest.fixture
def subject(tiny_model_dir: Path) -> EvalTarget:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    return EvalTarget(model=model, tokenizer=tokenizer)


def test_agrees_with_our_own_scoring_of_the_same_prompts(folder: Path, subject: EvalTarget) -> None:
    class Bare(MmluEvaluator):
        """Without an instruction, which the task has not either."""

        def prompt(self, item: str, system: bool = True) -> Any:
            from dataclasses import replace

            return replace(super().prompt(item, system), instruction="")

    shots = {"tea": tuple(questions("dev", 2).values())}
    ours = run_evaluator(Bare(MmluData(questions("test", 7), shots, "test"), num_shots=2), subject)
    theirs = LmEvalEvaluator(["tea_choice"], include_path=str(folder), chat=True)
    side = subject.tokenizer.padding_side
    found = run_evaluator(theirs, subject)
    assert subject.tokenizer.padding_side == side
    assert (found.num_errors, len(found.records)) == (0, 7)
    assert found.primary == "acc"
    own = {record["item"]: record for record in ours.records}
    for record in found.records:
        mine = own[f"tea/{record['item'].rpartition('/')[2]}"]
        # Only A to D without the blank: lm_eval knows one spelling.
        assert record["messages"][0]["content"].count("<|im_start|>user") == 3
        assert mine["shots"] == 2
        letter = record["messages"][1]["content"]
        assert letter in LETTERS
        assert record["scores"]["acc"] == float(letter == mine["answer"])
    assert "2 shots" in found.about["tasks"]
    assert "shots" not in found.about


def test_the_probabilities_are_the_same(folder: Path, subject: EvalTarget) -> None:
    from dataset_builders.conversation import Message
    from evaluators.models.eval_mode import evaluation_mode

    evaluator = LmEvalEvaluator(["tea_choice"], include_path=str(folder), chat=True, num_fewshot=0)
    with evaluation_mode(subject):
        from lm_eval.models.huggingface import HFLM

        engine = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer)
        logged = evaluator._logged(engine, {"tea_choice": list(range(7))})
        model: Any = subject.language_model()
        # lm_eval knows one spelling of a letter, the one without a blank.
        letters = [ids[0] for ids in subject.tokenizer(LETTERS)["input_ids"]]
        for item, question in questions("test", 7).items():
            [row] = logged[f"tea_choice/{item.rpartition('/')[2]}"]
            prompt = model.prompt_ids([Message("user", question.text())])
            [values] = model._tokens.next_logprobs([prompt], letters)
            told = [each[0] for each in row["filtered_resps"]]
            # lm_eval takes the newline before the turn for a part of every choice.
            extra = {round(theirs - ours, 3) for theirs, ours in zip(told, values, strict=True)}
            assert max(extra) - min(extra) < 2e-3


def test_tasks_are_mixed_filtered_limited_and_dealt(folder: Path, subject: EvalTarget) -> None:
    evaluator = LmEvalEvaluator(
        ["tea_written", "tea_choice"], include_path=str(folder), limit=3, name="tea"
    )
    assert evaluator.items()[:3] == ("tea_written/0", "tea_choice/0", "tea_written/1")
    assert len(evaluator.items()) == 6
    whole = run_evaluator(evaluator, subject)
    names = {"exact_match_first", "exact_match_letter", "acc"}
    assert set(whole.metrics) == names
    assert whole.primary == "exact_match_first"
    assert {name: whole.metrics[name].n for name in names} == dict.fromkeys(names, 3)
    records: list[Any] = []
    evaluator.measure(subject, evaluator.items()[1::2], records.append)
    assert records == [record for record in whole.records if record["group"] == "tea_choice"]


def test_what_cannot_work_is_one_line(folder: Path) -> None:
    made = LmEvalEvaluator(["tea_choice"], include_path=str(folder))
    with pytest.raises(ConfigError, match="needs the model's weights"):
        run_evaluator(made, EvalTarget(model=None, tokenizer=None))
    with pytest.raises(ConfigError, match="task 'no_such' is neither one of lm_eval's nor in"):
        LmEvalEvaluator(["no_such"], include_path=str(folder))
    with pytest.raises(ConfigError, match="expected a list of names"):
        LmEvalEvaluator("gsm8k")
    (folder / "test.json").unlink()
    with pytest.raises(ConfigError, match="tea_choice cannot be loaded: "):
        LmEvalEvaluator(["tea_choice"], include_path=str(folder))
