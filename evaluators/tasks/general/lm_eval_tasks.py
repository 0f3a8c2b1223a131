"""Any task of EleutherAI's lm_eval as an evaluator, on the model in memory.

lm_eval renders prompts, asks the model and scores, all by its own rules; its log of every
sample becomes our records. docs/tasks/general.md says when that is the better choice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

from pydantic import Field

from dataset_builders.errors import ConfigError, MissingExtraError
from dataset_builders.settings import options
from evaluators.evaluator import Evaluator, Record, Suite
from evaluators.models.answering import batches
from evaluators.models.target import EvalTarget
from evaluators.tasks.registry import SuiteSettings, select

_CHUNK = 256
"""Samples of one call of lm_eval: those of a finished call survive the end of the process."""

_SHOT_SEED = 1234
"""lm_eval's default."""


class LmEvalEvaluator(Evaluator):
    """Figures: every metric of the tasks that is a mean over samples, by its name in lm_eval.

    The same metric of several tasks is one figure over all their samples; `group` is the
    sample's task. A task with several filters has their names in its metrics, such as
    `exact_match_strict-match`. Metrics that are no mean, such as a perplexity, are left out
    and named in `about`.

    Needs the whole model in this process: not for sharded ones.

    Args:
        tasks: Names of tasks and groups.
        num_fewshot: Shots; each task's own number by default.
        limit: The first so many samples of each task.
        include_path: Folder with further tasks as YAML.
        batch_size: Rows of a forward pass.
        chat: Whether to use the tokenizer's chat template, with shots as turns.
        name: Prefix of the figures in logs; the tasks' names by default.
        primary: Name of the main figure; the first one by default.
        suite: What the figures say something about.

    Raises:
        MissingExtraError: lm_eval is not installed.
        ConfigError: A task is unknown or cannot be loaded, or has no metric that is a mean.
    """

    needs_weights: ClassVar[bool] = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        num_fewshot: int | None = None,
        limit: int | None = None,
        include_path: str | None = None,
        batch_size: int = 8,
        chat: bool = False,
        name: str | None = None,
        primary: str | None = None,
        suite: Suite = "general",
    ) -> None:
        if isinstance(tasks, str) or not tasks:
            raise ConfigError(f"lm_eval: tasks: found {tasks!r}, expected a list of names")
        self.name = name or "_".join(tasks)
        self.suite = suite
        self._batch_size = batch_size
        self._chat = chat
        self._tasks = _load(list(tasks), include_path, num_fewshot)
        self._items = _in_turn({key: _size(task, limit) for key, task in self._tasks.items()})
        means = {key: _means(task) for key, task in self._tasks.items()}
        names = list(dict.fromkeys(metric for found in means.values() for metric in found[0]))
        if not names:
            raise ConfigError(f"{self.name}: found no metric that is a mean over samples")
        self._means = {key: frozenset(found[0]) for key, found in means.items()}
        self._left_out = sorted({metric for found in means.values() for metric in found[1]})
        self.primary = primary or self._figure(next(iter(self._tasks)), names[0])

    def items(self) -> tuple[str, ...]:
        """Such as "gsm8k/12", the number of the sample; one of each task in turn."""
        return self._items

    def about(self) -> dict[str, str]:
        """Version, tasks and their shots, and what was left out."""
        import lm_eval

        facts = {
            "engine": f"lm_eval {lm_eval.__version__}",
            "tasks": ", ".join(
                f"{key} (version {task.VERSION}, {task.config.num_fewshot or 0} shots)"
                for key, task in self._tasks.items()
            ),
            "prompt": "lm_eval's" + (", chat template" if self._chat else ""),
        }
        if drawn := [key for key, task in self._tasks.items() if _draws_shots(task)]:
            facts["shots"] = (
                f"drawn at random for {', '.join(drawn)}: others on several processes, with "
                "another limit or after a resume"
            )
        if self._left_out:
            facts["left out"] = ", ".join(self._left_out) + " (no mean over samples)"
        return facts

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Have lm_eval measure samples; see `Evaluator.measure`."""
        if subject.in_step is not None:
            raise ConfigError(
                "lm_eval calls the model on its own, which a sharded one (FSDP, ZeRO-3) does not "
                "survive: measure the saved model with `agenttuning evaluate`"
            )
        ranks = subject.ranks
        with nullcontext() if ranks is None else ranks.watchdog.following(subject.model):
            self._measure(subject, items, finished)

    def _measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        from lm_eval.models.huggingface import HFLM

        # A copy: it sets the padding side, and a pad token.
        tokenizer = copy.deepcopy(subject.tokenizer)
        model = HFLM(pretrained=subject.model, tokenizer=tokenizer, batch_size=self._batch_size)
        for chunk in batches(items, _CHUNK):
            samples: dict[str, list[int]] = {}
            for item in chunk:
                task, _, number = item.rpartition("/")
                samples.setdefault(task, []).append(int(number))
            logged = self._logged(model, {key: sorted(ids) for key, ids in samples.items()})
            for item in chunk:
                finished(self._record(item, logged.get(item, [])))

    def _logged(
        self, model: Any, samples: Mapping[str, list[int]]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """lm_eval's log by item: one row per filter."""
        from lm_eval.evaluator import evaluate

        tasks = {key: self._tasks[key] for key in samples}
        for task in tasks.values():
            task.set_fewshot_seed(seed=_SHOT_SEED)
        output = evaluate(
            lm=model,
            task_dict=tasks,
            samples=dict(samples),
            bootstrap_iters=0,
            apply_chat_template=self._chat,
            fewshot_as_multiturn=self._chat,
            log_samples=True,
        )
        found: dict[str, list[Mapping[str, Any]]] = {}
        for key, rows in (output or {"samples": {}})["samples"].items():
            for row in rows:
                found.setdefault(f"{key}/{row['doc_id']}", []).append(row)
        return found

    def _figure(self, task: str, metric: str, filter_name: str | None = None) -> str:
        filters = [each.name for each in getattr(self._tasks[task], "_filters", ())]
        if len(filters) < 2:
            return metric
        return f"{metric}_{filter_name or filters[0]}"

    def _record(self, item: str, rows: Sequence[Mapping[str, Any]]) -> Record:
        task = item.rpartition("/")[0]
        scores, error = {}, "" if rows else "lm_eval logged nothing for it"
        for row in rows:
            for metric in row["metrics"]:
                if metric not in self._means[task]:
                    continue
                value = row[metric]
                if isinstance(value, bool | int | float) and math.isfinite(value):
                    scores[self._figure(task, metric, row["filter"])] = float(value)
                else:
                    error = f"{metric}: found {value!r}, expected a number"
        return {
            "item": item,
            "scores": {} if error else scores,
            "error": error,
            "group": task,
            "prompt": "lm_eval",
            "messages": _transcript(rows[0]) if rows else [],
        }


@options
class Options:
    """Options of a task of lm_eval."""

    num_fewshot: int | None = Field(
        default=None, ge=0, description="Shots; the task's own number if left out."
    )
    include_path: str | None = Field(default=None, description="Folder with further tasks as YAML.")
    chat: bool = Field(
        default=False, description="Whether to use the chat template, with shots as turns."
    )
    primary: str | None = Field(
        default=None, description="Name of the main metric; the first one if left out."
    )


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """The evaluator of a task or group of lm_eval, named as `lm_eval/arc_easy`.

    Raises:
        MissingExtraError: lm_eval is not installed.
        ConfigError: The task is unknown or cannot be loaded, or has no metric that is a mean.
    """
    (benchmark,) = select([name])
    given: Options = settings.options_of(name)
    return LmEvalEvaluator(
        [benchmark.title],
        num_fewshot=given.num_fewshot,
        include_path=given.include_path,
        batch_size=settings.batch_size,
        chat=given.chat,
        name=benchmark.key,
        primary=given.primary,
    )


def _load(tasks: list[str], include_path: str | None, num_fewshot: int | None) -> dict[str, Any]:
    """Tasks by name, groups taken apart."""
    try:
        from lm_eval.evaluator_utils import get_task_list
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError as error:
        raise MissingExtraError(
            "lm_eval is not installed: pip install 'agenttuning-plugin[general]'"
        ) from error
    # Reading the thousands of lm_eval's own takes seconds, so only where they are wanted.
    manager = TaskManager(include_path=include_path, include_defaults=False)
    if not all(name in manager.all_tasks for name in tasks):
        manager = TaskManager(include_path=include_path)
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        where = f" nor in {include_path}" if include_path else ""
        raise ConfigError(f"lm_eval: task {unknown[0]!r} is neither one of lm_eval's{where}")
    try:
        found = get_task_list(get_task_dict(list(tasks), manager))
    except Exception as error:  # A task may load from anywhere, and fail with anything.
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"lm_eval: {', '.join(tasks)} cannot be loaded: {said}") from error
    loaded = {each.task_name: each.task for each in found}
    for task in loaded.values():
        if num_fewshot is not None:
            task.set_config(key="num_fewshot", value=num_fewshot)
    # lm_eval has an order of its own.
    places = {name: place for place, name in enumerate(tasks)}
    return {key: loaded[key] for key in sorted(loaded, key=lambda k: places.get(k, len(tasks)))}


def _size(task: Any, limit: int | None) -> int:
    size = len(task.eval_docs)
    return size if limit is None else min(size, limit)


def _in_turn(sizes: Mapping[str, int]) -> tuple[str, ...]:
    rounds = range(max(sizes.values(), default=0))
    return tuple(f"{key}/{n}" for n in rounds for key, size in sizes.items() if n < size)


def _means(task: Any) -> tuple[list[str], list[str]]:
    """Names of the metrics that are means over samples, and of the others."""
    means: list[str] = []
    others: list[str] = []
    for metric, aggregation in task.aggregation().items():
        is_mean = getattr(aggregation, "__name__", "") in ("mean", "nanmean")
        (means if is_mean else others).append(metric)
    return means, others


def _draws_shots(task: Any) -> bool:
    from lm_eval.api.samplers import FirstNSampler

    sampler = getattr(task, "sampler", None)
    return bool(task.config.num_fewshot) and not isinstance(sampler, FirstNSampler)


def _transcript(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The prompt and what came of it: what was written, or the likeliest continuation."""
    arguments = [tuple(each) for each in row["arguments"]]
    answers = row["filtered_resps"]
    said = str(answers[0]) if answers else ""
    if len(answers) > 1 and all(isinstance(each, tuple | list) for each in answers):
        values = [float(each[0]) for each in answers]
        said = str(arguments[values.index(max(values))][1])
    return [
        {"role": "user", "content": str(arguments[0][0])},
        {"role": "assistant", "content": said},
    ]
