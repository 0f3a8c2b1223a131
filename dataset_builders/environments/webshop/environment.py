"""WebShop (arXiv 2207.01206) on its real products, without its server.

Differences from WebShop: the search engine (see `index`), the nouns of titles (see
`reward`), prices of ranges and price limits are drawn once (see `goals`),
no reviews and no pictures. WebShop's shortcuts for developers in the search box
(`<r>`, `<a>`, `<c>`, `<q>`) are words like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded

from dataset_builders.environments.base import (
    Oracle,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.environments.webshop import pages
from dataset_builders.environments.webshop.catalogue import Product
from dataset_builders.environments.webshop.goals import Goal, product_price
from dataset_builders.environments.webshop.oracle import shop_for
from dataset_builders.environments.webshop.pages import Page
from dataset_builders.environments.webshop.reward import import_rapidfuzz, reward
from dataset_builders.environments.webshop.shop import Shop, find_files, load_shop
from dataset_builders.errors import AgentTuningError, ConfigError

_ACTION = re.compile(r"(.+)\[(.+)\]")
_TASK_ID = re.compile(r"webshop-([a-z]+)-(\d{5,})")


@dataclass(slots=True)
class _Episode:
    goal: Goal
    page: Page
    hits: tuple[str, ...] = ()
    number: int = 1  # number of the page of results
    product: Product | None = None
    on_subpage: bool = False
    chosen: dict[str, str] = field(default_factory=dict)


class WebShopEnvironment(TextEnvironment):
    """Buy a product that an instruction describes.

    Actions are `search[keywords]`, on any page, and `click[value]`, with a value of the
    page's, in any case. Others change nothing. The score is WebShop's reward of the
    purchase; buying ends the episode with exit reason "bought". In addition to the base class,
    `info` has `admissible_actions`: a dictionary of `has_search_bar` and `clickables`, as
    AgentBench shows it to the model.

    `reset` without a task draws a training task by WebShop's weights.

    Args:
        data: Folder of the catalogue: WebShop's `items_shuffle.json` with
            `items_ins_v2.json`, or the thousand products of its small set.
        render_mode: Gymnasium's; nothing is ever drawn.
        attributes: Whether product pages have a button for their mined properties, as
            WebShop's `show_attrs`; AgentBench has none.
        demonstration: Whether the conversation begins with a purchase that the oracle
            made for a training goal, as at AgentBench; AgentInstruct's rows have none.
    """

    name: ClassVar[str] = "webshop"
    data_names: ClassVar[tuple[str, ...]] = ("webshop",)
    idle_action: ClassVar[str] = "search[gift]"

    _episode: _Episode | None = None

    def __init__(
        self,
        data: str | Path | None = None,
        render_mode: str | None = None,
        *,
        attributes: bool = False,
        demonstration: bool = False,
    ) -> None:
        super().__init__(data, render_mode)
        self.attributes = attributes
        self.demonstration = demonstration

    @cached_property
    def shop(self) -> Shop:
        """Products and goals, shared by all objects of a process."""
        return load_shop(find_files(self.name, self.data, self.data_names))

    @property
    def folder(self) -> Path:
        """Folder of the catalogue."""
        return find_files(self.name, self.data, self.data_names)[0].parent

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """Return why the environment cannot run here; see the base class."""
        try:
            import_rapidfuzz()
            find_files(cls.name, data, cls.data_names)
        except AgentTuningError as error:
            return str(error)
        return ""

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Build the index; see the base class."""
        files = find_files(cls.name, data, cls.data_names)
        say(f"{cls.name}: indexing {files[0]}")
        shop = load_shop(files)
        say(f"{cls.name}: {len(shop.goals):,} goals")

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "webshop-train-01500", by the goal's index.

        Raises:
            ConfigError: The split is not "train", "dev" or "test".
            SourceNotFoundError: There is no catalogue.
            DataError: The catalogue is invalid.
        """
        splits = self.shop.splits
        if split not in splits:
            raise ConfigError(f"split {split!r} is unknown; known: {', '.join(splits)}")
        return tuple(self._task_name(split, index) for index in splits[split])

    def state_digest(self) -> str | None:
        """Return the page and the chosen options; see `TextEnvironment.state_digest`."""
        episode = self._current()
        chosen = sorted(episode.chosen.items())
        return sha256(repr((episode.page.text, chosen)).encode()).hexdigest()

    def oracle(self) -> Oracle:
        """Search, look through the results, choose the options and buy; see `oracle`."""
        return shop_for(self._current().goal, self.shop.index)

    def _choose(self, options: dict[str, Any]) -> str:
        if options.keys() & {"task_id", "split", "index"}:
            return super()._choose(options)
        shop = self.shop
        if not shop.splits["train"]:
            raise ConfigError(f"webshop: {len(shop.goals)} goals leave none for training")
        weights = np.array([shop.goals[index].weight for index in shop.splits["train"]])
        place = self.np_random.choice(len(weights), p=weights / weights.sum())
        return self.task_ids("train")[int(place)]

    def _begin(self, task_id: str) -> ResetResult:
        import_rapidfuzz()
        goal = self._find_goal(task_id)
        self._episode = _Episode(goal, pages.search_page(goal.instruction))
        return ResetResult(self._episode.page.text, goal.instruction, self._admissible())

    def _find_goal(self, task_id: str) -> Goal:
        found = _TASK_ID.fullmatch(task_id)
        index = int(found[2]) if found else -1
        if (
            found is None
            or index not in self.shop.splits.get(found[1], ())
            or task_id != self._task_name(found[1], index)
        ):
            raise ConfigError(
                f"task {task_id!r} is unknown; expected one such as {self.task_ids('test')[0]}"
            )
        return self.shop.goals[index]

    def _task_name(self, split: str, index: int) -> str:
        return f"{self.name}-{split}-{index:05d}"

    def _act(self, action: str) -> StepResult:
        episode = self._current()
        found = _ACTION.match(action)
        kind, value = (found[1], found[2].lower()) if found else (action, "")
        if kind == "click" and value == pages.BUY and value in episode.page.buttons:
            return self._buy(episode)
        valid = True
        if kind == "search" and value:
            self._search(episode, value)
        elif kind == "click" and value != pages.SEARCH and self._clickable(episode, value):
            self._click(episode, value)
        else:
            valid = False
        return StepResult(episode.page.text, valid=valid, info=self._admissible())

    @staticmethod
    def _clickable(episode: _Episode, value: str) -> bool:
        return value in episode.page.buttons or value in episode.page.options

    def _search(self, episode: _Episode, keywords: str) -> None:
        episode.hits = self.shop.index.search(keywords)
        self._show_results(episode, 1)

    def _show_results(self, episode: _Episode, number: int) -> None:
        episode.number, episode.product, episode.on_subpage = number, None, False
        episode.chosen = {}
        first = (number - 1) * pages.PAGE_SIZE
        shown = episode.hits[first : first + pages.PAGE_SIZE]
        found = [self.shop.index.product(asin) for asin in shown]
        episode.page = pages.results_page(
            episode.goal.instruction, found, number, len(episode.hits)
        )

    def _show_item(self, episode: _Episode, product: Product) -> None:
        episode.product, episode.on_subpage = product, False
        episode.page = pages.item_page(
            episode.goal.instruction, product, attributes=self.attributes
        )

    def _click(self, episode: _Episode, value: str) -> None:
        product = episode.product
        if value == pages.BACK:
            episode.product, episode.chosen = None, {}
            episode.page = pages.search_page(episode.goal.instruction)
        elif value == pages.NEXT and product is None:
            self._show_results(episode, episode.number + 1)
        elif value == pages.PREVIOUS and product is None:
            self._show_results(episode, episode.number - 1)
        elif product is None:
            self._show_item(episode, self.shop.index.product(value.upper()))
        elif value == pages.PREVIOUS and episode.on_subpage:
            self._show_item(episode, product)
        elif value == pages.PREVIOUS:
            self._show_results(episode, episode.number)
        elif value in (*pages.SUBPAGES, pages.ATTRIBUTES) and value in episode.page.buttons:
            episode.page = pages.subpage(episode.goal.instruction, product, value)
            episode.on_subpage = True
        else:
            episode.chosen[episode.page.options[value]] = value

    def _buy(self, episode: _Episode) -> StepResult:
        if episode.product is None:
            raise ResetNeeded("no product is open")
        price = product_price(episode.product)
        score = reward(episode.product, price, episode.chosen, episode.goal)
        return StepResult(exit_reason="bought", score=score)

    def _admissible(self) -> dict[str, Any]:
        return {"admissible_actions": self._current().page.actions}

    def _end(self) -> None:
        self._episode = None

    def _current(self) -> _Episode:
        return require_episode(self._episode)
