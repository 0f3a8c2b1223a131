"""The card game: its rules, its opponents, and games through the evaluator's path."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from evaluators.models.target import EvalTarget
from evaluators.runner import run_evaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.held_out.card_game import make
from evaluators.tasks.held_out.card_game.baselines import BASELINES
from evaluators.tasks.held_out.card_game.environment import CardGameEnvironment
from evaluators.tasks.held_out.card_game.rules import FISH, TURN_LIMIT, Fight, living
from evaluators.tasks.registry import SuiteSettings

SPRAY, FLAME, EEL, SUNFISH = range(4)


def hit_points(fight: Fight, side: int) -> list[int]:
    return [fish.hp for fish in fight.teams[side]]


def points_left(fight: Fight) -> int:
    """Of both sides; a fallen fish's points below 0 count as none."""
    return sum(max(0, fish.hp) for team in fight.teams for fish in team)


def test_damage_of_every_ability() -> None:
    fight = Fight()
    fight.act(SPRAY, active=False, target=FLAME)
    assert hit_points(fight, 1) == [400, 300, 400, 400]
    fight = Fight()
    fight.act(SPRAY, active=True, target=0)
    # 70 each; eel and sunfish keep 49 and share 21 among three mates, 7 each.
    assert hit_points(fight, 1) == [400 - 70 - 14, 400 - 70 - 14, 400 - 49 - 7, 400 - 49 - 7]
    fight = Fight()
    report = fight.act(FLAME, active=True, target=SUNFISH)
    assert hit_points(fight, 0) == [400, 400, 400, 325]
    assert (fight.teams[0][FLAME].attack, report.kind) == (340, "infight")


def test_mates_strike_back_for_a_fish_that_is_low() -> None:
    fight = Fight()
    fight.teams[1][SPRAY].hp = 200
    report = fight.act(EEL, active=False, target=SPRAY)
    # Below 120 only flame strikes back: the struck spray itself does not.
    assert hit_points(fight, 0) == [400, 400, 370, 400]
    assert report.passives == [(SPRAY, "counter")]


def test_wounds_raise_the_attack_of_a_deflecting_fish() -> None:
    fight = Fight()
    for _ in range(3):
        fight.act(FLAME, active=True, target=EEL)
    eel = fight.teams[0][EEL]
    assert (eel.hp, eel.attack, eel.wound) == (175, 240, 25)
    assert not fight.can_act(FLAME, active=True, target=FLAME)


def test_a_right_guess_hurts_all_and_is_made_once() -> None:
    fight = Fight()
    assert not fight.guess(2, "spray")
    assert fight.guess(2, "eel")
    assert hit_points(fight, 1) == [350] * 4
    assert not fight.can_guess(2)


def test_at_the_limit_more_fish_then_more_points_then_the_second_side_win() -> None:
    fight = Fight()
    fight.turns = TURN_LIMIT
    assert fight.winner() == 1
    fight.teams[1][0].hp -= 1
    assert fight.winner() == 0
    fight.teams[0][0].hp, fight.teams[0][0].dead = 0, True
    assert fight.winner() == 1
    for fish in (*fight.teams[0], *fight.teams[1]):
        fish.dead = True
    assert fight.winner() == fight.turn


@given(st.integers(0, 10**6))
@example(4316)  # A right guess meets fish that fell far below 0.
@settings(max_examples=40, deadline=None)
def test_every_game_of_the_baselines_ends_by_the_rules(seed: int) -> None:
    random, fight = Random(seed), Fight()
    players = [BASELINES[random.choice(list(BASELINES))](random) for _ in range(2)]
    reports: list = [None, None]
    while fight.winner() is None:
        side = fight.turn
        before = points_left(fight)
        if guess := players[side].guess(fight):
            assert fight.can_guess(guess[0])
            fight.guess(*guess)
        if fight.winner() is not None:
            break
        move = players[side].act(fight, reports[1 - side])
        assert fight.can_act(*move)
        reports[side] = fight.act(*move)
        assert points_left(fight) < before
        for team in fight.teams:
            assert all(fish.dead == (fish.hp <= 0) for fish in team)
            assert all(fish.wound < 200 and fish.attack >= 200 for fish in team)
        if fight.winner() is None:
            fight.end_turn()
    assert fight.turns <= TURN_LIMIT
    assert not all(map(living, fight.teams)) or fight.turns == TURN_LIMIT


def test_the_oracle_wins_all_200_games_the_same_way_each_time() -> None:
    evaluator = make("card_game", SuiteSettings())
    items = evaluator.items()
    assert len(set(items)) == 200
    assert Counter(item.rsplit("-", 1)[0] for item in items[:40]) == dict.fromkeys(
        {item.rsplit("-", 1)[0] for item in items}, 10
    )
    games = play(load_held_out("card_game"), items, OraclePolicy())
    assert [(game.reward, game.exit_reason, game.error) for game in games] == [
        (1.0, "won", "")
    ] * 200
    again = play(load_held_out("card_game"), items[:8], OraclePolicy())
    assert [game.messages for game in again] == [game.messages for game in games[:8]]


def test_who_gives_no_move_loses_after_five_tries_or_the_same_one() -> None:
    for turns, rounds in ((["I do not know."], 3), ([f"Hm, {n}" for n in range(9)], 6)):
        spec, task = load_held_out("card_game"), "card_game-test-baseline1-first-00"
        game = play(spec, [task], ScriptedPolicy(turns))[0]
        assert (game.exit_reason, game.reward, game.num_rounds) == ("bad_action", 0.0, rounds)
        assert game.valid_rounds == 0


def test_turns_are_read_as_the_first_move_that_is_allowed() -> None:
    dialogue = load_held_out("card_game").make()
    dialogue.reset(options={"task_id": "card_game-test-baseline2-first-00"})
    guess = (
        "{'guess_type': 'eel', 'target_position': 9} or {'guess_type': 'eel', 'target_position': 2}"
    )
    assert json.loads(dialogue.parse(guess) or "")["target_position"] == 2
    text, _, _, _, info = dialogue.step(guess)
    assert info["valid_format"]
    assert '"your_last_guess": "right"' in text
    assert '"fish": "?", "hp": 350' in text
    text, _, over, _, info = dialogue.step(
        '{"pick_fish": "flame", "action": "active", "target_position": 1}'
    )
    assert (over, info["valid_format"]) == (False, False)
    assert "not a move that the rules allow" in text


def test_the_enemy_is_not_shown() -> None:
    world = CardGameEnvironment()
    seen = json.loads(world.reset(options={"split": "test", "index": 0})[0])
    assert all(fish["fish"] == "?" and "attack" not in fish for fish in seen["enemy"])
    assert [fish["fish"] for fish in seen["you"]] == list(FISH)
    with pytest.raises(ConfigError, match="unknown"):
        world.reset(options={"task_id": "card_game-test-x-first-00"})
    with pytest.raises(ConfigError, match="option 'sed' is unknown"):
        make("card_game", SuiteSettings(options={"card_game": {"sed": 1}}))


def test_a_real_model_plays(tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    found = run_evaluator(
        make("card_game", SuiteSettings(max_new_tokens=6)), EvalTarget(model, tokenizer), limit=2
    )
    assert (found.metrics["success"].value, found.num_errors) == (0.0, 0)
    # This tokenizer makes a token of nearly every character: the context may end the game.
    assert {record["exit_reason"] for record in found.records} <= {"bad_action", "context_full"}
