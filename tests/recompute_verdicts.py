"""Recompute every row of a suite's claims from its numbers, by nothing but pandas, numpy and scipy, and compare to the last digit.

``python tests/recompute_verdicts.py TABLES CLAIMS SUITE``: the folder of the suite's tables, ``params/claims.yaml``, and
``params/expanded/<suite>.json``. It prints what differs, and fails if anything does.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy import stats

Row = dict[str, Any]
# Dataset, SDE, objective, model, variant.
Model = tuple[str, ...]
# The numbers of a seed at each sampler and x, one for each image.
Cells = dict[tuple[str, float], NDArray[np.float64]]
PLACE = ["dataset", "sde", "objective"]
MODEL = [*PLACE, "model", "variant"]
TEXTS = [*MODEL, "stage", "metric", "sampler"]
KEY = ["id", *PLACE, "comparison", "against"]
TEXT_COLUMNS = ["verdict", "protocol"]
COMPARED = [*TEXT_COLUMNS, "effect", "low", "high", "n", "images", "planned", "failed_treatment", "failed_against"]
FEWEST, THREE, LONGER = 3, 3, "same-compute"


def read(path: Path) -> pd.DataFrame:
    """Read a table: absent texts are empty, absent numbers NaN."""
    path = path if path.is_file() else path.with_name(f"{path.name}.gz")
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
    return table.fillna({key: "" for key in TEXTS if key in table})


class Numbers:
    """The numbers of a suite, and how it is graded."""

    def __init__(self, tables: Path, suite: Row) -> None:
        self.grading, self.bounds = suite["grading"], suite.get("failed_beyond", {})
        self.values, images = (read(tables / name) for name in ("values.csv", "images.csv"))
        self.parts: dict[Any, pd.DataFrame] = dict(iter(self.values.groupby([*MODEL, "stage", "metric"])))
        self.images: dict[Any, pd.DataFrame] = dict(iter(images.sort_values("image").groupby([*MODEL, "stage"])))
        # Where images come in clusters, the cluster of each image, in the order of the images.
        named = images.dropna(subset="cluster") if "cluster" in images else images[:0]
        first = named.drop_duplicates(["dataset", "stage", "image"]).sort_values("image")
        self.clusters = {key: list(part["cluster"]) for key, part in first.groupby(["dataset", "stage"])}
        stages = images.groupby("stage")
        self.of_images = {(stage, name) for stage, part in stages for name in part.columns[part.notna().any()]}
        runs: Any = self.values.dropna(subset="seed").groupby(MODEL)["seed"]
        self.seeds: dict[Model, set[int]] = {model: set(map(int, seeds)) for model, seeds in runs}
        self.known: dict[tuple[str | None, ...], dict[int, Cells]] = {}

    def part(self, model: Model, stage: str, name: str) -> pd.DataFrame:
        """Return a metric of a model: a row for each seed, sampler, x and, if it has them, image."""
        if (stage, name) in self.of_images:
            part = self.images.get((*model, stage), pd.DataFrame(columns=["seed", "x", name])).dropna(subset=name)
            return part.assign(value=part[name], sampler="")
        part = self.parts.get((*model, stage, name), self.values[:0])
        return part[part["sound"] == 1] if stage == "sweep" else part[part["sound"] != 0] if stage == "toy2d" else part

    def decoder(self, model: Model) -> str:
        """Return the model's decoder: the learned one, or the one with the lower mean NELBO at the end of training."""
        if self.grading["decoder"] == "learned":
            return "learned"
        stage, means = {"validation": "curve", "test": "nll"}[self.grading["decoder"]], []
        for name in ("nelbo", "nelbo_fixed"):
            found = self.parts.get((*model, stage, name), self.values[:0])
            means.append(found.sort_values("x").groupby("seed")["value"].last().mean())
        return "" if np.isnan(means).any() else "learned" if means[0] <= means[1] else "fixed"

    def protocol(self, model: Model, metric: Row) -> tuple[str, str, str | None]:
        """Return the name of the model's numbers, how they were measured, and their sampler if one is asked for."""
        name, sampler = metric["name"], metric.get("sampler")
        if metric["stage"] == "nll" and name in ("nelbo", "nll"):
            decoder = self.decoder(model)
            return name + "_fixed" * (decoder == "fixed"), f"{decoder} decoder" * bool(decoder), None
        sampler = self.grading["samplers"][model[3]] if sampler == "chosen" else sampler
        return name, sampler or "", sampler

    def cells(self, model: Model, metric: Row) -> dict[int, Cells]:
        """Return the sound numbers of every seed of a model, transformed."""
        name, _, sampler = self.protocol(model, metric)
        if (found := self.known.get(key := (*model, name, sampler, json.dumps(metric)))) is not None:
            return found
        part = self.part(model, metric["stage"], name)
        part = part if sampler is None else part[part["sampler"] == sampler].assign(sampler="")
        part = part.assign(x=part["x"].fillna(0.0).astype(float))
        low, high = metric.get("x") or (-math.inf, math.inf)
        bound = self.bounds.get(metric["name"], math.inf)
        found = self.known[key] = {}
        groups: Any = part[part["x"].between(low, high)].groupby(["seed", "sampler", "x"])
        for (seed, drawn, x), numbers in groups:
            found.setdefault(int(seed), {})[drawn, x] = transformed(numbers["value"].to_numpy(float), metric, bound)
        return found

    def at_shares(self, treatment: Model, other: Model, cells: Cells) -> Cells:
        """Move the snapshots of a model to the treatment's steps at the same share of its training."""
        steps = [self.parts[*model, "train", "steps"]["value"].max() for model in (treatment, other)]
        moved: Cells = {}
        for (sampler, x), numbers in sorted(cells.items()):
            moved.setdefault((sampler, float(round(x * steps[0] / steps[1]))), numbers)
        return moved

    def swept(self, place: Model, model: Model, metric: Row) -> set[tuple[str, float]]:
        """Return where any model of a place was sampled by the sampler of one of them."""
        own = dict(metric, sampler=self.protocol(model, metric)[2])
        here = [other for other in self.seeds if other[:3] == place]
        return {cell for other in here for cells in self.cells(other, own).values() for cell in cells}


def transformed(numbers: NDArray[np.float64], metric: Row, bound: float) -> NDArray[np.float64]:
    mean = numbers.mean()
    is_log = metric.get("transform") == "log"
    if not math.isfinite(mean) or mean > bound or (is_log and mean <= 0):
        return np.full(len(numbers), np.nan)
    # The mean over images is the logarithm of their mean, and each image counts by its share of it.
    return math.log(mean) + numbers / mean - 1 if is_log else numbers


def places(numbers: Numbers, claim: Row) -> Iterator[Model]:
    """List dataset, SDE and objective where the treatment was trained and any model has the metric."""
    metric, where = claim["metric"], claim.get("where", {})
    treatment = {"model": "indm", "variant": ""} | claim.get("treatment", {})
    names = [metric["name"], f"{metric['name']}_fixed"]
    values = numbers.values
    measured = values[(values["stage"] == metric["stage"]) & values["metric"].isin(names)]
    there = set(measured[PLACE].itertuples(index=False, name=None))
    for *place, model, variant in numbers.seeds:
        allowed = all(text in (where.get(f"{key}s") or [text]) for key, text in zip(PLACE, place, strict=True))
        is_treatment = (model, variant) == (treatment["model"], treatment["variant"])
        if is_treatment and treatment.get("objective") in (None, place[2]) and tuple(place) in there and allowed:
            yield tuple(place)


def comparisons(claim: Row, grading: Row) -> Iterator[tuple[str, Row | None]]:
    """List with what a claim's treatment is compared: the kind, and a model or a number, if any."""
    if baseline := claim.get("baseline"):
        longer = baseline.get("variant") == "same-compute"
        yield "fixed number" if "value" in baseline else "equal compute" if longer else "equal steps", baseline
        return
    chosen = grading["toy2d" if claim["metric"]["stage"] == "toy2d" else "images"]
    three = {"equal steps": "", "equal compute": LONGER, "simple control": chosen["simple"]}
    for kind, variant in three.items():
        yield kind, None if variant is None else {"model": "ddpmpp", "variant": variant}
    for control in claim.get("controls", []):
        variant = chosen["scale"] if control == "best-scale" else control
        if variant and variant not in three.values():
            yield "control", {"model": "indm" if control == "frozen-flow" else "ddpmpp", "variant": variant}


def compare(numbers: Numbers, claim: Row, place: Model, other: Row) -> Row:
    """Pair the treatment with a model or a number: differences of the seeds that are sound in both, and counts of seeds."""
    metric, side = claim["metric"], {"variant": ""} | claim.get("treatment", {"model": "indm"})
    own = (*place, side["model"], side["variant"])
    mine, seeds = numbers.cells(own, metric), numbers.seeds[own]
    protocols = [numbers.protocol(own, metric)[1]]
    against = (*place[:2], other.get("objective", place[2]), other.get("model", ""), other.get("variant", ""))
    if "value" in other:
        number = math.log(other["value"]) if metric.get("transform") == "log" else other["value"]
        cells = {seed: {cell: np.full(len(found), number) for cell, found in one.items()} for seed, one in mine.items()}
        whole = {cell: found for one in cells.values() for cell, found in one.items()}
        theirs, models = dict.fromkeys(seeds, whole), [own]
    else:
        seeds = seeds & numbers.seeds.get(against, set())
        theirs, models = numbers.cells(against, metric), [own, against]
        protocols.append(numbers.protocol(against, metric)[1])
        if metric["stage"] == "curve":
            theirs = {seed: numbers.at_shares(own, against, cells) for seed, cells in theirs.items()}
    if not seeds:
        return {"reason": "not run"}
    is_likelihood = metric["stage"] == "nll" and metric["name"] in ("nelbo", "nll")
    if is_likelihood and not all(protocols):
        return {"reason": "no decoder"}
    found: Row = {"planned": len(seeds), "protocol": " against ".join(dict.fromkeys(filter(None, protocols)))}
    sides = [{cell for cells in side.values() for cell in cells} for side in (mine, theirs)]
    expected = sides[0] | sides[1]
    if metric["stage"] == "sweep":
        expected = set.intersection(*(numbers.swept(place, model, metric) for model in models))
    if (all(sides) and not sides[0] & sides[1]) if metric["stage"] != "sweep" else not expected:
        return found | {"reason": "not the same steps"}

    def fails(cells: Cells) -> bool:
        return not expected or any(cell not in cells or not np.isfinite(cells[cell]).all() for cell in expected)

    bad, worse = ({seed for seed in seeds if fails(side.get(seed, {}))} for side in (mine, theirs))
    worse = set() if "value" in other else worse
    sign = -1 if claim.get("direction") == "higher" else 1
    rows = [
        sign * np.mean([theirs[seed][cell] - mine[seed][cell] for cell in sorted(expected)], axis=0)
        for seed in sorted(seeds - bad - worse)
    ]
    width = max(
        (len(array) for side in (mine, theirs) for cells in side.values() for array in cells.values()), default=1
    )
    differences = np.array(rows).reshape(len(rows), width)
    found |= {"failed_treatment": len(bad), "failed_against": len(worse)}
    return found | {"differences": differences[:, 0] if width == 1 else differences}


def of_clusters(differences: NDArray[np.float64], clusters: list[float]) -> NDArray[np.float64]:
    """Return a column for each cluster: the mean, plus its images' excess over the mean as a share of a cluster's mean size."""
    if differences.ndim < 2:
        return differences
    columns, images = [], differences.shape[1]
    mean = differences.mean(axis=1)
    for cluster in sorted(set(clusters[:images])):
        of_cluster = differences[:, np.array(clusters[:images]) == cluster]
        columns.append((of_cluster - mean[:, None]).sum(axis=1))
    return mean[:, None] + np.array(columns).T * len(columns) / images


def interval(differences: NDArray[np.float64], tail: float) -> tuple[float, float, float]:
    """Return a mean and the ends of its interval: Cochran and Cox, and no less than over the seeds alone."""
    count = len(differences)
    if differences.ndim == 2 and 0 < count < FEWEST:
        differences, count = differences.mean(axis=0), differences.shape[1]
    if count < 2:
        return (float(differences.mean()) if count else math.nan), math.nan, math.nan
    of_seeds = differences.reshape(count, -1).mean(axis=1)
    mean, point = float(differences.mean()), stats.t.isf(tail, count - 1)
    if np.ptp(differences) == 0:
        return mean, mean, mean
    first = float(of_seeds.var(ddof=1)) / count
    half = point * math.sqrt(first)
    if differences.ndim == 2:
        images = differences.shape[1]
        of_images = differences.mean(axis=0)
        rest = differences - of_seeds[:, None] - of_images[None, :] + mean
        error = (rest**2).sum() / ((count - 1) * (images - 1))
        second = max(count * float(of_images.var(ddof=1)) - error, 0.0) / (count * images)
        if first + second > 0:
            crossed = (point * first + stats.t.isf(tail, images - 1) * second) / math.sqrt(first + second)
            half = max(half, crossed)
    return mean, mean - half, mean + half


def verdict(found: Row, smallest: float) -> str:
    """Return the word: fewer failures of a model than of the other one do not let it win."""
    fails, others = found["failed_treatment"], found["failed_against"]
    if found["n"] < FEWEST:
        return "undecided"
    if found["low"] > smallest:
        return "better" if fails <= others else "undecided"
    if found["high"] > smallest or fails < others:
        return "undecided"
    return "worse" if found["high"] < -smallest else "not better"


def recompute(tables: Path, claims: Path, suite: Row) -> dict[tuple[str, ...], Row]:
    """Return the rows of ``claims.csv``, by what names them."""
    numbers, rows = Numbers(tables, suite), {}
    for claim in yaml.safe_load(claims.read_text(encoding="utf-8"))["claims"]:
        for place in places(numbers, claim):
            for kind, other in comparisons(claim, numbers.grading):
                shares = claim["family"] == "primary" and kind != "control"
                tail = 0.025 / (THREE * numbers.grading["rows"]) if shares else 0.025
                unknown = claim["metric"].get("sampler") == "chosen" and numbers.grading["samplers"] is None
                row: Row = {"planned": 0, "failed_treatment": 0, "failed_against": 0, "differences": np.empty(0)}
                if other is not None and not unknown:
                    row |= compare(numbers, claim, place, other)
                row["n"] = len(row["differences"])
                row["images"] = row["differences"].shape[1] if row["differences"].ndim == 2 else math.nan
                if clusters := numbers.clusters.get((place[0], claim["metric"]["stage"])):
                    row["differences"] = of_clusters(row["differences"], clusters)
                row["effect"], row["low"], row["high"] = interval(row["differences"], tail)
                name = "" if other is None else f"{other['value']:g}" if "value" in other else ""
                name = name or " ".join(filter(None, map((other or {}).get, ("model", "variant", "objective"))))
                rows[claim["id"], *place, kind, name] = row | {"verdict": verdict(row, claim["smallest"]["effect"])}
    return rows


def written(value: Any) -> str:
    """Write a number as tables do, with six digits."""
    return value if isinstance(value, str) else "" if value is None or math.isnan(value) else f"{value:.6g}"


def close(text: str, number: str) -> bool:
    unit = 10.0 ** (math.floor(math.log10(max(abs(float(text)), 1e-300))) - 5)
    return abs(float(text) - float(number)) < 1.5 * unit


def differences(tables: Path, claims: Path, suite: Row) -> list[str]:
    """List what the table says otherwise, a line each."""
    expected, lines = recompute(tables, claims, suite), []
    table = pd.read_csv(tables / "claims.csv", dtype=str, keep_default_na=False)
    said = {tuple(row[key] for key in KEY): row for row in table.to_dict("records")}
    for key in sorted({*said, *expected}):
        place = f"claims.csv, {' '.join(filter(None, key))}"
        if key not in said or key not in expected:
            lines.append(f"{place}: {'missing' if key in expected else 'found a row that is not recomputed'}")
            continue
        for column in COMPARED:
            text, number = said[key][column], written(expected[key].get(column))
            # Numbers of six digits, from numbers that were themselves rounded, may differ by one in the last.
            if text != number and (column in TEXT_COLUMNS or not (text and number) or not close(text, number)):
                lines.append(f"{place}, {column}: found {text or 'nothing'}, recomputed {number or 'nothing'}")
    return lines


def main(tables: str, claims: str, suite: str) -> int:
    lines = differences(Path(tables), Path(claims), json.loads(Path(suite).read_text(encoding="utf-8")))
    print("\n".join(lines) or "All verdicts, effects and intervals are recomputed to one in the last digit.")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
