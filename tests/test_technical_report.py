"""The technical report: its numbers are those of the published tables, and what is not published stands in it as not finished.

A failure of a number or of a verdict means that a table has changed: read the section that is named, and write it anew.
"""

import math
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from docs.answers import MAPS
from docs.report import FILTER, FLOW, FORECAST, HALF_WIDTHS, NO_MAP, SETUPS, SUITES, UNFINISHED, forecasts, with_report
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.report.differences import COMPUTE, SIMPLE, STEPS
from indm.report.grades import BETTER, NOT_BETTER, UNDECIDED, WORSE
from indm.report.intervals import TAIL, Interval, by_cluster, interval
from indm.report.multiples import Trained, read_multiples
from indm.report.names import REFERENCE
from indm.report.registrations import load_registrations
from indm.report.rows import read_rows, records
from indm.store.files import write_table
from tests.conftest import REPOSITORY
from tests.test_publish import costs

PUBLISHED, PARAMS = REPOSITORY / "docs/results", REPOSITORY / "params"
PAGE = (REPOSITORY / "docs/report.md").read_text()
# The suite that stands for a longer one of the same models, where results have to be made up.
SIMILAR = "cifar10-3000"
# The suites of each dataset at its two lengths.
PAIRS = {"CIFAR-10": ("cifar10-1000", "cifar10-3000"), "Fashion-MNIST": ("fashion-full", "fashion-long")}
# The suites that were registered with forecasts.
CELEBA = "celeba64-6000"
LADDERS = ("cifar10-maps", CELEBA)
# How many comparisons each registered suite was forecast for.
ASKED = {
    "cifar10-maps": 5,
    CELEBA: 4,
    "cifar10-precondition": 4,
    "cifar10-length": 3,
    "fashion-filters": 3,
    "digits-filters": 3,
    "cifar10-exponents-v": 2,
}
# The commit that has the tables of the registered rules.
REGISTERED = "00be4c4"


def claims(suite: str) -> pd.DataFrame:
    return read_rows(PUBLISHED / suite / "tables/claims.csv")


def row(suite: str, claim: str, comparison: str, objective: str = "nll") -> dict[str, Any]:
    table = claims(suite)
    found = table[(table["id"] == claim) & (table["comparison"] == comparison) & (table["objective"] == objective)]
    (one,) = records(found)
    return one


def size(*place: str) -> str:
    """The effect of a row, without its sign."""
    return f"{abs(row(*place)['effect']):.3f}"


def prose(text: str) -> str:
    """The text without what is generated, equations, and the numbers of papers."""
    text = re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"\[(?:arXiv:)?\d{4}\.\d{5}\]\([^)]*\)|\]\([^)]*\)", "]", text).split())


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    return {title: prose(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}


def of_the_answer() -> set[str]:
    suites = (SIMILAR, "cifar10-maps", CELEBA, "fashion-full")
    leads = [size(suite, "better-nelbo", STEPS) for suite in suites]
    maps = [size(suite, "better-nelbo-maps", STEPS) for suite in (SIMILAR, "fashion-full")]
    steps = [f"{end(costs(suite)[0] for suite in suites):.1f}" for end in (min, max)]
    table = read_rows(PUBLISHED / SIMILAR / "tables/compute.csv").query("model == 'ddpmpp'").set_index("variant")
    flops = table["train_flops_per_step"]
    ladder = [size("cifar10-maps", f"better-nelbo-fixed-{it}", STEPS) for it in ("filter", "over-learned")]
    ladder.append(size(CELEBA, "better-nelbo-fixed-filter", STEPS))
    return {*leads, *maps, *steps, *ladder, f"{100 * (flops[MAPS] / flops[''] - 1):.1f}"} | of_the_figure()


def of_the_protocol() -> set[str]:
    smallest = {it.id: it.smallest.effect for it in load_claims(PARAMS / "claims.yaml").claims}
    return {f"{smallest['better-nelbo']:g}", f"{smallest['lower-fid']:g}", f"{100 * TAIL:g}"}


def of_the_figure() -> set[str]:
    """Of the fixed filter and of INDM's flow: the gain over no map, and FLOPs and time of a step."""
    table = read_rows(PUBLISHED / "cifar10-maps/tables/compute.csv").set_index(["model", "variant"])
    relative = (
        table[["train_flops_per_step", "ms_per_step"]] / table.loc[NO_MAP, ["train_flops_per_step", "ms_per_step"]]
    )
    costs = relative.loc[[(REFERENCE, FILTER), FLOW]].to_numpy().ravel()
    leads = [size("cifar10-maps", claim, STEPS) for claim in ("better-nelbo-fixed-filter", "better-nelbo")]
    return {*leads, *(f"{cost:.2f}" for cost in costs)}


def of_digits() -> set[str]:
    """The verdicts on a filter, and on a curve and filter as a maintainer confirmed them, against DDPM++."""
    folder = REPOSITORY / "docs/records/digits"
    rows = [
        read_rows(folder / name / "verdicts.csv").set_index("against").loc["ddpmpp"]
        for name in ("filter", "curve-filter/confirmed")
    ]
    assert [row["verdict"] for row in rows] == [NOT_BETTER, BETTER]
    return {f"{abs(row[end]):.3f}" for row in rows for end in ("effect", "low", "high")}


def of_nonlinearity() -> dict[str, dict[str, Any]]:
    """What a learned curve adds to a learned filter, and to no map; both are better."""
    claims = {"filter": "better-nelbo-curve-with-filter", "no map": "better-nelbo-curve"}
    found = {over: row("cifar10-maps", claim, STEPS) for over, claim in claims.items()}
    assert {it["verdict"] for it in found.values()} == {BETTER}
    return found


def of_cifar10() -> set[str]:
    flow = read_rows(PUBLISHED / SIMILAR / "tables/flow.csv").set_index(["model", "variant"])["midpoint"]
    assert flow["indm", ""] < flow["ddpmpp", MAPS]
    behind = size(SIMILAR, "better-nelbo-behind-maps", STEPS)
    added = {f"{of_nonlinearity()['filter'][end]:.3f}" for end in ("effect", "low", "high")}
    return {behind, f"{100 * (1 - flow['ddpmpp', MAPS]):.1f}"} | added


DECODED = {
    "digits, `nll`": ("digits-seeds", "nll"),
    "digits, `fid`": ("digits-seeds", "fid"),
    "Fashion-MNIST, `nll`": ("fashion-full", "nll"),
    "Fashion-MNIST, `fid`": ("fashion-full", "fid"),
    "four times the steps, `nll`": ("fashion-long", "nll"),
}
OTHERS = {STEPS: ("ddpmpp", ""), COMPUTE: ("ddpmpp", "same-compute"), SIMPLE: ("ddpmpp", MAPS)}


def with_fixed_decoder(suite: str, objective: str, comparison: str) -> Interval:
    """The flow's lead in NELBO where all models have the fixed decoder, with the interval of a primary comparison.

    If images come in clusters, the interval is over clusters, as in the table of claims.
    """
    images = read_rows(PUBLISHED / suite / "tables/images.csv.gz")
    images = images[(images["stage"] == "nll") & (images["objective"] == objective)]
    flow, other = (
        images[(images["model"] == model) & (images["variant"] == variant)].pivot(
            index="seed", columns="image", values="nelbo_fixed"
        )
        for model, variant in (FLOW, OTHERS[comparison])
    )
    rows = load_suite(PARAMS / f"{suite}.yaml").grading.rows
    leads = (other - flow).dropna()
    paired = leads.to_numpy()
    if "cluster" in images:
        clusters = images.dropna(subset="cluster").drop_duplicates("image").set_index("image")["cluster"]
        paired = by_cluster(paired, clusters.loc[leads.columns].to_numpy())
    return interval(paired, TAIL / (3 * rows))


@cache
def as_registered(suite: str) -> pd.DataFrame:
    """The claims of a suite by the rules of its registration, as git has them."""
    place = f"{REGISTERED}:docs/results/{suite}/tables/claims.csv"
    found = subprocess.run(["git", "show", place], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no {place} in this clone")
    table = pd.read_csv(StringIO(found.stdout))
    return table[table["id"] == "better-nll"].set_index("objective")


def lead(effect: float, low: float, high: float) -> str:
    return f"{effect:.3f} [{low:.3f}, {high:.3f}]".replace("-", "−")


def by_decoder() -> dict[str, list[str]]:
    """The rows of the table of decoders: leads by the registered rules, and with the fixed decoder."""
    rows = {}
    for title, place in DECODED.items():
        ends = [[f"{kind}{end}" for end in ("effect", "low", "high")] for kind in ("", "control_")]
        old = as_registered(place[0]).loc[place[1]]
        registered = ", ".join(lead(*old[columns]) for columns in ends)
        fixed = ", ".join(lead(*with_fixed_decoder(*place, kind)[:3]) for kind in (STEPS, COMPUTE))
        rows[title] = [registered, "in its table" if place[1] == "fid" else fixed]
    return rows


def of_decoders() -> set[str]:
    """The numbers of the table, and the lead on digits under VE, which would be better."""
    found = with_fixed_decoder("digits-ve", "fid", COMPUTE)
    assert found.low > 0.01
    mine = {f"{found.effect:.3f}", f"{found.low:.3f}", f"{found.high:.3f}"}
    return mine | {number for row in by_decoder().values() for cell in row for number in re.findall(r"\d\.\d+", cell)}


def leads_of(suite: str, comparison: str) -> "pd.Series[float]":
    """The flow's lead in NELBO on each seed."""
    table = read_rows(PUBLISHED / suite / "tables/differences.csv")
    mine = table[(table["id"] == "better-nelbo") & (table["objective"] == "nll")]
    return mine[mine["comparison"] == comparison].set_index("seed")["difference"]


def of_both_sides() -> set[str]:
    """How the flow's deficit at equal compute shrinks, by Welch's interval, and its leads on a curved density.

    And its lead over its own frozen flow on digits.
    """
    (frozen,) = records(
        claims("digits-seeds").query("id == 'better-nelbo' and objective == 'nll' and against == 'indm frozen-flow'")
    )
    assert frozen["verdict"] == UNDECIDED
    numbers = {f"{frozen[end]:.3f}" for end in ("effect", "low", "high")}
    for short, long in PAIRS.values():
        test = stats.ttest_ind(leads_of(long, COMPUTE), leads_of(short, COMPUTE), equal_var=False)
        change = leads_of(long, COMPUTE).mean() - leads_of(short, COMPUTE).mean()
        numbers |= {f"{value:.3f}" for value in (change, *test.confidence_interval())}
    curved = claims("densities").query("id == 'better-nelbo-known' and dataset.str.startswith('swirled-8d')")
    leads = curved[curved["comparison"].isin([COMPUTE, SIMPLE])]["effect"]
    numbers |= {f"{it['effect']:.3f}" for it in of_nonlinearity().values()}
    return numbers | {f"{leads.min():.2f}", f"{leads.max():.2f}"}


def of_the_share() -> set[str]:
    """The forecast stands in the note of the registration, and a loss that is excluded is beyond the interval."""
    note = load_registrations(PARAMS / "registrations.yaml").suites["digits-share"].note
    (ends,) = re.findall(r"Forecast: ([\d.]+) worse \[-([\d.]+), ([\d.]+)\], undecided", note)
    found = row("digits-share", "log-det-share", STEPS)
    assert -found["low"] < 0.01
    return {*ends, f"{-found['effect']:.3f}", "0.01"}


def of_the_objections() -> set[str]:
    """FLOPs and time of a step of INDM with an eighth of the log-determinants."""
    table = read_rows(PUBLISHED / "cifar10-maps/tables/compute.csv").set_index(["model", "variant"])
    flow, plain = (
        table.loc[model, ["train_flops_per_step", "ms_per_step"]].to_numpy(float) for model in (FLOW, NO_MAP)
    )
    return {f"{cost:.2f}" for cost in flow / plain}


def of_the_limits() -> set[str]:
    """The parameters of the largest network, and how far bounds lie apart at rates a few percent apart."""
    sizes = {f"{max(costs(suite)[1] for suite, objective in IMAGES if objective == 'nll'):.2f}"}
    trials = read_rows(PUBLISHED / "cifar10-search/tables/tuning.csv").query("variant == '' and trial in [0, 3]")
    rates, bounds = (trials.groupby("model")[column].agg(["min", "max"]) for column in ("lr", "target"))
    assert {*(rates["max"] / rates["min"]).round(2)} == {1.07}
    flow = trials.query("model == 'indm'")["flow_lr"]
    assert re.findall(r"flow's rate by (\d+) %", sections()["Limits"]) == [f"{100 * (flow.max() / flow.min() - 1):.0f}"]
    scales = read_rows(PUBLISHED / "cifar10-maps/tables/flow.csv").set_index("variant").loc["learned-curve"]
    scale = {f"{scales[f'gain_{band}']:.1f}" for band in range(1, 7)}
    return sizes | {f"{apart:.2f}" for apart in bounds["max"] - bounds["min"]} | of_rates_on_digits() | scale


def of_rates_on_digits() -> set[str]:
    """How far the bounds of two trials of INDM lie apart, at most, whose rates differ by 5 %."""
    trials = read_rows(PUBLISHED / "digits-search/tables/tuning.csv")
    ours = trials.query("model == 'indm' and objective == 'nll' and phase == 'short'").sort_values("lr")
    close = (ours["lr"] / ours["lr"].shift()).between(1.04, 1.06)
    return {f"{ours['target'].diff().abs()[close].max():.2f}"}


def of_predictions() -> set[str]:
    """The fixed filter's gain for networks that predict v, and the noise; and the verdicts on predicting v."""
    verdicts = [row("cifar10-maps", f"better-nelbo-v{where}", STEPS)["verdict"] for where in ("", "-behind-filter")]
    assert verdicts == [NOT_BETTER, WORSE]
    return {size("cifar10-maps", f"better-nelbo-{it}", STEPS) for it in ("filter-with-v", "fixed-filter")}


DECIMALS: dict[str, Callable[[], set[str]]] = {
    "Question and answer": of_the_answer,
    "8×8 digits": of_digits,
    "Photographs": of_cifar10,
    "The choice of decoder": of_decoders,
    "Forecasts": of_the_share,
    "What favours the paper, and what does not": of_both_sides,
    "Map or network, and where a filter helps": of_predictions,
    "What the paper's author would object to": of_the_objections,
    "Limits": of_the_limits,
    "Method": of_the_protocol,
}


@pytest.mark.parametrize("title", sections())
def test_each_decimal_of_a_section_is_that_of_its_row(title: str) -> None:
    expected = DECIMALS.get(title, set)()
    assert set(re.findall(r"\b\d+\.\d+\b", sections()[title])) == expected


def test_every_section_with_decimals_is_there() -> None:
    assert DECIMALS.keys() <= sections().keys()


def test_the_table_of_decoders_has_the_leads_of_both_rules() -> None:
    text = PAGE.partition("### The choice of decoder")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert {title: cells for title, *cells in rows[1:]} == by_decoder()


def over_curve_and_filter(suite: str) -> dict[str, Any]:
    """INDM over the learned curve and filter; it is the simple control where no fixed filter is."""
    asked = "id == 'better-nelbo' and objective == 'nll' and against == 'ddpmpp learned-curve-filter'"
    (found,) = records(claims(suite).query(asked))
    return found


def test_the_flow_is_worse_than_curve_and_filter_in_both_ladders() -> None:
    for suite in LADDERS:
        found = over_curve_and_filter(suite)
        assert (found["verdict"], found["family"]) == (WORSE, "exploratory")


def test_all_forecasts_held_and_four_intervals_are_wider() -> None:
    held, wider = [], 0
    for suite in LADDERS:
        note = load_registrations(PARAMS / "registrations.yaml").suites[suite].note
        ((_, widest),) = HALF_WIDTHS.findall(note)
        for it in forecasts(note):
            found = row(suite, it.asked.claim, it.asked.comparison)
            held.append(it.low <= found["effect"] <= it.high and found["verdict"] in it.verdict.split(" or "))
            wider += (found["high"] - found["low"]) / 2 > float(widest)
    assert (held, wider) == ([True] * 9, 4)


def test_the_fixed_decoder_decides_what_the_text_states() -> None:
    """Undecided and a lead at equal compute on Fashion-MNIST, on CIFAR-10 nothing; it helps the curve and filter."""
    smallest = 0.01
    short, long = (with_fixed_decoder(suite, "nll", COMPUTE) for suite in PAIRS["Fashion-MNIST"])
    assert short.low < smallest < short.high
    assert smallest < long.low
    for suite in (*PAIRS["CIFAR-10"], *LADDERS):
        steps, compute = (with_fixed_decoder(suite, "nll", kind) for kind in (STEPS, COMPUTE))
        assert steps.low < smallest < steps.high
        assert compute.high < -smallest
    for suite in (*PAIRS["CIFAR-10"], *PAIRS["Fashion-MNIST"], *LADDERS):
        assert with_fixed_decoder(suite, "nll", SIMPLE).effect < over_curve_and_filter(suite)["effect"]
    page = (PUBLISHED / CELEBA / "README.md").read_text()
    leads = [f"{abs(with_fixed_decoder(CELEBA, 'nll', kind).effect):.3f}" for kind in (STEPS, COMPUTE)]
    assert re.findall(r"would be (\d\.\d+), and its deficit at equal compute (\d\.\d+)", " ".join(page.split())) == [
        tuple(leads)
    ]


# What the text states in words: suite, claim, comparison, objective, verdict.
STATED = [
    *(("digits-seeds", "better-nelbo", *it) for it in ((STEPS, "nll", UNDECIDED), (STEPS, "fid", UNDECIDED))),
    *(("digits-seeds", "better-nelbo", *it) for it in ((COMPUTE, "nll", WORSE), (COMPUTE, "fid", UNDECIDED))),
    *(("digits-ve", "better-nelbo", *it) for it in ((STEPS, "fid", BETTER), (COMPUTE, "fid", UNDECIDED))),
    ("digits-ve", "better-nelbo", SIMPLE, "fid", BETTER),
    *((suite, "lower-fid", it, "fid", UNDECIDED) for suite in ("digits-seeds", "digits-ve") for it in (STEPS, COMPUTE)),
    *(("fashion-full", "better-nelbo", STEPS, objective, BETTER) for objective in ("nll", "fid")),
    *(("fashion-full", "better-nelbo", COMPUTE, objective, WORSE) for objective in ("nll", "fid")),
    *(("fashion-long", "better-nelbo", it, "nll", UNDECIDED) for it in (STEPS, COMPUTE)),
    ("fashion-full", "lower-fid", STEPS, "fid", UNDECIDED),
    ("fashion-full", "lower-fid", COMPUTE, "fid", NOT_BETTER),
    *((suite, "better-nelbo", STEPS, "nll", UNDECIDED) for suite in PAIRS["CIFAR-10"]),
    *((suite, "better-nelbo", COMPUTE, "nll", WORSE) for suite in PAIRS["CIFAR-10"]),
    (SIMILAR, "better-nelbo-behind-maps", STEPS, "nll", UNDECIDED),
    *((suite, "better-nelbo", kind, "nll", WORSE) for suite in LADDERS for kind in (COMPUTE, SIMPLE)),
    *((suite, "better-nelbo", STEPS, "nll", UNDECIDED) for suite in LADDERS),
    *((suite, "better-nelbo-fixed-filter", STEPS, "nll", BETTER) for suite in LADDERS),
    *((suite, "better-nelbo-fixed-over-learned", STEPS, "nll", UNDECIDED) for suite in LADDERS),
    *((suite, "better-nelbo-maps", STEPS, "nll", BETTER) for suite in LADDERS),
    *((suite, "better-nelbo", SIMPLE, "nll", WORSE) for suites in PAIRS.values() for suite in suites),
    *((suite, "better-nelbo-maps", STEPS, "nll", BETTER) for suites in PAIRS.values() for suite in suites),
]


@pytest.mark.parametrize("stated", STATED, ids=" ".join)
def test_verdicts_are_those_that_the_text_states(stated: tuple[str, str, str, str, str]) -> None:
    suite, claim, comparison, objective, verdict = stated
    assert row(suite, claim, comparison, objective)["verdict"] == verdict


IMAGES = [("digits-seeds", "nll"), ("digits-seeds", "fid"), ("digits-ve", "fid"), ("fashion-full", "nll")]
IMAGES += [("fashion-full", "fid"), ("fashion-long", "nll"), ("cifar10-1000", "nll"), (SIMILAR, "nll")]
IMAGES += [("cifar10-maps", "nll"), (CELEBA, "nll")]


@pytest.mark.parametrize("claim", ["better-nelbo", "better-nll"])
def test_the_flow_is_ahead_in_every_image_row_at_equal_steps(claim: str) -> None:
    """On CelebA, NLL was not measured."""
    measured = [it for it in IMAGES if claim == "better-nelbo" or it[0] != CELEBA]
    assert all(row(suite, claim, STEPS, objective)["effect"] > 0 for suite, objective in measured)


def test_the_fixed_filter_is_ahead_of_the_learned_map_on_each_seed_on_celeba() -> None:
    table = read_rows(PUBLISHED / CELEBA / "tables/differences.csv")
    mine = table[table["id"] == "better-nelbo-fixed-over-learned"]["difference"]
    assert (len(mine), (mine > 0).sum()) == (4, 4)


@pytest.mark.parametrize(
    ("suite", "claim", "objective", "seeds"),
    [
        ("cifar10-1000", "better-nelbo", "nll", 4),
        (SIMILAR, "better-nelbo", "nll", 4),
        ("cifar10-maps", "better-nelbo", "nll", 6),
        (CELEBA, "better-nelbo", "nll", 4),
        ("fashion-full", "lower-fid", "fid", 8),
    ],
)
def test_the_flow_is_ahead_on_each_seed_of_which_the_text_says_so(
    suite: str, claim: str, objective: str, seeds: int
) -> None:
    table = read_rows(PUBLISHED / suite / "tables/differences.csv")
    mine = table[(table["id"] == claim) & (table["comparison"] == STEPS) & (table["objective"] == objective)]
    assert (len(mine), (mine["difference"] > 0).sum()) == (seeds, seeds)


def test_images_are_those_that_the_text_states() -> None:
    """FID of few steps, by the same sampler, and behind curve and filter; and DDPM++ with the flow's parameters."""
    for claim in ("coarse-discretisation-ddim", "coarse-discretisation-dpm-solver"):
        for suite in ("digits-seeds", "fashion-full"):
            few = row(suite, claim, STEPS, "fid")
            assert (few["verdict"], few["effect"] > 0) == (UNDECIDED, True)
        longer = row("fashion-full", claim, COMPUTE, "fid")
        assert (longer["verdict"], np.exp(longer["effect"])) == (WORSE, pytest.approx(0.5, abs=0.05))
    seeds = 0
    for suite in PAIRS["Fashion-MNIST"]:
        values = read_rows(PUBLISHED / suite / "tables/values.csv").query("stage == 'fid' and metric == 'fid'")
        fid = values[values["objective"] == "nll"].pivot(index="seed", columns=["model", "variant"], values="value")
        behind = fid["ddpmpp", MAPS].dropna()
        assert (behind < fid[FLOW].loc[behind.index]).all()
        seeds += len(behind)
    assert seeds == 9
    same = "id == 'better-nelbo' and against == 'ddpmpp same-parameters' and objective == 'nll'"
    (wide,) = records(claims("digits-seeds").query(same))
    assert (wide["verdict"], wide["effect"] < 0) == (NOT_BETTER, True)


def of(suite: str, claim: str, comparison: str, verdict: str, against: str = "") -> tuple[int, int]:
    """Count the verdicts on known densities among the rows that have a number."""
    table = claims(suite)
    table = table[(table["id"] == claim) & (table["comparison"] == comparison) & table["effect"].notna()]
    table = table[table["against"] == against] if against else table
    return int((table["verdict"] == verdict).sum()), len(table)


def counted(title: str) -> list[tuple[int, int]]:
    return [(int(some), int(all_)) for some, all_ in re.findall(r"\b(\d+) of (\d+)\b", sections()[title])]


def test_counts_on_known_densities_are_those_of_their_rows() -> None:
    bound = [of("densities", "better-nelbo-known", kind, BETTER) for kind in (STEPS, COMPUTE, SIMPLE)]
    assert counted("Known densities") == bound
    nll = [of("densities", "better-nll-known", kind, BETTER)[0] for kind in (STEPS, COMPUTE, SIMPLE)]
    assert re.findall(r"in (\d+), (\d+) and (\d+)", sections()["Known densities"]) == [tuple(map(str, nll))]


def test_counts_for_and_against_the_paper_are_those_of_their_rows() -> None:
    title = "What favours the paper, and what does not"
    verdicts = [row(suite, "better-nelbo", COMPUTE)["verdict"] for suite, objective in IMAGES if objective == "nll"]
    frozen = [of("densities", "better-nelbo-known", "control", it, "indm frozen-flow") for it in (NOT_BETTER, WORSE)]
    paths = [of("densities", "shorter-paths-known", STEPS, it) for it in (BETTER, WORSE)]
    bounds = claims("densities").query("id == 'better-nelbo-known' and comparison == @STEPS")["effect"]
    few = of("densities", "coarse-discretisation-known", STEPS, BETTER)
    scaled = [of("densities", "better-nelbo-known", "control", it, "ddpmpp best-scale") for it in (WORSE, BETTER)]
    against = [scaled[0], (verdicts.count(WORSE), len(verdicts)), paths[0], frozen[0]]
    assert counted(title) == [(int((bounds > 0).sum()), len(bounds)), few, *against]
    assert re.findall(r"densities, and \*worse\* in (\d+)", sections()[title]) == [f"{scaled[1][0]}"]
    assert verdicts.count(UNDECIDED) == 1
    assert re.findall(r"less straight in (\d+),", sections()[title]) == [f"{paths[1][0]}"]
    assert re.findall(r"cases and is \*worse\* in (\d+)", sections()[title]) == [f"{frozen[1][0]}"]
    gaps = claims("densities").query("id == 'smaller-gap-known' and comparison == @STEPS").dropna(subset="effect")
    assert (gaps["effect"] > 0).all()
    assert f"in all {len(gaps)} cases" in sections()[title]
    assert f"*better* in {(gaps['verdict'] == BETTER).sum()}" in sections()[title]
    # A curved density in eight dimensions.
    curved = claims("densities").query("id == 'better-nelbo-known' and dataset.str.startswith('swirled-8d')")
    assert set(curved[curved["comparison"].isin([COMPUTE, SIMPLE])]["verdict"]) == {BETTER}


def test_rivals_are_counted_as_their_rows() -> None:
    kinds = (("better-nelbo-known-mulan", STEPS), ("better-nelbo-known-diffenc", COMPUTE))
    assert counted("Related work") == [of("rivals", claim, kind, BETTER) for claim, kind in kinds]


def test_two_readings_of_a_tie_on_cifar10_differ_more_than_a_hundredfold() -> None:
    """The leads as powers of the steps, and INDM's multiple as a line in the logarithm of the steps that reaches its cost."""
    found = [multiple_of_the_flow(suite) for suite in PAIRS["CIFAR-10"]]
    start, end = (math.log(one.steps) for one in found)
    leads = [math.log(leads_of(suite, STEPS).mean()) for suite in PAIRS["CIFAR-10"]]
    gains = [math.log((leads_of(suite, STEPS) - leads_of(suite, COMPUTE)).mean()) for suite in PAIRS["CIFAR-10"]]
    behind = [gain - lead for gain, lead in zip(gains, leads, strict=True)]
    short_of = [math.log(one.flops / one.multiple.value) for one in found]
    by_powers, by_multiples = (start + left * (end - start) / (left - later) for left, later in (behind, short_of))
    assert by_multiples - by_powers > math.log(100)
    assert "more than a hundredfold" in " ".join(sections()["Longer training"].split())


def multiple_of_the_flow(suite: str) -> Trained:
    (found,) = (one for one in read_multiples(PUBLISHED / suite / "tables") if one.arm == FLOW)
    return found


def test_no_bound_had_stopped_falling() -> None:
    """In the suites that looked at it during the training."""
    for suite in ("digits-seeds", "digits-ve", "fashion-full", "fashion-long"):
        curve = read_rows(PUBLISHED / suite / "tables/learning_curve.csv")
        for _, part in curve.sort_values("step").groupby(["model", "variant", "objective"]):
            assert part["nelbo"].iloc[-1] < part["nelbo"].iloc[-2]


def test_the_sizes_of_networks_are_those_of_their_suites() -> None:
    flows = [load_suite(PARAMS / f"{suite}.yaml").train.flow for suite, _ in IMAGES]
    assert {(sum(flow.blocks), flow.width) for flow in flows} == {(4, 64)}
    paper = load_suite(PARAMS / "paper.yaml").train.flow
    assert (sum(paper.blocks), paper.width) == (32, 512)
    # The paper's score networks have more than a hundred times as many parameters as the largest one here.
    text = (REPOSITORY / "docs/scaling.md").read_text()
    (millions,) = set(re.findall(r"^\| cifar10-vp-ddpmpp-nll-s0 \| ([\d.]+) \|", text, flags=re.MULTILINE))
    assert float(millions) / max(costs(suite)[1] for suite, it in IMAGES if it == "nll") > 100


@pytest.mark.parametrize("name", SETUPS)
def test_the_recipe_is_that_of_each_suite(name: str) -> None:
    """Of each suite in its table."""
    suite = load_suite(PARAMS / f"{name}.yaml")
    train, score = suite.train, suite.train.score
    assert (train.weight_decay, train.grad_clip, train.schedule) == (0, 1, "cosine")
    assert (score.blocks, score.attention_resolutions) == (1, [])
    assert (suite.weights.score, suite.weights.flow) == ("ema", "ema")
    assert train.random_flip == name.startswith(("cifar10", "celeba"))


def test_a_scale_or_an_affine_map_has_no_lower_bound_on_digits() -> None:
    means = read_rows(PUBLISHED / "digits-seeds/tables/nll.csv").query("model == 'ddpmpp' and objective == 'nll'")
    nelbo = means.set_index("variant")["nelbo"]
    assert min(nelbo["learned-scale"], nelbo["learned-affine"]) > nelbo[""]


def blocks() -> str:
    """A page that has the report's blocks, empty."""
    return re.sub(r"(<!-- (\w+): [^\n]*-->\n).*?(<!-- end of \2 -->)", r"\1\3", PAGE, flags=re.DOTALL)


def block(page: str, name: str) -> list[str]:
    (found,) = re.findall(rf"<!-- {name}: [^\n]*-->\n(.*?)<!-- end of {name} -->", page, flags=re.DOTALL)
    return found.strip().splitlines()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The published suites that the text describes, without the ones that have a forecast."""
    for suite in {*SUITES} - {*FORECAST}:
        (tmp_path / suite).symlink_to(PUBLISHED / suite)
    return tmp_path


def test_a_registered_suite_stands_as_not_finished(published: Path) -> None:
    page = with_report(blocks(), published, PARAMS)
    _, _, *lines = block(page, "forecasts")
    waiting = " ".join(lines)
    assert all(f"`{suite}`" in waiting for suite in FORECAST)
    for suite in LADDERS:
        assert f"| {UNFINISHED} |" in next(line for line in block(page, "registered") if suite in line)


def test_each_registered_forecast_can_be_read() -> None:
    registered = load_registrations(PARAMS / "registrations.yaml").suites
    assert {suite: len(forecasts(registered[suite].note)) for suite in FORECAST} == ASKED


def finished(published: Path, suite: str, effects: dict[tuple[str, str], float]) -> None:
    """Publish made-up results of a suite with a forecast, whose leads are given by claim and comparison."""
    folder = published / suite / "tables"
    shutil.copytree(PUBLISHED / SIMILAR / "tables", folder)
    table = read_rows(folder / "claims.csv")
    like = table[table["comparison"] == STEPS].iloc[0]
    rows = [
        like.to_dict()
        | {"id": claim, "comparison": comparison, "verdict": BETTER, "effect": lead, "low": lead, "high": lead}
        for (claim, comparison), lead in effects.items()
    ]
    write_table(folder / "claims.csv", pd.DataFrame(rows).assign(suite=suite, against="ddpmpp", planned=6))


def test_results_of_a_registered_suite_stand_next_to_their_forecast(published: Path) -> None:
    leads = {
        ("better-nelbo", STEPS): 0.05,
        ("better-nelbo", COMPUTE): -0.09,
        ("better-nelbo-fixed-filter", STEPS): 0.061,
    }
    finished(published, "cifar10-maps", leads)
    page = with_report(blocks(), published, PARAMS)
    _, _, *rows = [line for line in block(page, "forecasts") if line.startswith("|")]
    found = [line.replace("\u00a0", " ").strip("| ").split(" | ") for line in rows]
    assert found[0][:3] == ["CIFAR-10", "INDM’s flow over no map, equal steps", "undecided, 0.015 [−0.020, 0.050]"]
    assert [cells[3:] for cells in found] == [
        ["better, 0.050 [0.050, 0.050]", "yes"],
        ["better, −0.090 [−0.090, −0.090]", "no"],
        ["not run", "–"],
        ["better, 0.061 [0.061, 0.061]", "yes"],
        ["not run", "–"],
    ]
    # The other ones still wait.
    waiting = block(page, "forecasts")[-1]
    assert f"`{CELEBA}`" in " ".join(block(page, "forecasts")[len(rows) + 2 :])
    assert "cifar10-maps" not in waiting
    assert UNFINISHED not in next(line for line in block(page, "registered") if "cifar10-maps" in line)


def test_the_report_stays_where_a_suite_is_missing_that_its_text_describes(published: Path) -> None:
    (published / SIMILAR).unlink()
    assert with_report(PAGE, published, PARAMS) == PAGE


def test_a_forecast_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ArtifactError, match="found no forecast in 'nothing to read'"):
        forecasts("nothing to read")
    with pytest.raises(ArtifactError, match="'wolf over none'"):
        forecasts("Forecasts: wolf over none 0.01 [-0.01, 0.03], undecided.")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("digits", ["digits-seeds", "digits-seeds", "digits-ve"]),
        ("photographs", ["cifar10-maps", *PAIRS["CIFAR-10"], "celeba64-6000"]),
    ],
)
def test_leads_are_the_means_of_the_published_differences(name: str, columns: list[str]) -> None:
    (line,) = (line for line in block(PAGE, name) if line.startswith("| the flow over no map, equal steps"))
    objectives = ["nll", "fid", "fid"] if name == "digits" else ["nll"] * len(columns)
    for suite, objective, cell in zip(columns, objectives, line.strip("| ").split(" | ")[1:], strict=True):
        table = read_rows(PUBLISHED / suite / "tables/differences.csv")
        mine = table[
            (table["id"] == "better-nelbo") & (table["comparison"] == STEPS) & (table["objective"] == objective)
        ]
        assert f", {np.mean(mine['difference']):.3f}\u00a0[" in cell
