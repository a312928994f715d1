r"""The paired numbers that claims are graded from, taken from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform. Of several samplers and
numbers of steps it is the mean over the samplers of each one's mean over its steps.

Likelihoods are of the same images i in all runs, and their interval crosses seeds and images (:mod:`indm.report.intervals`). The
transform is of the mean over images, so that each image counts by its linear part there, the delta method:

.. math:: d_{si} = \pm (f_i(b_s) - f_i(a_s)), \qquad f_i(a) = f(\bar a) + f'(\bar a)(a_i - \bar a), \qquad
    \frac{1}{I} \sum_i f_i(a) = f(\bar a).

A learning curve is compared at equal shares of each arm's training: at equal steps, an arm that is trained for as many FLOPs as
another would have spent fewer.

FID and 2-D data have no numbers of single images; each seed draws its own, so that their noise is in the spread of the seeds.

A seed of an arm has failed where it was trained and a number of it is missing, not finite, or above the suite's ``failed_beyond``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from indm.report.intervals import FEWEST_SEEDS, Numbers
from indm.report.results import RUN_KEY, records
from indm.report.values import refuse_other_images, refuse_repeats
from indm.suite.claims import Bound, Claim, Claims, Control, Metric, Side

PLACE = ["dataset", "sde", "objective"]
CELL = ["sampler", "x", "image"]
# Each with its derivative.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "signed": (lambda values: values, lambda values: 1.0),
    "log": (np.log, lambda values: 1 / values),
}


@dataclass(frozen=True)
class Tables:
    """What claims are graded from.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
        failed_beyond: by a metric's name, the number above which a run has failed.
        trained: the runs of which any number is known, each once.
    """

    values: pd.DataFrame
    images: pd.DataFrame
    failed_beyond: Mapping[str, float]
    trained: pd.DataFrame


@dataclass(frozen=True)
class Paired:
    """The numbers of the treatment and of another arm, transformed, of the seeds that are sound in both.

    Arguments:
        seeds: those seeds.
        treatment: the treatment's numbers, shape (S,) or (S, I).
        against: the other arm's.
        sign: 1 where the smaller number is the better one, else -1.
        planned: how many seeds both arms were trained with.
        failed_treatment: how many of them failed in the treatment.
        failed_against: how many of them failed in the other arm.
    """

    seeds: tuple[int, ...] = ()
    treatment: Numbers = field(default_factory=lambda: np.empty(0))
    against: Numbers = field(default_factory=lambda: np.empty(0))
    sign: int = 1
    planned: int = 0
    failed_treatment: int = 0
    failed_against: int = 0

    @property
    def differences(self) -> Numbers:
        """The paired differences, shape (S,) or (S, I)."""
        return self.sign * (self.against - self.treatment)

    @property
    def of_seeds(self) -> Numbers:
        """The paired differences of the seeds, each the mean over images, shape (S,)."""
        found = self.differences
        return found.mean(1) if found.ndim == 2 else found

    @property
    def is_planned(self) -> bool:
        """Whether both arms were trained with enough common seeds."""
        return self.planned >= FEWEST_SEEDS


@dataclass(frozen=True)
class Comparison:
    """A claim at one dataset, SDE and objective.

    Arguments:
        claim: the claim.
        place: dataset, SDE and objective; of a claim without any run, the dataset alone.
        baseline: the treatment's numbers and the baseline's.
        controls: the treatment's and those of each control that the claim lists, by its name and the variant chosen.
        lacking: samplers of the metric by which there is no sound number here: the mean over the others is another metric's.
    """

    claim: Claim
    place: dict[str, str]
    baseline: Paired = Paired()
    controls: Mapping[str, Paired] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    @property
    def run_controls(self) -> int:
        """How many of the controls were trained with enough seeds."""
        return sum(control.is_planned for control in self.controls.values())


def compare(
    values: pd.DataFrame, images: pd.DataFrame, claims: Claims, failed_beyond: Mapping[str, float] | None = None
) -> list[Comparison]:
    """Pair the numbers of every claim, once for each dataset, SDE and objective that has data.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
        claims: the claims.
        failed_beyond: by a metric's name, the number above which a run has failed.

    Raises:
        ArtifactError: if a number stands in the tidy table twice, or the runs of a dataset have not the same images, each once.
    """
    refuse_repeats(values)
    refuse_other_images(images)
    tables = Tables(values, images, failed_beyond or {}, values[RUN_KEY].drop_duplicates())
    return [found for claim in claims.claims for found in _of_claim(tables, claim, claims.controls)]


def family_sizes(compared: list[Comparison]) -> list[int]:
    """Count, for each row, of how many rows any may be decided: a primary one, of all primary ones that are planned."""
    primary = sum(one.claim.family == "primary" and one.baseline.is_planned for one in compared)
    return [max(primary, 1) if one.claim.family == "primary" else 1 for one in compared]


def _of_claim(tables: Tables, claim: Claim, controls: Mapping[str, Control]) -> list[Comparison]:
    values, metric = tables.values, claim.metric
    # A treatment that failed everywhere is known by its training, where another arm was measured.
    measured = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)][PLACE]
    trained = _of_arm(tables.trained, {}, claim.treatment)[PLACE]
    places = trained.drop_duplicates().merge(measured.drop_duplicates(), on=PLACE)
    where: list[list[str]] = [claim.where.datasets, [*claim.where.sdes], [*claim.where.objectives]]
    for key, allowed in zip(PLACE, where, strict=True):
        places = places[places[key].isin(allowed)] if allowed else places
    found = _select(tables, metric)
    compared = [_at(tables, found, claim, controls, place) for place in records(places)]
    known = {one.place["dataset"] for one in compared}
    absent = [name for name in claim.where.datasets or [""] if name not in known]
    if claim.where.datasets or not compared:
        compared += [Comparison(claim, {"dataset": name}) for name in absent]
    return compared


def _at(
    tables: Tables, found: pd.DataFrame, claim: Claim, controls: Mapping[str, Control], place: dict[str, str]
) -> Comparison:
    """Compare at one dataset, SDE and objective, by the numbers found of the claim's metric."""
    found = _of_place(found, {key: place[key] for key in ("dataset", "sde")})
    paired = {}
    for name in claim.controls:
        control = controls[name]
        arm = _choose(tables, control, place)
        chosen = f"{name} ({arm.variant})" if arm and control.choose_by else name
        sampled = _sampled(tables, found, claim.metric, control.sampler) if control.sampler else found
        paired[chosen] = _paired(tables, found, sampled, claim, place, arm) if arm else Paired()
    known = set(_of_place(found, place)["sampler"])
    return Comparison(
        claim,
        place,
        _paired(tables, found, found, claim, place, claim.baseline),
        paired,
        tuple(sampler for sampler in claim.metric.sampler or [] if sampler not in known),
    )


def _paired(
    tables: Tables,
    found: pd.DataFrame,
    others: pd.DataFrame,
    claim: Claim,
    place: Mapping[str, str],
    arm: Side | Bound,
) -> Paired:
    """Pair the treatment's numbers, among those found, with the arm's, among the others."""
    treated = _numbers(found, claim.metric, place, claim.treatment)
    seeds = _seeds(tables, place, claim.treatment)
    if isinstance(arm, Bound):
        number = TRANSFORMS[claim.metric.transform][0](arm.value)
        other = pd.DataFrame(number, index=seeds, columns=treated.columns)
    else:
        seeds = seeds.intersection(_seeds(tables, place, arm))
        other = _numbers(others, claim.metric, place, arm)
        if _by_shares(claim.metric) and len(seeds):
            own, length = (_steps(tables, place, one) for one in (claim.treatment, arm))
            other = _at_shares_of(own / length, other)
    if claim.metric.stage == "sweep":
        # What was swept here, by whichever arm, and not what came out of these two.
        swept = [_of_place(rows, place)[CELL].drop_duplicates() for rows in (found, others)]
        cells: pd.Index[Any] = pd.MultiIndex.from_frame(swept[0].merge(swept[1]))
        if cells.empty:
            return Paired()
    else:
        cells = treated.columns.union(other.columns)
        # Measured at other steps, neither has failed, and nothing can be compared.
        if len(cells) == len(treated.columns) + len(other.columns) and len(treated.columns) and len(other.columns):
            return Paired(planned=len(seeds))
    return _of_sound_seeds(treated.reindex(seeds, columns=cells), other.reindex(seeds, columns=cells), claim)


def _of_sound_seeds(treated: pd.DataFrame, other: pd.DataFrame, claim: Claim) -> Paired:
    """Average over samplers and x the numbers of the seeds that have all of them in both arms, of those that were planned."""
    if treated.empty:
        return Paired(planned=len(treated), failed_treatment=len(treated), failed_against=len(other))
    failed, failed_other = (pd.Series(~np.isfinite(arm.to_numpy()).all(1), arm.index) for arm in (treated, other))
    sound = ~(failed | failed_other)
    return Paired(
        tuple(int(seed) for seed in treated.index[sound]),
        _of_seeds(treated[sound]),
        _of_seeds(other[sound]),
        1 if claim.direction == "lower" else -1,
        len(treated),
        int(failed.sum()),
        int(failed_other.sum()),
    )


def _of_seeds(laid_out: pd.DataFrame) -> Numbers:
    """Average over the samplers each one's mean over x: shape (S,), or (S, I) of images."""
    of_samplers = laid_out.T.groupby(["sampler", "image"]).mean()
    of_images: Numbers = of_samplers.groupby("image").mean().T.to_numpy()
    return of_images[:, 0] if of_images.shape[1] == 1 else of_images


def _seeds(tables: Tables, place: Mapping[str, str], arm: Side) -> "pd.Index[int]":
    """List the seeds that an arm was trained with: those of which any number is known."""
    return pd.Index(sorted(_of_arm(tables.trained, place, arm)["seed"].dropna()))


def _steps(tables: Tables, place: Mapping[str, str], arm: Side) -> float:
    """Return the length of an arm's trainings."""
    values = _of_arm(tables.values, place, arm)
    return float(values[(values["stage"] == "train") & (values["metric"] == "steps")]["value"].max())


def _of_place(found: pd.DataFrame, place: Mapping[str, str]) -> pd.DataFrame:
    return found[np.logical_and.reduce([found[key] == text for key, text in place.items()])]


def _of_arm(found: pd.DataFrame, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    keys = dict(place) | {"model": arm.model, "variant": arm.variant}
    return _of_place(found, keys | ({"objective": arm.objective} if arm.objective else {}))


def _by_shares(metric: Metric) -> bool:
    """Whether arms are compared at equal shares of their trainings."""
    return metric.stage == "curve" and isinstance(metric.x, list)


def _select(tables: Tables, metric: Metric) -> pd.DataFrame:
    """Select the sound numbers of a metric, transformed: those of single images where there are such, else one per run."""
    values, images = tables.values, tables.images
    found = images[images["stage"] == metric.stage] if metric.name in images else images[:0]
    if len(found) > 0:
        found = found.assign(sampler="", value=found[metric.name]).dropna(subset="value")
    else:
        found = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)].assign(image=0)
        found = found[_is_sound(found, metric.stage)] if metric.stage in ("sweep", "toy2d") else found
    found = found if metric.sampler is None else found[found["sampler"].isin(metric.sampler)]
    found = found.assign(x=found["x"].astype(float).fillna(0.0))
    found = found[found["x"].between(metric.x[0], metric.x[1])] if isinstance(metric.x, list) else found
    return _transformed(found, metric, tables.failed_beyond.get(metric.name, np.inf))


def _is_sound(found: pd.DataFrame, stage: str) -> "pd.Series[bool]":
    """Say which numbers a sampler is stated to be sound at; of a sweep, those of which it is not said are not."""
    sound = pd.to_numeric(found["sound"], errors="coerce") if "sound" in found else pd.Series(np.nan, found.index)
    return sound.astype(float) == 1 if stage == "sweep" else sound.astype(float) != 0


def _transformed(found: pd.DataFrame, metric: Metric, most: float) -> pd.DataFrame:
    """Transform each number by its linear part at the mean over images, so that their mean becomes the transform's.

    Those of a run whose mean lies above ``most`` are not numbers.
    """
    transform, derivative = TRANSFORMS[metric.transform]
    value = found["value"].astype(float)
    mean = value.groupby([found[key] for key in [*RUN_KEY, "sampler", "x"]]).transform("mean")
    mean = mean.where(mean <= most)
    with np.errstate(invalid="ignore", divide="ignore"):
        return found.assign(value=transform(mean) + derivative(mean) * (value - mean) + 0 * mean)


def _numbers(found: pd.DataFrame, metric: Metric, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    """Lay out an arm's numbers: one row per seed, one column per sampler, x and image."""
    found = _of_arm(found, place, arm)
    if metric.x == "last":
        # Trained longer, an arm ends at another step; its last is its last.
        found = found[found["x"] == found["x"].max()].assign(x=0.0)
    return found.pivot(index="seed", columns=CELL, values="value")


def _sampled(tables: Tables, found: pd.DataFrame, metric: Metric, sampler: str) -> pd.DataFrame:
    """Select the numbers of a metric by one sampler, once for each of the metric's own: to be compared with each."""
    by_one = _select(tables, metric.model_copy(update={"sampler": [sampler]}))
    return pd.concat([by_one.assign(sampler=name) for name in found["sampler"].unique()] or [by_one[:0]])


def _at_shares_of(ratio: float, compared: pd.DataFrame) -> pd.DataFrame:
    """Name an arm's snapshots by the treatment's steps at the same share of its training, to the nearest step.

    Arguments:
        ratio: steps of the treatment's training over those of the arm's.
        compared: the arm's numbers, laid out.
    """
    columns = compared.columns.to_frame()
    columns["x"] = (columns["x"] * ratio).round()
    return compared.set_axis(pd.MultiIndex.from_frame(columns), axis="columns").loc[:, ~columns.duplicated().to_numpy()]


def _choose(tables: Tables, control: Control, place: Mapping[str, str]) -> Side | None:
    """Choose the variant of a control with the smallest validation metric; none where it was not measured."""
    arms = [Side(model=control.model, variant=variant, objective=control.objective) for variant in control.variants]
    if control.choose_by is None:
        return arms[0]
    found = _select(tables, control.choose_by)
    numbers = [_numbers(found, control.choose_by, place, arm).to_numpy() for arm in arms]
    measured = {i: float(np.nanmean(one)) for i, one in enumerate(numbers) if np.isfinite(one).any()}
    return arms[min(measured, key=lambda i: measured[i])] if measured else None
