"""What the study of eta compares: arms, figures and pairs of arms, as in its design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

ETA_ITEMS = "study_eta_items.json"
METHODS_ITEMS = "study_methods_items.json"

ETAS = ("0", "0.1", "0.2", "0.3", "0.5", "1")
GENERAL = ("sharegpt", "replay")
NAMES = {"sharegpt": "ShareGPT", "replay": "replay"}
NEVER_TRAINED = ("os", "webshop", "kg", "mind2web")
TRAINED = ("db", "alfworld")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of the study.

    Attributes:
        name: Name in a row.
        title: Head of a column.
        evaluator: Name of the evaluator.
        figure: Its figure.
        tasks: Tasks of AgentInstruct whose items count; none for all items.
        percent: Whether it is a share.
    """

    name: str
    title: str
    evaluator: str
    figure: str
    tasks: tuple[str, ...] = ()
    percent: bool = False

    def covers(self, item: str) -> bool:
        """Whether an item counts; AgentInstruct's ids begin with the task."""
        return not self.tasks or item.rpartition("_")[0] in self.tasks


@dataclass(frozen=True, slots=True)
class Comparison:
    """One paired difference: `after` minus `before`."""

    label: str
    before: str
    after: str
    metric: Metric


@dataclass(frozen=True, slots=True)
class Table:
    """Comparisons of one question, adjusted together.

    Attributes:
        name: Name of the table in the page.
        source: Result file.
        comparisons: Its rows.
    """

    name: str
    source: str
    comparisons: Sequence[Comparison]


def match(name: str, tasks: tuple[str, ...]) -> Metric:
    """Return the share of reproduced expert turns of some tasks."""
    return Metric(
        f"`action_match`, {name}", f"Match, {name}, %", "actions", "action_match", tasks, True
    )


def likelihood(name: str, tasks: tuple[str, ...]) -> Metric:
    """Return the log-likelihood of the expert's turns of some tasks."""
    return Metric(
        f"`turn_logprob`, {name}", f"Log-likelihood, {name}", "actions", "turn_logprob", tasks
    )


SUCCESS = Metric("database success", "Database success, %", "database", "success", percent=True)
SEEN = (match("trained", TRAINED), likelihood("trained", TRAINED))
UNSEEN = (match("never trained", NEVER_TRAINED), likelihood("never trained", NEVER_TRAINED))
CHAT = Metric("chat loss", "Chat loss", "general", "loss")
KL = Metric("KL from the base", "KL from the base", "general_kl", "kl")
REFUSED = Metric(
    "harmful refused", "Harmful refused, %", "refusal", "refusal_harmful", percent=True
)
ANSWERED = Metric(
    "harmless answered", "Harmless answered, %", "refusal", "compliance_harmless", percent=True
)


def grid(eta: str, general: str) -> str:
    """Return the name of an arm of the grid; eta 1 has no general data."""
    return f"eta-{eta}_general-{'sharegpt' if eta == '1' else general}"


def _grid_arms() -> list[tuple[str, str]]:
    arms = [("base", "base")]
    for general, eta in product(GENERAL, ETAS):
        if eta != "1":
            arms.append((grid(eta, general), f"eta {eta}, {NAMES[general]}"))
    return [*arms, (grid("1", ""), "eta 1")]


OTHER_ARMS = [
    ("no-alfworld-0.2", "eta 0.2, without `alfworld`"),
    ("no-alfworld-1", "eta 1, without `alfworld`"),
    ("no-db-0.2", "eta 0.2, without `db`, `database`"),
    ("no-db-1", "eta 1, without `db`, `database`"),
    ("tokens-0.2", "eta 0.2 of trained tokens"),
    ("greedy-0", "eta 0, greedy replay"),
    ("greedy-0.2", "eta 0.2, greedy replay"),
    ("refusals-0.2", "eta 0.2, a tenth refusals"),
]
METHODS = {
    "negatives": "negatives",
    "recovery": "recovery",
    "state-changing": "turn selection",
    "format-variation": "format variation",
    "dft": "DFT",
}

ARMS = {
    "grid": (ETA_ITEMS, _grid_arms(), (SUCCESS, *SEEN, *UNSEEN, CHAT, KL)),
    "others": (ETA_ITEMS, OTHER_ARMS, (SUCCESS, *SEEN, *UNSEEN, CHAT, KL)),
    "refusal": (ETA_ITEMS, [*_grid_arms(), *OTHER_ARMS], (REFUSED, ANSWERED)),
    "methods": (
        METHODS_ITEMS,
        [("base", "base"), *((arm, arm) for arm in ("plain", "filtered", "unfiltered", *METHODS))],
        (SUCCESS, CHAT, KL),
    ),
}
"""Tables of means: result file, arms with their labels, figures."""


def _unseen() -> list[Comparison]:
    rows = [
        Comparison(f"eta {eta} against 1", grid("1", ""), grid(eta, "sharegpt"), metric)
        for eta in ("0.2", "0.5")
        for metric in UNSEEN
    ]
    for task in TRAINED:
        tasks = (*NEVER_TRAINED, task)
        metrics = (match("never trained", tasks), likelihood("never trained", tasks))
        label = f"eta 0.2 against 1, trained without `{task}`"
        rows += [Comparison(label, f"no-{task}-1", f"no-{task}-0.2", each) for each in metrics]
    return rows


def _left_out() -> list[Comparison]:
    rows = []
    for task in TRAINED:
        metrics = [match(f"`{task}`", (task,)), likelihood(f"`{task}`", (task,))]
        label = f"eta 0.2 against 1, trained without `{task}`"
        metrics += [SUCCESS] if task == "db" else []
        rows += [Comparison(label, f"no-{task}-1", f"no-{task}-0.2", each) for each in metrics]
    return rows


def _chat_cost() -> list[Comparison]:
    return [
        Comparison(
            f"eta {eta} against 0, {NAMES[general]}", grid("0", general), grid(eta, general), each
        )
        for general in GENERAL
        for eta in ETAS[1:]
        for each in (CHAT, KL)
        if eta != "1" or general == "sharegpt"
    ]


TABLES = (
    Table("Q1", ETA_ITEMS, _unseen()),
    Table("left-out", ETA_ITEMS, _left_out()),
    Table("Q2", ETA_ITEMS, _chat_cost()),
    Table(
        "Q3",
        ETA_ITEMS,
        [
            Comparison("trained tokens against examples, eta 0.2", grid("0.2", "sharegpt"),
                       "tokens-0.2", each)
            for each in (SUCCESS, *UNSEEN, CHAT, KL)
        ],
    ),
    Table(
        "Q4",
        ETA_ITEMS,
        [
            Comparison(f"replay against ShareGPT, eta {eta}", grid(eta, "sharegpt"),
                       grid(eta, "replay"), each)
            for eta in ETAS[:-1]
            for each in (KL, CHAT, SUCCESS)
        ],
    ),
    Table(
        "greedy",
        ETA_ITEMS,
        [
            Comparison(f"greedy against sampled replay, eta {eta}", grid(eta, "replay"),
                       f"greedy-{eta}", each)
            for eta in ("0", "0.2")
            for each in (KL, CHAT, SUCCESS)
        ],
    ),
    Table(
        "refusals",
        ETA_ITEMS,
        [
            Comparison("a tenth refusals against none, eta 0.2", grid("0.2", "sharegpt"),
                       "refusals-0.2", each)
            for each in (REFUSED, ANSWERED, SUCCESS, CHAT)
        ],
    ),
    Table("Q5", METHODS_ITEMS, [Comparison("filtered against unfiltered", "unfiltered", "filtered",
                                           each) for each in (SUCCESS, CHAT, KL)]),
    Table("Q6", METHODS_ITEMS, [Comparison(f"{label} against plain", "plain", arm, each)
                                for each in (SUCCESS, KL) for arm, label in METHODS.items()]),
)  # fmt: skip
"""Tables of differences, by question of the design."""
