r"""The paired numbers that claims are graded from, taken from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform. With several samplers and
numbers of steps, f is averaged over the steps of each sampler, and then over the samplers.

Likelihoods are measured on the same images i in all runs, and their interval crosses seeds and images
(:mod:`indm.report.intervals`). The transform applies to the mean over images, so each image enters through the linear part at that
mean (the delta method):

.. math:: d_{si} = \pm (f_i(b_s) - f_i(a_s)), \qquad f_i(a) = f(\bar a) + f'(\bar a)(a_i - \bar a), \qquad
    \frac{1}{I} \sum_i f_i(a) = f(\bar a).

Learning curves are compared at equal shares of each model's training, because two models that train for equal FLOPs in total have
not spent equal FLOPs at equal steps.

FID and 2-D metrics have no numbers for single images. Each seed samples its own, so the spread of the seeds includes that noise.

A seed of a model has failed if it was trained and one of its numbers is missing, not finite, or above the suite's
``failed_beyond``.
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
# Each transform, and its derivative.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "signed": (lambda values: values, lambda values: 1.0),
    "log": (np.log, lambda values: 1 / values),
}


@dataclass(frozen=True)
class Tables:
    """The tables from which claims are graded.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
        failed_beyond: the number above which a run has failed, by metric; of 2-D studies by ``toy2d.<metric>``.
        trained: the runs that have any number, each once.
    """

    values: pd.DataFrame
    images: pd.DataFrame
    failed_beyond: Mapping[str, float]
    trained: pd.DataFrame


@dataclass(frozen=True)
class Paired:
    """The transformed numbers of the treatment and of another model, for the seeds that are sound in both.

    Arguments:
        seeds: the sound seeds.
        treatment: the treatment's numbers, shape (S,) or (S, I).
        against: the other model's numbers, of the same shape.
        sign: 1 if smaller numbers are better, else -1.
        planned: number of seeds with which both models were trained.
        failed_treatment: number of these seeds that failed in the treatment.
        failed_against: number of these seeds that failed in the other model.
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
        """The paired differences of the seeds, averaged over images, shape (S,)."""
        found = self.differences
        return found.mean(1) if found.ndim == 2 else found

    @property
    def is_planned(self) -> bool:
        """Whether both models were trained with enough common seeds."""
        return self.planned >= FEWEST_SEEDS


@dataclass(frozen=True)
class Comparison:
    """A claim at one dataset, SDE and objective.

    Arguments:
        claim: the claim.
        place: dataset, SDE and objective; for a claim without any run, only the dataset.
        baseline: the treatment's numbers and the baseline's.
        controls: the numbers of the treatment and each listed control, by the control's name and chosen variant.
        lacking: samplers of the metric without a sound number here; a mean over the other samplers would be another metric.
    """

    claim: Claim
    place: dict[str, str]
    baseline: Paired = Paired()
    controls: Mapping[str, Paired] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    @property
    def run_controls(self) -> int:
        """Number of controls that were trained with enough seeds."""
        return sum(control.is_planned for control in self.controls.values())


def compare(
    values: pd.DataFrame, images: pd.DataFrame, claims: Claims, failed_beyond: Mapping[str, float] | None = None
) -> list[Comparison]:
    """Pair the numbers of every claim, once for each dataset, SDE and objective that has data.

    Arguments:
        values: the tidy table.
        images: the likelihoods of single images.
        claims: the claims.
        failed_beyond: the number above which a run has failed, by metric.

    Raises:
        ArtifactError: if the tidy table has a number twice, or the runs of a dataset do not have the same images, each once.
    """
    refuse_repeats(values)
    refuse_other_images(images)
    tables = Tables(values, images, failed_beyond or {}, values[RUN_KEY].drop_duplicates())
    return [found for claim in claims.claims for found in _of_claim(tables, claim, claims.controls)]


def family_sizes(compared: list[Comparison]) -> list[int]:
    """Return for each row the number of tests that share its error rate: all planned primary rows, or 1 for an exploratory row."""
    primary = sum(one.claim.family == "primary" and one.baseline.is_planned for one in compared)
    return [max(primary, 1) if one.claim.family == "primary" else 1 for one in compared]


def _of_claim(tables: Tables, claim: Claim, controls: Mapping[str, Control]) -> list[Comparison]:
    values, metric = tables.values, claim.metric
    # A treatment that failed everywhere has no measurement, but its trainings show the places where another model was measured.
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
    """Compare at one dataset, SDE and objective, using the numbers ``found`` for the claim's metric."""
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
    """Pair the treatment's numbers, from ``found``, with the numbers of another model, from ``others``."""
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
        # The cells that any model swept here, not only the cells with numbers of these two.
        swept = [_of_place(rows, place)[CELL].drop_duplicates() for rows in (found, others)]
        cells: pd.Index[Any] = pd.MultiIndex.from_frame(swept[0].merge(swept[1]))
        if cells.empty:
            return Paired()
    else:
        cells = treated.columns.union(other.columns)
        # Measured at different steps, neither model has failed, but they cannot be compared.
        if len(cells) == len(treated.columns) + len(other.columns) and len(treated.columns) and len(other.columns):
            return Paired(planned=len(seeds))
    return _of_sound_seeds(treated.reindex(seeds, columns=cells), other.reindex(seeds, columns=cells), claim)


def _of_sound_seeds(treated: pd.DataFrame, other: pd.DataFrame, claim: Claim) -> Paired:
    """Average over samplers and x, for the planned seeds that have all numbers in both models; count the others as failed."""
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
    """Average over x for each sampler, then over the samplers: shape (S,), or (S, I) with images."""
    of_samplers = laid_out.T.groupby(["sampler", "image"]).mean()
    of_images: Numbers = of_samplers.groupby("image").mean().T.to_numpy()
    return of_images[:, 0] if of_images.shape[1] == 1 else of_images


def _seeds(tables: Tables, place: Mapping[str, str], arm: Side) -> "pd.Index[int]":
    """List the seeds with which a model was trained: the seeds that have any number."""
    return pd.Index(sorted(_of_arm(tables.trained, place, arm)["seed"].dropna()))


def _steps(tables: Tables, place: Mapping[str, str], arm: Side) -> float:
    """Return the number of training steps of a model."""
    values = _of_arm(tables.values, place, arm)
    return float(values[(values["stage"] == "train") & (values["metric"] == "steps")]["value"].max())


def _of_place(found: pd.DataFrame, place: Mapping[str, str]) -> pd.DataFrame:
    return found[np.logical_and.reduce([found[key] == text for key, text in place.items()])]


def _of_arm(found: pd.DataFrame, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    keys = dict(place) | {"model": arm.model, "variant": arm.variant}
    return _of_place(found, keys | ({"objective": arm.objective} if arm.objective else {}))


def _by_shares(metric: Metric) -> bool:
    """Return whether models are compared at equal shares of their training."""
    return metric.stage == "curve" and isinstance(metric.x, list)


def _select(tables: Tables, metric: Metric) -> pd.DataFrame:
    """Select the sound numbers of a metric, transformed: one per image if the metric has them, else one per run."""
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
    place = "toy2d." if metric.stage == "toy2d" else ""
    return _transformed(found, metric, tables.failed_beyond.get(f"{place}{metric.name}", np.inf))


def _is_sound(found: pd.DataFrame, stage: str) -> "pd.Series[bool]":
    """Mark the numbers with enough sampler steps to be sound; in a sweep, an unmarked number is not sound."""
    sound = pd.to_numeric(found["sound"], errors="coerce") if "sound" in found else pd.Series(np.nan, found.index)
    return sound.astype(float) == 1 if stage == "sweep" else sound.astype(float) != 0


def _transformed(found: pd.DataFrame, metric: Metric, most: float) -> pd.DataFrame:
    """Transform each number by its linear part at the mean over images, so that their mean becomes the transform's.

    All numbers of a run become NaN if their mean lies above ``most``.
    """
    transform, derivative = TRANSFORMS[metric.transform]
    value = found["value"].astype(float)
    mean = value.groupby([found[key] for key in [*RUN_KEY, "sampler", "x"]]).transform("mean")
    mean = mean.where(mean <= most)
    with np.errstate(invalid="ignore", divide="ignore"):
        return found.assign(value=transform(mean) + derivative(mean) * (value - mean) + 0 * mean)


def _numbers(found: pd.DataFrame, metric: Metric, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    """Pivot the numbers of a model: one row per seed, one column per sampler, x and image."""
    found = _of_arm(found, place, arm)
    if metric.x == "last":
        # Models trained for different lengths end at different steps, so the last step of each becomes x = 0.
        found = found[found["x"] == found["x"].max()].assign(x=0.0)
    return found.pivot(index="seed", columns=CELL, values="value")


def _sampled(tables: Tables, found: pd.DataFrame, metric: Metric, sampler: str) -> pd.DataFrame:
    """Select the numbers of a metric by one sampler, repeated under the name of each of the metric's samplers, for pairing."""
    by_one = _select(tables, metric.model_copy(update={"sampler": [sampler]}))
    return pd.concat([by_one.assign(sampler=name) for name in found["sampler"].unique()] or [by_one[:0]])


def _at_shares_of(ratio: float, compared: pd.DataFrame) -> pd.DataFrame:
    """Rename a model's snapshots to the treatment's steps at the same share of its training, to the nearest step.

    Arguments:
        ratio: training steps of the treatment over training steps of the model.
        compared: the pivoted numbers of the model.
    """
    columns = compared.columns.to_frame()
    columns["x"] = (columns["x"] * ratio).round()
    return compared.set_axis(pd.MultiIndex.from_frame(columns), axis="columns").loc[:, ~columns.duplicated().to_numpy()]


def _choose(tables: Tables, control: Control, place: Mapping[str, str]) -> Side | None:
    """Choose the variant of a control with the smallest validation metric; ``None`` if no variant was measured."""
    arms = [Side(model=control.model, variant=variant, objective=control.objective) for variant in control.variants]
    if control.choose_by is None:
        return arms[0]
    found = _select(tables, control.choose_by)
    numbers = [_numbers(found, control.choose_by, place, arm).to_numpy() for arm in arms]
    measured = {i: float(np.nanmean(one)) for i, one in enumerate(numbers) if np.isfinite(one).any()}
    return arms[min(measured, key=lambda i: measured[i])] if measured else None
