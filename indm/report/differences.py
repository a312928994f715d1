r"""The differences that claims are graded from, taken from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform.

Likelihoods are of the same images i in all runs, and their interval crosses seeds and images (:mod:`indm.report.intervals`). The
transform is of the mean over images, so that each image counts by its linear part there, the delta method:

.. math:: d_{si} = \pm (f_i(b_s) - f_i(a_s)), \qquad f_i(a) = f(\bar a) + f'(\bar a)(a_i - \bar a), \qquad
    \frac{1}{I} \sum_i f_i(a) = f(\bar a).

A learning curve is compared at equal shares of each arm's training: at equal steps, an arm that is trained for as many FLOPs as
another would have spent fewer.

FID and 2-D data have no numbers of single images; each seed draws its own, so that their noise is in the spread of the seeds.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from indm.report.intervals import Numbers
from indm.report.results import RUN_KEY, records
from indm.report.values import refuse_other_images, refuse_repeats
from indm.suite.claims import Bound, Claim, Claims, Control, Metric, Side

PLACE = ["dataset", "sde", "objective"]
# Each with its derivative.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "signed": (lambda values: values, lambda values: 1.0),
    "abs": (np.abs, np.sign),
    "log": (np.log, lambda values: 1 / values),
}


@dataclass(frozen=True)
class Tables:
    """What claims are graded from.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
    """

    values: pd.DataFrame
    images: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """A claim at one dataset, SDE and objective.

    Arguments:
        claim: the claim.
        place: dataset, SDE and objective; of a claim without any run, the dataset alone.
        has_run: whether there is a run of the treatment.
        against: differences from the baseline, shape (S,) or (S, I); empty where no seed is shared.
        controls: differences from each control that has runs, by its name and the variant chosen.
        absent: controls that have no run here.
        failed: cells of a sweep or of a learning curve that one of the arms has and another lacks, in words: an arm that fails
            where sampling is hardest would be compared where it does not. So are the metric's samplers that no arm has.
    """

    claim: Claim
    place: dict[str, str]
    has_run: bool = True
    against: Numbers = field(default_factory=lambda: np.empty(0))
    controls: Mapping[str, Numbers] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def compare(values: pd.DataFrame, images: pd.DataFrame, claims: Claims) -> list[Comparison]:
    """Take the differences of every claim, once for each dataset, SDE and objective that has data.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
        claims: the claims.

    Raises:
        ArtifactError: if a number stands in the tidy table twice, or the runs of a dataset have not the same images, each once.
    """
    refuse_repeats(values)
    refuse_other_images(images)
    tables = Tables(values, images)
    return [found for claim in claims.claims for found in _of_claim(tables, claim, claims.controls)]


def _of_claim(tables: Tables, claim: Claim, controls: Mapping[str, Control]) -> list[Comparison]:
    found = _select(tables, claim.metric)
    treated = _treated(tables, found, claim)
    where: list[list[str]] = [claim.where.datasets, [*claim.where.sdes], [*claim.where.objectives]]
    for key, allowed in zip(PLACE, where, strict=True):
        treated = treated[treated[key].isin(allowed)] if allowed else treated
    compared = [_at(tables, found, claim, controls, place) for place in records(treated[PLACE].drop_duplicates())]
    absent = [name for name in claim.where.datasets or [""] if name not in {one.place["dataset"] for one in compared}]
    if claim.where.datasets or not compared:
        compared += [_without_run(tables.values, claim, name) for name in absent]
    return compared


def _without_run(values: pd.DataFrame, claim: Claim, dataset: str) -> Comparison:
    """Return a claim without data: where others were measured, the claim's samplers may be all that is lacking."""
    metric = claim.metric
    keys = {"stage": metric.stage, "metric": metric.name, "dataset": dataset}
    others = values[np.logical_and.reduce([values[key] == text for key, text in keys.items()])]
    failed = _unsampled(metric, others["sampler"]) if len(others) else []
    return Comparison(claim, {"dataset": dataset}, has_run=False, failed=failed)


def _treated(tables: Tables, found: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Select the numbers of the treatment; of a sweep its trainings too, where an arm has numbers: it may have failed in all."""
    if claim.metric.stage == "sweep":
        trainings = tables.values[tables.values["stage"] == "train"]
        found = pd.concat([found, trainings.merge(found[PLACE].drop_duplicates(), on=PLACE)])
    arm = {key: text for key, text in claim.treatment.model_dump().items() if text is not None}
    return found[np.logical_and.reduce([found[key] == text for key, text in arm.items()])]


def _at(
    tables: Tables, found: pd.DataFrame, claim: Claim, controls: Mapping[str, Control], place: dict[str, str]
) -> Comparison:
    """Compare at one dataset, SDE and objective, by the numbers found of the claim's metric."""
    treated = _numbers(found, claim.metric, place, claim.treatment)
    absent = [name for name in claim.controls if not _has_run(tables.values, controls[name], place, claim.metric)]
    others: dict[str, pd.DataFrame] = {}
    arms: dict[str, Side | Bound] = {"treatment": claim.treatment, "baseline": claim.baseline}
    for name in (name for name in claim.controls if name not in absent):
        control = controls[name]
        arm = _choose(tables, control, place)
        chosen = f"{name} ({arm.variant})" if arm and control.choose_by else name
        sampled = _sampled(tables, claim.metric, control.sampler) if control.sampler else found
        others[chosen] = _compared(tables, treated, sampled, claim, place, arm) if arm else treated[:0]
        arms |= {chosen: arm} if arm else {}
    baseline = _compared(tables, treated, found, claim, place, claim.baseline)
    laid_out = {"treatment": treated, "baseline": baseline, **others}
    return Comparison(
        claim,
        place,
        True,
        _differences(treated, baseline, claim),
        {name: _differences(treated, other, claim) for name, other in others.items()},
        absent,
        _unsampled(
            claim.metric, [name for arm in laid_out.values() for name in arm.columns.get_level_values("sampler")]
        )
        + _failed(claim.metric, {name: _all_seeds(tables, laid_out[name], place, arm) for name, arm in arms.items()}),
    )


def _unsampled(metric: Metric, known: Iterable[str]) -> list[str]:
    """Name the samplers of a metric that no arm has numbers by: the mean over the others would be another metric's."""
    return [f"{sampler} (no arm has it)" for sampler in metric.sampler or [] if sampler not in set(known)]


def _failed(metric: Metric, arms: Mapping[str, pd.DataFrame]) -> list[str]:
    """Name the cells of a sweep, or of a learning curve, that one of the arms has and another lacks, for some seed or for all."""
    if metric.stage != "sweep" and not _by_shares(metric):
        return []
    # Whether a seed has a number, of any image.
    known = {name: arm.notna().T.groupby(["sampler", "x"], sort=False).any().T for name, arm in arms.items()}
    cells: dict[Any, None] = dict.fromkeys(cell for arm in known.values() for cell in arm.columns)
    missing = {
        (name, cell): len(arm) - (int(arm[cell].sum()) if cell in arm else 0)
        for name, arm in known.items()
        for cell in cells
    }
    return [
        f"{', '.join(filter(None, [name, sampler, f'{x:g} steps']))} ({count} of {len(known[name])} seeds)"
        for (name, (sampler, x)), count in missing.items()
        if count
    ]


def _all_seeds(tables: Tables, laid_out: pd.DataFrame, place: Mapping[str, str], arm: Side | Bound) -> pd.DataFrame:
    """Add a row for each training of an arm that has no number at all."""
    if isinstance(arm, Bound):
        return laid_out
    trained = _trainings(tables, place, arm)["seed"]
    return laid_out.reindex(laid_out.index.union(pd.Index(trained.unique())))


def _trainings(tables: Tables, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    """Select the lengths of an arm's trainings: the rows of metric ``steps``."""
    values = tables.values
    return _of_arm(values[(values["stage"] == "train") & (values["metric"] == "steps")], place, arm)


def _of_arm(found: pd.DataFrame, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    keys = dict(place) | {"model": arm.model, "variant": arm.variant}
    keys |= {"objective": arm.objective} if arm.objective else {}
    return found[np.logical_and.reduce([found[key] == text for key, text in keys.items()])]


def _by_shares(metric: Metric) -> bool:
    """Whether arms are compared at equal shares of their trainings."""
    return metric.stage == "curve" and isinstance(metric.x, list)


def _has_run(values: pd.DataFrame, control: Control, place: Mapping[str, str], metric: Metric) -> bool:
    """Whether a control has a run at a dataset, SDE and objective, and images by its sampler, if it has one."""
    keys = dict(place) | {"model": control.model} | ({"objective": control.objective} if control.objective else {})
    keys |= {"stage": metric.stage, "sampler": control.sampler} if control.sampler else {}
    here = np.logical_and.reduce([values[key] == text for key, text in keys.items()])
    return bool((here & values["variant"].isin(control.variants)).any())


def _select(tables: Tables, metric: Metric) -> pd.DataFrame:
    """Select the numbers of a metric, transformed: those of single images where there are such, else one per run."""
    values, images = tables.values, tables.images
    found = images[images["stage"] == metric.stage] if metric.name in images else images[:0]
    if len(found) > 0:
        found = found.assign(sampler="", value=found[metric.name]).dropna(subset="value")
    else:
        found = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)].assign(image=0)
    found = found if metric.sampler is None else found[found["sampler"].isin(metric.sampler)]
    return _transformed(found.assign(x=found["x"].fillna(0.0)), metric)


def _transformed(found: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Transform each number by its linear part at the mean over images, so that their mean becomes the transform's."""
    transform, derivative = TRANSFORMS[metric.transform]
    value = found["value"].astype(float)
    mean = value.groupby([found[key] for key in [*RUN_KEY, "sampler", "x"]]).transform("mean")
    return found.assign(value=transform(mean) + derivative(mean) * (value - mean))


def _numbers(found: pd.DataFrame, metric: Metric, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    """Lay out an arm's numbers: one row per seed, one column per sampler, x and image."""
    found = _of_arm(found, place, arm)
    if isinstance(metric.x, list):
        found = found[found["x"].between(metric.x[0], metric.x[1])]
    elif metric.x == "last":
        # Trained longer, an arm ends at another step; its last is its last.
        found = found[found["x"] == found["x"].max()].assign(x=0.0)
    return found.pivot(index="seed", columns=["sampler", "x", "image"], values="value")


def _sampled(tables: Tables, metric: Metric, sampler: str) -> pd.DataFrame:
    """Select the numbers of a metric by one sampler, once for each of the metric's own: to be compared with each."""
    found = _select(tables, metric.model_copy(update={"sampler": [sampler]}))
    own = _select(tables, metric)["sampler"].unique()
    return pd.concat([found.assign(sampler=name) for name in own])


def _compared(
    tables: Tables,
    treated: pd.DataFrame,
    found: pd.DataFrame,
    claim: Claim,
    place: Mapping[str, str],
    other: Side | Bound,
) -> pd.DataFrame:
    """Lay out the numbers of the arm that is compared, among those found, in the columns of the treatment's."""
    if isinstance(other, Bound):
        return treated * 0 + TRANSFORMS[claim.metric.transform][0](other.value)
    compared = _numbers(found, claim.metric, place, other)
    if not _by_shares(claim.metric):
        return compared
    own, others = (_trainings(tables, place, arm)["value"].max() for arm in (claim.treatment, other))
    return _at_shares_of(own / others, compared)


def _differences(treated: pd.DataFrame, compared: pd.DataFrame, claim: Claim) -> Numbers:
    """Subtract, seed by seed, the mean over the samplers and x that both arms have: shape (S,), or (S, I) of images.

    Arguments:
        treated: the treatment's numbers, laid out.
        compared: those of the other arm.
        claim: the claim.
    """
    seeds, columns = treated.index.intersection(compared.index), treated.columns.intersection(compared.columns)
    if len(seeds) == 0 or len(columns) == 0:
        return np.empty(0)
    # The same for all seeds: a mean over what each of them has would compare unlike cells.
    lower = (compared.loc[seeds, columns] - treated.loc[seeds, columns]).dropna(axis="columns")
    if lower.empty:
        return np.empty(0)
    of_images = lower.T.groupby("image").mean().T.to_numpy() * (1 if claim.direction == "lower" else -1)
    return of_images[:, 0] if of_images.shape[1] == 1 else of_images


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
    scores = {i: _numbers(found, control.choose_by, place, arm).to_numpy() for i, arm in enumerate(arms)}
    measured = {i: float(np.nanmean(score)) for i, score in scores.items() if score.size > 0}
    return arms[min(measured, key=lambda i: measured[i])] if measured else None
