"""Recompute every verdict of a suite from its numbers, by nothing but pandas, numpy and scipy, and compare to the last digit.

``python tests/recompute_verdicts.py TABLES CLAIMS [SUITE]``: the folder of the suite's tables, with ``values.csv`` and
``images.csv`` (or ``images.csv.gz``), ``params/claims.yaml``, and, of a suite that has ``failed_beyond``, its expanded file
``params/expanded/<suite>.json``. It prints what differs, and fails if anything does.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy import stats

Row = dict[str, Any]
Cells = dict[tuple[str, float], Any]
Arm = tuple[str, str, str | None]
PLACE = ("dataset", "sde", "objective")
LIKELIHOODS = ("nll", "nll_uncorrected", "nelbo", "nelbo_no_reconstruction", "gap")
FEWEST = 3
COMPARED = {
    "claims": "n images effect low high holds flow control control_n control_effect control_low control_high "
    "planned failed_treatment failed_baseline",
    "effects": "n images effect low high planned failed_treatment failed_against treatment_low against_low against_high verdict",
}
TEXTS = ("holds", "flow", "control", "verdict")


class Numbers:
    """The numbers of a suite, by run: a run is dataset, SDE, objective, model, variant and seed."""

    def __init__(self, tables: Path, failed_beyond: dict[str, float]) -> None:
        texts = dict.fromkeys((*PLACE, "model", "variant", "stage", "metric", "sampler"), str)
        values = pd.read_csv(tables / "values.csv", dtype=texts, keep_default_na=False, na_values=[""])
        values = values.fillna(dict.fromkeys(texts, ""))
        images = tables / "images.csv"
        images = images if images.is_file() else images.with_name("images.csv.gz")
        self.images = pd.read_csv(images, dtype=texts, keep_default_na=False, na_values=[""])
        self.images = self.images.fillna({key: "" for key in texts if key in self.images})
        self.bounds = failed_beyond
        if "sound" not in values:
            values["sound"] = np.nan
        self.values = values
        self.seeds: dict[tuple[str, ...], set[int]] = {}
        self.length: dict[tuple[str, ...], float] = {}
        for row in values.dropna(subset="seed").to_dict("records"):
            key = (*(row[name] for name in PLACE), row["model"], row["variant"])
            self.seeds.setdefault(key, set()).add(int(row["seed"]))
            if (row["stage"], row["metric"]) == ("train", "steps"):
                self.length[key] = max(self.length.get(key, 0.0), float(row["value"]))

    def of(self, metric: Row, samplers: list[str] | None) -> dict[tuple[Any, ...], dict[tuple[str, float], Any]]:
        """Return by run and seed the arrays over images of each cell: sampler and x."""
        found: dict[tuple[Any, ...], dict[tuple[str, float], Any]] = {}
        stage, name = metric["stage"], metric["name"]
        of_images = self.images[self.images["stage"] == stage]
        if len(of_images) and name in LIKELIHOODS and name in of_images and of_images[name].notna().any():
            part = of_images.dropna(subset=name).assign(x=of_images["x"].fillna(0.0), sampler="", value=of_images[name])
        else:
            part = self.values[(self.values["stage"] == stage) & (self.values["metric"] == name)]
            part = part.assign(x=part["x"].fillna(0.0), image=0)
            if stage == "sweep":
                part = part[part["sound"] == 1]
            elif stage == "toy2d":
                part = part[part["sound"] != 0]
        if samplers is not None:
            part = part[part["sampler"].isin(samplers)]
        if isinstance(metric.get("x"), list):
            part = part[(part["x"] >= metric["x"][0]) & (part["x"] <= metric["x"][1])]
        keys = [*PLACE, "model", "variant", "seed", "sampler", "x"]
        for key, group in part.sort_values("image").groupby(keys, sort=False):
            *run, seed, sampler, x = key
            numbers = group["value"].to_numpy(float)
            mean = numbers.mean()
            if mean > self.bounds.get(name, math.inf):
                numbers = np.full(len(numbers), np.nan)
            elif metric.get("transform") == "log":
                numbers = math.log(mean) + (numbers - mean) / mean if mean > 0 else np.full(len(numbers), np.nan)
            found.setdefault((*run, int(seed)), {})[sampler, float(x)] = numbers
        return found


def spread(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Return the parts of the variance of a mean that seeds and images have."""
    seeds = len(numbers)
    if np.ptp(numbers) == 0:
        return 0.0, 0.0
    if numbers.ndim == 1:
        return float(np.var(numbers, ddof=1)) / seeds, 0.0
    images = numbers.shape[1]
    rows, columns, grand = numbers.mean(axis=1), numbers.mean(axis=0), numbers.mean()
    square_seeds = images * ((rows - grand) ** 2).sum() / (seeds - 1)
    square_images = seeds * ((columns - grand) ** 2).sum() / (images - 1)
    residual = numbers - rows[:, None] - columns[None, :] + grand
    square_rest = (residual**2).sum() / ((seeds - 1) * (images - 1))
    return square_seeds / (seeds * images), max(square_images - square_rest, 0.0) / (seeds * images)


def half(numbers: NDArray[np.float64], tail: float) -> float:
    """Return half the length of an interval: Cochran and Cox, and no less than over the seeds alone."""
    of_seeds, of_images = spread(numbers)
    seeds = stats.t.isf(tail, len(numbers) - 1)
    alone = seeds * math.sqrt(of_seeds)
    total = of_seeds + of_images
    if numbers.ndim == 1 or total == 0:
        return float(alone)
    images = stats.t.isf(tail, numbers.shape[1] - 1)
    return float(max(alone, (of_seeds * seeds + of_images * images) / math.sqrt(total)))


def ends(numbers: NDArray[np.float64], below: float, above: float) -> tuple[float, float, float]:
    """Return a mean and the ends of its interval."""
    n = len(numbers)
    if numbers.ndim == 2 and 0 < n < FEWEST:
        numbers, n = numbers.mean(axis=0), numbers.shape[1]
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = float(numbers.mean())
    return (mean, mean - half(numbers, below), mean + half(numbers, above)) if n > 1 else (mean, math.nan, math.nan)


def pair(numbers: Numbers, claim: Row, place: Row, own: Arm, other: Arm | float, sampler: str | None) -> Row:
    """Pair the treatment with another arm: arrays of the seeds sound in both, and counts of planned and failed ones."""
    metric = claim["metric"]
    found = numbers.of(metric, metric.get("sampler"))
    others = numbers.of(metric, [sampler]) if sampler else found
    here = tuple(place[key] for key in PLACE)

    def run(arm: Arm) -> tuple[str, ...]:
        return (*here[:2], arm[2] or here[2], arm[0], arm[1])

    treated = run(own)
    seeds = set(numbers.seeds.get(treated, ()))
    if not isinstance(other, float):
        against = run(other)
        seeds &= numbers.seeds.get(against, set())
    mine = {seed: dict(found.get((*treated, seed), {})) for seed in seeds}
    if isinstance(other, float):
        bound = math.log(other) if metric.get("transform") == "log" else other
        theirs = {seed: {cell: np.full(len(array), bound) for cell, array in mine[seed].items()} for seed in seeds}
    else:
        theirs = {seed: dict(others.get((*against, seed), {})) for seed in seeds}
    if metric["stage"] == "curve" and isinstance(metric.get("x"), list) and not isinstance(other, float) and seeds:
        ratio = numbers.length[treated] / numbers.length[against]
        moved: dict[int, Cells] = {}
        for seed, cells in theirs.items():
            moved[seed] = {}
            for (name, x), array in sorted(cells.items()):
                moved[seed].setdefault((name, float(round(x * ratio))), array)
        theirs = moved
    if metric["stage"] == "sweep":
        at = {key[:3]: None for key in found}
        swept = {cell for key, cells in found.items() if key[:3] == here for cell in cells} if here in at else set()
        if sampler:
            points = {x for key, cells in others.items() if key[:3] == here for _, x in cells}
            swept = {cell for cell in swept if cell[1] in points}
            theirs = {
                seed: {c: cells[sampler, c[1]] for c in swept if (sampler, c[1]) in cells}
                for seed, cells in theirs.items()
            }
        planned_cells = swept
    else:
        planned_cells = {cell for side in (mine, theirs) for cells in side.values() for cell in cells}
        if isinstance(other, float):
            planned_cells = {cell for cells in mine.values() for cell in cells}
    nothing = {"treatment": np.empty(0), "against": np.empty(0), "n": 0}
    if not seeds or (metric["stage"] == "sweep" and not planned_cells):
        return {"planned": 0, "failed": (0, 0), **nothing}
    if not planned_cells:
        return {"planned": len(seeds), "failed": (len(seeds), len(seeds)), **nothing}
    of_sides = [{cell for cells in side.values() for cell in cells} for side in (mine, theirs)]
    if metric["stage"] != "sweep" and all(of_sides) and not of_sides[0] & of_sides[1]:
        return {"planned": len(seeds), "failed": (0, 0), **nothing}

    def sound(cells: Cells) -> bool:
        return all(cell in cells and bool(np.isfinite(cells[cell]).all()) for cell in planned_cells)

    bad = {seed for seed in seeds if not sound(mine[seed])}
    worse = set() if isinstance(other, float) else {seed for seed in seeds if not sound(theirs[seed])}
    good = sorted(seeds - bad - worse)

    def average(cells: Cells) -> Any:
        names = sorted({name for name, _ in planned_cells})
        of_names = [
            np.mean([cells[cell] for cell in sorted(planned_cells) if cell[0] == name], axis=0) for name in names
        ]
        return np.mean(of_names, axis=0)

    sides: list[Any] = []
    for side in (mine, theirs):
        if isinstance(other, float) and side is theirs:
            table = np.full_like(sides[0], bound)
        else:
            rows = [average(side[seed]) for seed in good]
            table = np.array([row if len(row) > 1 else row[0] for row in rows])
        sides.append(table)
    return {
        "planned": len(seeds),
        "failed": (len(bad), len(worse)),
        "treatment": sides[0],
        "against": sides[1],
        "n": len(good),
    }


def measure(paired: Row, claim: Row, rows: int, controls: int) -> Row:
    """Return the effect of a pair, its interval, and the ends of the mean gaps."""
    tail = 0.025 / rows
    sign = -1 if claim.get("direction") == "higher" else 1
    difference = sign * (paired["against"] - paired["treatment"])
    effect, low, high = ends(difference, tail, tail / controls)
    found = {"n": paired["n"], "images": difference.shape[1] if difference.ndim == 2 else math.nan}
    found |= {"effect": effect, "low": low, "high": high, "planned": paired["planned"]}
    found |= dict(zip(("failed_treatment", "failed_against"), paired["failed"], strict=True))
    gaps = dict.fromkeys(("treatment_low", "against_low", "against_high"), math.nan)
    if claim.get("floor") is not None:
        gaps["treatment_low"] = ends(paired["treatment"], tail, tail)[1]
        gaps["against_low"], gaps["against_high"] = ends(paired["against"], tail, tail)[1:]
    return found | gaps


def does_it_hold(found: Row, claim: Row, lacking: bool) -> str:
    delta, floor = claim["smallest"]["effect"], claim.get("floor")
    if found["planned"] == 0:
        return "no data"
    if lacking:
        return "inconclusive"
    if found["n"] < FEWEST:
        return "single training"
    if found["low"] > delta and (floor is None or found["against_low"] > delta):
        return "inconclusive" if found["failed_treatment"] > found["failed_against"] else "shown"
    if found["high"] < 0 and (floor is None or found["treatment_low"] > floor):
        return "contradicted"
    if floor is not None and found["against_high"] <= delta:
        return "not testable"
    return "ruled out" if found["high"] <= delta else "inconclusive"


def of_control(found: Row, claim: Row, lacking: bool) -> str:
    floor = claim.get("floor")
    if found["planned"] < FEWEST:
        return "not run"
    if lacking or found["n"] < FEWEST:
        return "open"
    if found["high"] < 0 and (floor is None or found["treatment_low"] > floor):
        return "control better"
    if found["high"] <= claim["smallest"]["effect"]:
        return "matched"
    beaten = found["low"] > 0 and found["failed_treatment"] <= found["failed_against"]
    return "beaten" if beaten and (floor is None or found["against_low"] > floor) else "open"


def arm_of(arm: Row) -> Arm:
    return arm.get("model", "ddpmpp"), arm.get("variant", ""), arm.get("objective")


def named(arm: Row) -> str:
    return f"{arm['value']:g}" if "value" in arm else " ".join(filter(None, arm_of(arm)))


def choose(numbers: Numbers, control: Row, place: Row) -> str | None:
    """Choose the variant with the smallest mean of the validation metric."""
    metric = control["choose_by"]
    found, scores = numbers.of(metric, metric.get("sampler")), {}
    for variant in control["variants"]:
        run = (place["dataset"], place["sde"], control.get("objective") or place["objective"])
        runs = [cells for key, cells in found.items() if key[:5] == (*run, control.get("model", "ddpmpp"), variant)]
        if metric.get("x") == "last" and runs:
            last = max(x for cells in runs for _, x in cells)
            runs = [{cell: array for cell, array in cells.items() if cell[1] == last} for cells in runs]
        flat = np.concatenate([array for cells in runs for array in cells.values()] or [np.empty(0)])
        if np.isfinite(flat).any():
            scores[variant] = float(np.nanmean(flat))
    return min(scores, key=lambda variant: scores[variant]) if scores else None


def recompute(tables: Path, claims: Path, failed_beyond: dict[str, float]) -> dict[str, dict[tuple[str, ...], Row]]:
    """Return the rows of ``claims.csv`` and ``effects.csv`` that have data, by what names them."""
    numbers, file = Numbers(tables, failed_beyond), yaml.safe_load(claims.read_text(encoding="utf-8"))
    asked = []
    for claim in file["claims"]:
        metric = claim["metric"]
        treatment, baseline = claim.get("treatment", {"model": "indm"}), claim.get("baseline", {"model": "ddpmpp"})
        values = numbers.values
        measured = values[(values["stage"] == metric["stage"]) & (values["metric"] == metric["name"])]
        there = set(measured[[*PLACE]].itertuples(index=False, name=None))
        where = claim.get("where", {})
        model, variant, objective = arm_of(treatment)
        for key in numbers.seeds:
            place = dict(zip(PLACE, key, strict=False))
            allowed = all(not where.get(f"{name}s") or text in where[f"{name}s"] for name, text in place.items())
            if key[3:] != (model, variant) or key[:3] not in there or not allowed or objective not in (None, key[2]):
                continue
            own = arm_of(treatment)
            other = float(baseline["value"]) if "value" in baseline else arm_of(baseline)
            against = {named(baseline): pair(numbers, claim, place, own, other, None)}
            for name in claim.get("controls", []):
                control = file["controls"][name]
                chosen = choose(numbers, control, place) if "choose_by" in control else control["variants"][0]
                arm: Arm = (control.get("model", "ddpmpp"), chosen or "", control.get("objective"))
                label = f"{name} ({chosen})" if "choose_by" in control and chosen is not None else name
                nothing = {"planned": 0, "failed": (0, 0), "treatment": np.empty(0), "against": np.empty(0), "n": 0}
                found = nothing if chosen is None else pair(numbers, claim, place, own, arm, control.get("sampler"))
                against[label] = found
            sampled = numbers.of(metric, metric.get("sampler"))
            known = {name for key_, cells in sampled.items() if key_[:3] == key[:3] for name, _ in cells}
            asked.append((claim, place, against, bool(set(metric.get("sampler") or []) - known)))
    primary = sum(
        claim["family"] == "primary" and next(iter(against.values()))["planned"] >= FEWEST
        for claim, _, against, _ in asked
    )
    graded: dict[str, dict[tuple[str, ...], Row]] = {"claims": {}, "effects": {}}
    for claim, place, against, lacking in asked:
        rows = max(primary, 1) if claim["family"] == "primary" else 1
        first, *others = against
        run = sum(against[name]["planned"] >= FEWEST for name in others)
        key = (claim["id"], *place.values())
        baseline_effect = measure(against[first], claim, rows, 1)
        effects = {name: measure(against[name], claim, rows, max(run, 1)) for name in others}
        holds = does_it_hold(baseline_effect, claim, lacking)
        graded["effects"][*key, first] = baseline_effect | {"verdict": holds}
        verdicts = {name: of_control(found, claim, lacking) for name, found in effects.items()}
        for name, found in effects.items():
            graded["effects"][*key, name] = found | {"verdict": verdicts[name]}
        row = baseline_effect | {"failed_baseline": baseline_effect["failed_against"], "holds": holds}
        if holds == "no data":
            row = {"holds": holds}
        elif others:
            row |= second(effects, verdicts)
        graded["claims"][key] = row
    return graded


def second(effects: dict[str, Row], verdicts: dict[str, str]) -> Row:
    """Answer whether it is the flow, and name the control that says so."""
    best = next((grade for grade in ("control better", "matched") if grade in verdicts.values()), "")
    matched = [name for name, verdict in verdicts.items() if verdict == best]
    known = [name for name in effects if effects[name]["n"] >= FEWEST]
    flow = best or ("beyond every control" if set(verdicts.values()) == {"beaten"} else "open")
    of_known = min(known, key=lambda name: effects[name]["effect"], default="")
    name = min(matched, key=lambda name: effects[name]["high"]) if matched else of_known
    ends_of = ("n", "effect", "low", "high")
    return {"flow": flow, "control": name} | ({f"control_{key}": effects[name][key] for key in ends_of} if name else {})


def written(value: Any) -> str:
    """Write a number as tables do, with six digits."""
    if isinstance(value, str):
        return value
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def differences(tables: Path, claims: Path, failed_beyond: dict[str, float]) -> list[str]:
    """List what the tables say otherwise, a line each."""
    found, lines = recompute(tables, claims, failed_beyond), []
    for name, columns in COMPARED.items():
        table = pd.read_csv(tables / f"{name}.csv", dtype=str, keep_default_na=False)
        own = ["id", *PLACE] + (["against"] if name == "effects" else [])
        said = {tuple(row[key] for key in own): row for row in table.to_dict("records")}
        for key in {*said, *found[name]}:
            row, expected = said.get(key), found[name].get(key, {"holds": "no data", "verdict": "no data"})
            if row is None:
                lines.append(f"{name}.csv, {' '.join(key)}: missing")
                continue
            place = f"{name}.csv, {' '.join(key)}"
            for column in columns.split():
                text, expected_text = row[column], written(expected.get(column))
                if (text if column in TEXTS or not text else f"{float(text):.6g}") != expected_text:
                    lines.append(
                        f"{place}, {column}: found {text or 'nothing'}, recomputed {expected_text or 'nothing'}"
                    )
    return sorted(lines)


def main(tables: str, claims: str, suite: str = "") -> int:
    bounds = json.loads(Path(suite).read_text(encoding="utf-8")).get("failed_beyond", {}) if suite else {}
    lines = differences(Path(tables), Path(claims), bounds)
    print("\n".join(lines) or "All verdicts, effects and intervals are recomputed to the last digit.")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
