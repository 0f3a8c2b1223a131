"""Figures that README, recipes and docs state are those of benchmarks/results.

A claim is a sentence or a table row of a page, written here with the figures of a result file
put in. A page that names a result file has at least one claim on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import study_plot
from benchmarks.invariants import table
from benchmarks.study_tables import MARK, filled, pages

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"

Claims = Iterator[tuple[str, str]]
"""Pages, relative to the checkout, and what each has to say; blanks do not count."""


def load(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def numbers(name: str, line: str) -> list[float]:
    """The numbers of a text result's line, after the words that it begins with."""
    for found in (RESULTS / name).read_text("utf-8").splitlines():
        if (words := " ".join(found.split())).startswith(line):
            rest = words.removeprefix(line)
            return [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*", rest)]
    raise AssertionError(f"{name} has no line {line!r}")


def support_desk() -> Claims:
    page, found = "examples/support_desk/README.md", load("support_desk.json")
    success, loss = (found["figures"][n] for n in ("support_desk success", "general loss"))
    low, high = (100 * success["change"][end] for end in ("low", "high"))
    gained = 100 * (success["tuned"] - success["base"])
    yield (
        page,
        f"support_desk success ({success['n']}) {success['base']:.1%} {success['tuned']:.1%} "
        f"{gained:+.1f} pts [{low:+.1f}, {high:+.1f}]",
    )
    base, tuned = loss["base"], loss["tuned"]
    low, high = (100 * loss["change"][end] / base for end in ("low", "high"))
    yield page, f"{base:.3f} {tuned:.3f} {100 * (tuned - base) / base:+.1f} % "
    yield page, f"[{low:+.1f}, {high:+.1f}]"

    def solved(chosen: Callable[[Any], bool]) -> tuple[int, int]:
        cases = [case for case in found["by_case"] if chosen(case)]
        return sum(case["solved"] for case in cases), sum(case["tasks"] for case in cases)

    def is_marked(case: Any) -> bool:
        return "days ago" in case["refusal"] or "final sale" in case["refusal"]

    allowed = solved(lambda case: case["action"] == "refund" and not case["refusal"])
    yield page, f"It solves {allowed[0]} of {allowed[1]} allowed refunds"
    others = solved(lambda case: case["refusal"] and not is_marked(case))
    yield page, f"refuses {others[0]} of {others[1]} cases"
    marked = solved(is_marked)
    yield (
        page,
        f"of {marked[1]} refunds that came too late or were a final sale it refused {marked[0]}",
    )
    cancelled = solved(lambda case: case["action"] != "refund" and not case["refusal"])
    yield page, f"not learned to cancel: {cancelled[0]} of {cancelled[1]}"
    played, kept = found["served"]["evaluate"], found["served"]["collect"]
    yield page, f"{played['identical_dialogues']} of {played['n']} dialogues"
    yield (
        page,
        f"kept {kept['kept']} of {kept['tasks']} trajectories, with {kept['tool_calls']} tool "
        "calls",
    )


def demo_seeds() -> Claims:
    runs = load("demo_seeds.json")["runs"]
    assert [run["seed"] for run in runs] == [42, 1, 2]
    for label, entry in runs[0]["figures"].items():
        base, tuned, low, high = (
            *(entry["base"], entry["tuned"]),
            *(entry["change"]["low"], entry["change"]["high"]),
        )
        if label == "general loss":
            change = [100 * part / base for part in (tuned - base, low, high)]
            yield "README.md", f"{base:.3f} {tuned:.3f} {change[0]:+.1f} % "
            yield "README.md", f"[{change[1]:+.1f}, {change[2]:+.1f}]"
        else:
            change = [100 * part for part in (tuned - base, low, high)]
            yield (
                "README.md",
                (
                    f"{label} (32) {base:.1%} {tuned:.1%} "
                    f"{change[0]:+.1f} pts [{change[1]:+.1f}, {change[2]:+.1f}]"
                ),
            )
    found = [run["figures"]["database success"]["tuned"] for run in runs]
    whole = [f"{100 * value:.1f}" for value in found]
    yield "README.md", f"reach a success of {whole[0]}, {whole[1]} and {whole[2]} %"
    yield (
        "recipes/README.md",
        (f"from 0.00 to {found[0]:.2f} (seeds 1, 2: {found[1]:.2f}, {found[2]:.2f})"),
    )
    yield "recipes/demo.yaml", f"from 0.00 to between {min(found):.2f} and {max(found):.2f}"


def packing() -> Claims:
    page = "docs/concepts/packing.md"
    for stated, line in {
        "ours": "ours ",
        "ours, dealt to batches of 64": "ours, dealt to batches of 64",
        "Axolotl's multipack sampler": "axolotl multipack sampler",
        "its compiled loop alone": "axolotl kernel alone",
        "TRL's `pack_dataset`, bfd": "trl pack_dataset bfd",
        "ours, every token fetched once": "ours, tokens fetched",
        "TRL's, every token fetched once": "trl, tokens fetched",
    }.items():
        bins, fill, seconds, _ = numbers("packing.txt", line)
        yield page, f"| {stated} | {bins:,.0f} | {fill:.4f} | {seconds:.3f} |"
    for stated, line in {
        "ours": "ours, window 1000",
        "ours, not dealt": "ours, not dealt",
        "first fit, windows of 1,000": "first fit, windows of 1000",
        "first fit, all at once (Axolotl's own)": "first fit, all (axolotl's own)",
    }.items():
        batch, fill, sd, most, trained_sd, trained_most, *_ = numbers("packing.txt", line)
        assert batch == 64
        small = numbers("packing.txt", f"{line} 8 ")
        yield (
            page,
            (
                f"| {stated} | {fill:.4f} | {sd:.3f} / {most:.3f} | {trained_sd:.3f} / "
                f"{trained_most:.3f} | {small[1]:.3f} / {small[2]:.3f} |"
            ),
        )


def tokenize_mask() -> Claims:
    for stated, line in {
        "fast": "ours, fast engine",
        "Hugging Face": "ours, Hugging Face engine",
    }.items():
        seconds, *_, axolotl, trl, _ = numbers("tokenize_mask.txt", line)
        yield (
            "docs/concepts/masks.md",
            (f"| {stated} engine | {seconds:.1f} | {axolotl:.1f} times | {trl:.1f} times |"),
        )


def evaluate() -> Claims:
    ways = {way["name"]: way for way in load("evaluate.json")["ways"]}
    ratio = ways["lockstep, prefixes reused"]["ratio_wall"]
    turns = ways["lockstep, prefixes reused"]["turns"]
    yield (
        "docs/concepts/evaluation-speed.md",
        (f"{turns} episodes {ratio:.1f} times as fast as one by one"),
    )


def evaluate_peers() -> Claims:
    page = "docs/concepts/evaluation-speed.md"
    ways = {way["name"]: way for way in load("evaluate_peers.json")["ways"]}
    for name, row in {
        "generate, one by one": "`generate`, one by one",
        "generate, left-padded": "`generate`, batch padded on the left",
        "generate_batch": "`generate_batch` (continuous batching)",
        "ours, nothing reused": "ours, nothing reused",
        "ours, prefixes reused": "ours, prefixes reused",
    }.items():
        yield page, f"| {row} | {ways[name]['cpu']:.1f} s | {ways[name]['ratio_cpu']:.2f} |"
    ours, theirs = ways["ours, prefixes reused"], ways["generate_batch"]
    yield page, f"takes {ours['cpu'] / theirs['cpu']:.2f} of the CPU time of `generate_batch`"
    yield page, f"({ours['wall']:.1f} and {theirs['wall']:.1f} s)"


def evaluate_stacks() -> Claims:
    text = (RESULTS / "evaluate_stacks.txt").read_text("utf-8")
    first, second = re.findall(r"prefixes reused.*: +([\d.]+) x", text)
    yield (
        "docs/concepts/evaluation-speed.md",
        (f"{float(first):.1f} times with transformers 5.16, {float(second):.1f} times with 5.24"),
    )


def replay_calibration() -> Claims:
    page = "docs/tasks/replay.md"
    for name in ("first_divergence", "action_match", "turn_logprob", "action_logprob", "parsable"):
        text = (RESULTS / "replay_calibration.txt").read_text("utf-8").partition("Pearson")[2]
        pearson, spearman = re.findall(rf"{name} +\+([\d.]+) \+([\d.]+)", text)[0]
        yield page, f"| `{name}` | {float(pearson):.2f} | {float(spearman):.2f} |"
    success, match, *_ = numbers("replay_calibration.txt", "35.000")
    yield page, f"fell to {success:.2f} while `action_match` stayed at {match:.2f}"


def mixing() -> Claims:
    found = load("mixing.json")
    even, speed = found["evenness"], found["speed"]
    ours, theirs = even["stratified"], even["interleave_datasets"]
    yield (
        "docs/concepts/mixing.md",
        (
            f"{speed['stratified']['ratio']:.0f} times slower, {theirs['fewest']} to "
            f"{theirs['most']} agent rows in a batch of 64 where `stratified` has "
            f"{ours['fewest']} or {ours['most']}"
        ),
    )
    rates = [
        way["positions"] / way["cpu_s"] / 1e6
        for name, way in speed.items()
        if name not in ("interleave_datasets", "a mix as a data set")
    ]
    yield (
        "docs/concepts/mixing.md",
        (
            f"({found['random_access_ms']:.1f} ms alone; {min(rates):.1f} to "
            f"{max(rates):.1f} million"
        ),
    )


def collect() -> Claims:
    rate, share = numbers("collect.txt", "over all:")[:2]
    peak = numbers("collect.txt", "resident memory:")[1]
    yield (
        "docs/guides/collect.md",
        (f"{rate:.0f} requests per second ({share:.0f} % of the server's limit) in {peak:.0f} MiB"),
    )


def os_replay() -> Claims:
    passed, tasks = numbers("os_replay.txt", "test:")[:2]
    trained, of = numbers("os_replay.txt", "train:")[:2]
    yield (
        "docs/tasks/held-in/os.md",
        (f"{passed:.0f} of {tasks:.0f} test tasks and {trained:,.0f} of {of:,.0f} training tasks"),
    )


def outside() -> Claims:
    page, name = "docs/tasks/outside.md", "outside.txt"
    (number,), (solved,) = numbers(name, "datasets:"), numbers(name, "oracle scores 1")[-1:]
    yield page, f"Of the {number:.0f} datasets of version 0.1.25 the oracle solves two tasks each"
    yield page, f"in {solved:.0f} (`"
    for task in ("leg_counting", "chain_sum", "spell_backward", "number_sorting"):
        assert numbers(name, f"oracle {task}:") == [20, 20]
    yield page, "give 20 of 20"
    for task in ("chain_sum", "spell_backward"):
        won, played, without = numbers(name, f"SmolLM2-135M-Instruct {task}:")
        assert without == played
        yield page, f"{won:.0f} of {played:.0f} in `{task}`"


def agentinstruct_faults() -> Claims:
    page, found = "docs/guides/data.md", load("agentinstruct_faults.json")
    rows = {name: split["rows"] for name, split in found["splits"].items()}
    shell, read = found["splits"]["os"], found["mind2web"]
    card = sum(split["card"] for split in found["splits"].values())
    clean = [n for n, split in found["splits"].items() if set(split) == {"rows", "card"}]
    assert clean == ["db", "alfworld", "webshop", "kg"]
    yield page, f"{shell['terminal_sequences']} turns of {rows['os']} `os` rows"
    yield page, f"{shell['earlier_task']} of {rows['os']} `os` rows"
    yield page, f"{found['splits']['mind2web']['foreign_thought']} of {rows['mind2web']} `mind2web`"
    yield page, f"The copy has {sum(rows.values())} of the {card:,} rows"
    own, foreign, unclear = (read["read"][kind] for kind in ("own", "foreign", "unclear"))
    yield page, f"the {read['rows']} rows: {foreign} are about another task, {own} about their own"
    yield page, f"{unclear} is unclear. The rule finds the {foreign} and none of the others"
    assert read["flagged"] == {"foreign": foreign, "unclear": 0, "own": 0}
    swapped = read["swapped"]
    yield page, f"Of {swapped['pairs']} answers swapped between tasks it finds {swapped['flagged']}"


def memory() -> Claims:
    for name, row in load("memory.json")["rows"].items():
        sizes = " | ".join(f"{row[key] / 1e6:,.0f}" for key in ("predicted", "measured"))
        yield "docs/concepts/memory.md", f"| {name} | {sizes} | {row['ratio']:.3f} |"


def serving() -> Claims:
    page, ways = "docs/guides/serving.md", load("serving.json")["ways"]
    assert not any(way["differences"] for way in ways.values())
    for name, label in (
        ("transformers serve, merged", "merged, `transformers serve`"),
        ("vLLM, merged", "merged, vLLM"),
        ("vLLM, base and LoRA", "base and LoRA, vLLM"),
    ):
        yield page, f"| {label} | {ways[name]['identical']} of {ways[name]['episodes']} |"


def invariants() -> Claims:
    page, found = "docs/concepts/invariants.md", load("invariants.json")
    assert not [name for name, run in found.items() if run["missed"]]
    for line in table(found).splitlines():
        yield page, line


def source_loss() -> Claims:
    page, (nll, chunked) = "docs/guides/loss-by-source.md", load("source_loss.json")["runs"]
    shares = sorted(100 * run["own_share"] for run in (nll, chunked))
    yield page, f"take {shares[0]:.2f} to {shares[1]:.2f} % of the time of a step"
    assert (nll["loss_type"], nll["adapter"]) == ("nll", False)
    yield page, f"was {nll['ratio']:.2f} (`nll`, full) and {chunked['ratio']:.2f} (`chunked_nll`"
    ranges = [run["ratio_range"] for run in (nll, chunked)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    yield page, f"single pairs range from {low:.2f} to {high:.2f}"


def study_eta_greedy() -> Claims:
    said = []
    for name in ("greedy replay", "sharegpt"):
        arm = load("study_eta_greedy.json")["arms"][name]
        before, after = (arm["general loss"][f"step {step}"]["value"] for step in (0, 48))
        kl = arm["general_kl kl"]["step 48"]["value"]
        said.append((f"KL {kl:.2f}", f"chat loss {after - before:+.2f}"))
    (greedy, greedy_loss), (chat, chat_loss) = said
    yield (
        "docs/studies/eta.md",
        f"({greedy}, {greedy_loss}) than ShareGPT did ({chat}, {chat_loss};",
    )
    yield "docs/studies/eta.md", "benchmarks/results/study_eta_greedy.json"


def study_items() -> Claims:
    for path in pages():
        page = filled(path.read_text("utf-8"))
        yield from ((str(path.relative_to(ROOT)), match[0]) for match in MARK.finditer(page))


def study_rounds() -> Claims:
    found = load("study_rounds.json")
    success = [found["start"]["database"], *(r["figures"]["database"] for r in found["rounds"])]
    losses = [found["start"]["general"], *(r["figures"]["general"] for r in found["rounds"])]
    rises = ", ".join(f"{100 * each['value']:.1f}" for each in success)
    p_values = " and ".join(f"{r['p_value']:.3f}" for r in found["rounds"])
    costs = ", ".join(f"{each['value']:.3f}" for each in losses)
    base = found["base"]["general"]["value"]
    assert all(r["accepted"] for r in found["rounds"])
    figures, (rise, _, loss, _) = found["control"]["figures"], found["control"]["changes"]
    control = f"{100 * figures['database']['value']:.1f} %"
    value, low, high = (100 * rise[name] for name in ("value", "low", "high"))
    difference = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    for page in ("docs/methods/rounds.md", "docs/studies/eta.md"):
        yield page, f"{rises} % of {success[0]['n']} tasks on unseen schemas (p {p_values})"
        yield page, f"general loss {costs}, the base's {base:.3f}"
        yield page, "benchmarks/results/study_rounds.json"
        yield page, f"{control}, {difference}, p {rise['p_value']:.3f}"
        yield page, f"general loss {figures['general']['value']:.3f}, p {loss['p_value']:.3f}"
    yield "docs/studies/eta-tables.md", "benchmarks/results/study_rounds.json"
    kept = " and ".join(
        f"{r['collect']['kept']} of {r['collect']['tasks']}" for r in found["rounds"]
    )
    yield "docs/methods/rounds.md", f"They kept {kept} training tasks"


SOURCES: dict[str, Callable[[], Claims]] = {
    "support_desk.json": support_desk,
    "demo_seeds.json": demo_seeds,
    "packing.txt": packing,
    "tokenize_mask.txt": tokenize_mask,
    "evaluate.json": evaluate,
    "evaluate.txt": evaluate,
    "evaluate_peers.json": evaluate_peers,
    "evaluate_peers.txt": evaluate_peers,
    "evaluate_stacks.txt": evaluate_stacks,
    "replay_calibration.txt": replay_calibration,
    "mixing.json": mixing,
    "collect.txt": collect,
    "os_replay.txt": os_replay,
    "outside.txt": outside,
    "agentinstruct_faults.json": agentinstruct_faults,
    "memory.json": memory,
    "serving.json": serving,
    "invariants.json": invariants,
    "source_loss.json": source_loss,
    "study_eta_greedy.json": study_eta_greedy,
    "study_eta_items.json": study_items,
    "study_methods_items.json": study_items,
    "study_rounds.json": study_rounds,
}


def said(page: str) -> str:
    """A page's text with single blanks, comment marks of YAML left out."""
    return " ".join((ROOT / page).read_text("utf-8").replace("\n#", "\n").split())


@pytest.mark.parametrize("name", SOURCES)
def test_pages_state_the_measured_figures(name: str) -> None:
    claims = [(page, " ".join(claim.split())) for page, claim in SOURCES[name]()]
    assert claims
    assert not [(page, claim) for page, claim in claims if claim not in said(page)]


def test_the_studys_plot_shows_the_committed_scores() -> None:
    assert study_plot.FILE.read_text("utf-8") == study_plot.plot_svg()


def test_a_page_that_names_a_result_has_a_claim_on_it() -> None:
    assert set(SOURCES) <= {path.name for path in RESULTS.iterdir()}
    claimed = {(page, name) for name, claims in SOURCES.items() for page, _ in claims()}
    pages = (
        path for part in ("docs", "recipes", "examples") for path in ROOT.glob(f"{part}/**/*.md")
    )
    for path in [ROOT / "README.md", *pages]:
        page = str(path.relative_to(ROOT))
        for name in re.findall(r"benchmarks/results/([\w.]+)", path.read_text("utf-8")):
            assert (page, name) in claimed


def test_a_gpu_is_promised_only_as_not_yet_measured() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*")]
    for path in pages:
        text = " ".join(path.read_text("utf-8").replace("\n#", "\n").split())
        for rest in re.findall(r"[Ww]ith a GPU the same command uses it(.{0,40})", text):
            assert "not yet measured" in rest
