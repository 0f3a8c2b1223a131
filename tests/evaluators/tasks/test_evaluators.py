"""Evaluators on a real (tiny, random) model: figures right, model left as it was."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.models.chat_model import LocalModel  # noqa: E402
from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.target import Decoding  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.agent_task import AgentTaskEvaluator  # noqa: E402
from evaluators.tasks.general_loss import GeneralLossEvaluator  # noqa: E402


@pytest.fixture
def subject(tiny_model_dir: Path) -> EvalTarget:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    return EvalTarget(model=model, tokenizer=tokenizer)


@pytest.fixture
def rows(small_tokenizer: Any) -> Any:
    talks = [
        Conversation.create(
            [
                Message("user", f"question {i} " + "and more " * (i % 5)),
                Message("assistant", f"answer {i}. " * (1 + i % 7), trained=True),
            ],
            id=str(i),
        )
        for i in range(23)
    ]
    return encode_dataset(talks, Encoder(small_tokenizer, max_length=4096)).dataset


def state_of(subject: EvalTarget) -> dict[str, Any]:
    """Everything that an evaluation might leave changed."""
    model = subject.model
    return {
        "training": [module.training for module in model.modules()],
        "checkpointing": [
            getattr(module, "gradient_checkpointing", None) for module in model.modules()
        ],
        "config": copy.deepcopy(model.config.to_dict()),
        "generation": copy.deepcopy(model.generation_config.to_dict()),
        "sides": (subject.tokenizer.padding_side, subject.tokenizer.truncation_side),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
        "weights": {key: value.clone() for key, value in model.state_dict().items()},
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before.items():
        if key == "weights":
            assert all(torch.equal(weight, after[key][name]) for name, weight in value.items())
        else:
            assert after[key] == value, key


@pytest.mark.parametrize("kind", ["agent", "loss"])
def test_evaluation_leaves_no_trace(subject: EvalTarget, rows: Any, kind: str) -> None:
    # As Axolotl leaves a model: training, checkpointing, cache off, sampling forced.
    subject.model.train()
    subject.model.model.layers[0].eval()
    model = subject.model
    new = getattr(model, "activation_checkpointing_enable", None)  # From transformers 5.23 on.
    (new or model.gradient_checkpointing_enable)()
    subject.model.config.use_cache = False
    subject.model.generation_config.do_sample = True
    subject.tokenizer.padding_side = "right"
    before = state_of(subject)
    evaluator = (
        AgentTaskEvaluator("database", num_tasks=3, max_new_tokens=5)
        if kind == "agent"
        else GeneralLossEvaluator(rows)
    )
    run_evaluator(evaluator, subject)
    assert_same(before, state_of(subject))


def test_state_is_restored_after_an_error(subject: EvalTarget) -> None:
    subject.model.train()
    before = state_of(subject)

    def fail() -> None:
        with evaluation_mode(subject):
            random.random()
            torch.rand(3)
            subject.tokenizer.padding_side = "left"
            subject.model.config.use_cache = True
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert_same(before, state_of(subject))


def test_generation_is_greedy_though_the_model_is_set_to_sample(subject: EvalTarget) -> None:
    subject.model.generation_config.do_sample = True
    subject.model.generation_config.temperature = 5.0
    dialogue = [Message("user", "hello")]
    with evaluation_mode(subject):
        policy = LocalModel(subject.tokens(), subject.tokenizer)
        answers = {policy.chat([dialogue], Decoding(12))[0] for _ in range(4)}
    assert len(answers) == 1
    # The likeliest token at every step, worked out without generate().
    ids = subject.tokenizer(policy._renderer.prompt(dialogue), add_special_tokens=False)
    sequence = list(ids["input_ids"])
    start = len(sequence)
    with torch.no_grad():
        for _ in range(12):
            logits = subject.model(torch.tensor([sequence])).logits[0, -1]
            sequence.append(int(logits.argmax()))
    assert answers == {policy._decode(sequence[start:]).strip()}


def test_a_batch_answers_as_one_by_one(subject: EvalTarget) -> None:
    dialogues = [
        [Message("user", "hi")],
        [Message("user", "a much longer question " * 9)],
        [Message("user", "two"), Message("assistant", "2"), Message("user", "three")],
    ]
    with evaluation_mode(subject):
        policy = LocalModel(subject.tokens(), subject.tokenizer)
        together = policy.chat(dialogues, Decoding(10))
        alone = [policy.chat([dialogue], Decoding(10))[0] for dialogue in dialogues]
    assert together == alone


def test_a_dialogue_without_room_is_not_continued(subject: EvalTarget) -> None:
    with evaluation_mode(subject):
        policy = LocalModel(subject.tokens(), subject.tokenizer, context_length=40)
        short, long = [Message("user", "hi")], [Message("user", "word " * 60)]
        answers = policy.chat([long, short], Decoding(5))
    assert answers[0] is None
    assert answers[1] is not None


def test_the_prompt_is_the_prefix_of_training(subject: EvalTarget) -> None:
    messages = (Message("user", "q"), Message("assistant", "a", trained=True))
    renderer = LocalModel(subject.tokens(), subject.tokenizer)._renderer
    rendered = renderer.render(Conversation.create(messages))
    assert rendered.text[: rendered.spans[0].start] == renderer.prompt(messages[:1])


def test_loss_is_the_models_own(subject: EvalTarget, rows: Any) -> None:
    metric = run_evaluator(GeneralLossEvaluator(rows), subject).metrics["loss"]
    total, count = 0.0, 0
    subject.model.eval()
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        trained = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(subject.model(input_ids=ids, labels=labels).loss) * trained
        count += trained
    assert metric.value == pytest.approx(total / count, rel=1e-5)
    assert metric.n == len(rows)
    assert 0 < metric.stderr < metric.value


def test_the_oracle_through_a_scripted_policy_scores_one() -> None:
    """The evaluator's figures of known play: right, wrong and unparsable answers."""
    environment = load_environment("database")
    task = environment.task_ids("test")[0]
    (solved,) = play(environment, [task], OraclePolicy())
    replies = [message.content for message in solved.messages if message.trained]
    assert play(environment, [task], ScriptedPolicy(replies))[0].reward == 1
    assert play(environment, [task], ScriptedPolicy(["no action"]))[0].valid_rounds == 0


def test_an_episode_ends_at_max_turns(subject: EvalTarget) -> None:
    """The oracle needs two turns of a database task; with one it is not solved."""
    limited = AgentTaskEvaluator("database", num_tasks=3, max_turns=1, oracle=True)
    result = run_evaluator(limited, subject)
    assert [record["exit_reason"] for record in result.records] == ["step_limit"] * 3
    assert [record["rounds"] for record in result.records] == [1] * 3
    assert result.metrics["success"].value == 0
    assert result.about["max_turns"] == "1"
    enough = AgentTaskEvaluator("database", num_tasks=3, max_turns=2, oracle=True)
    assert run_evaluator(enough, subject).metrics["success"].value == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "no_such"}, "no_such"),
        ({"environment": "database", "num_tasks": 0}, "num_tasks: found 0"),
        ({"environment": "database", "num_tasks": 10**6}, "expected 1 to"),
        ({"environment": "database", "split": "nowhere"}, "nowhere"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AgentTaskEvaluator(**options)


def test_loss_without_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="no held-out conversation"):
        GeneralLossEvaluator([])


def test_the_evaluator_in_the_documentation_measures(subject: EvalTarget) -> None:
    text = (Path(__file__).parents[3] / "docs/guides/custom-evaluator.md").read_text("utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    names = {"model": subject.model, "tokenizer": subject.tokenizer}
    exec("\n".join(blocks), names)  # our own text
    found: Any = names["found"]
    assert found.metrics["accuracy"].n == 3
    assert not found.num_errors
