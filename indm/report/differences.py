r"""The paired numbers from which claims are graded, taken from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b another model, both trained with seed s, and f the metric's transform. With several numbers of steps, f
is averaged over the steps.

Likelihoods are measured on the same images i in all runs, and their interval crosses seeds and images
(:mod:`indm.report.intervals`). The transform applies to the mean over images, so each image enters through the linear part at
that mean (the delta method):

.. math:: d_{si} = \pm (f_i(b_s) - f_i(a_s)), \qquad f_i(a) = f(\bar a) + f'(\bar a)(a_i - \bar a), \qquad
    \frac{1}{I} \sum_i f_i(a) = f(\bar a).

Learning curves are compared at equal shares of each model's training, because two models that train for equal FLOPs in total
have not spent equal FLOPs at equal steps.

FID and metrics of known densities have no numbers for single images. Each seed samples its own, so the spread of the seeds
includes that noise.

A seed of a model has failed if it was trained and one of its numbers is missing, not finite, or above the suite's
``failed_beyond``. A seed that was registered but not trained counts as failed, too, because its number is missing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indm.fields import cell_name
from indm.report.catalogue import CELL, PLACE
from indm.report.claims import BEST_SCALE, CHOSEN, Bound, Claim, Claims, GradingParams, Metric, Side
from indm.report.intervals import Numbers, by_cluster
from indm.report.names import REFERENCE
from indm.report.numbers import RUN_KEY, decoders, refuse_other_images, refuse_repeats
from indm.report.registrations import Seeds
from indm.report.rows import records
from indm.variants import FROZEN_FLOW, SAME_COMPUTE

# The three comparisons of each claim; a comparison with a fixed number; and an exploratory one, with a further control.
STEPS, COMPUTE, SIMPLE = "equal steps", "equal compute", "simple control"
COMPARISONS = (STEPS, COMPUTE, SIMPLE)
FIXED_NUMBER, CONTROL = "fixed number", "control"
# The numbers of stage nll that have a decoder, and the end of their names with the fixed one.
WITH_DECODER, FIXED = ("nelbo", "nll"), "_fixed"
# Each transform, and its derivative.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "signed": (lambda values: values, lambda values: 1.0),
    "log": (np.log, lambda values: 1 / values),
}


@dataclass(frozen=True)
class Tables:
    """The tables from which claims are graded: the tidy table, the likelihoods of images, and how the suite is graded.

    ``failed_beyond`` is the number above which a run has failed, by metric, or by ``toy2d.<metric>`` for known densities;
    ``trained`` has the runs with any number, each once; ``registered`` has the registered seeds of cells.
    """

    values: pd.DataFrame
    images: pd.DataFrame
    grading: GradingParams
    failed_beyond: Mapping[str, float]
    trained: pd.DataFrame
    decoders: Mapping[tuple[str, ...], str]
    registered: Seeds


@dataclass(frozen=True)
class Paired:
    """The transformed numbers of the treatment and of another model, paired: positive if the treatment is better.

    Arguments:
        seeds: the S seeds that are sound in both models.
        differences: one for each of these seeds, shape (S,), or for each seed and image, shape (S, I), in the unit of the
            transformed metric: bits/dim for likelihoods, none for the logarithm of FID. If the images come in clusters, the
            differences have a column for each cluster.
        planned: number of seeds with which both models were trained or registered.
        failed_treatment: number of these seeds on which the treatment failed.
        failed_against: number of these seeds on which the other model failed.
        clustered: number of images, if they come in clusters; otherwise ``None``.
    """

    seeds: tuple[int, ...] = ()
    differences: Numbers = field(default_factory=lambda: np.empty(0))
    planned: int = 0
    failed_treatment: int = 0
    failed_against: int = 0
    clustered: int | None = None

    @property
    def of_seeds(self) -> Numbers:
        """The paired differences of the seeds, averaged over images, shape (S,), in the same unit."""
        return self.differences.mean(1) if self.differences.ndim == 2 else self.differences


class Comparison(NamedTuple):
    """A claim at one place, a dataset, SDE and objective, against one model, empty if it is not named.

    ``kind`` is one of :data:`COMPARISONS`, or :data:`FIXED_NUMBER` or :data:`CONTROL`; ``protocol`` is the decoder or sampler
    of the treatment and, if it differs, of the other model; ``why_absent`` says why there are no numbers, unless the model was
    not run. ``struck`` counts the seeds that both models were registered with but not trained with, and ``added`` the reverse.
    """

    claim: Claim
    place: dict[str, str]
    kind: str
    against: str
    paired: Paired = Paired()
    protocol: str = ""
    why_absent: str = ""
    struck: int = 0
    added: int = 0

    @property
    def is_primary(self) -> bool:
        """Whether it shares the error rate of its question."""
        return self.claim.family == "primary" and self.kind != CONTROL


def compare(
    values: pd.DataFrame,
    images: pd.DataFrame,
    claims: Claims,
    grading: GradingParams,
    failed_beyond: Mapping[str, float] | None = None,
    registered: Seeds | None = None,
) -> list[Comparison]:
    """Pair the numbers of every claim, once for each dataset, SDE and objective that has data, with each model it names.

    Arguments:
        values: the tidy table of a suite.
        images: its likelihoods of images.
        claims: the claims.
        grading: how the suite is graded.
        failed_beyond: the number above which a run has failed, by metric.
        registered: the seeds of the cells that were registered; other cells have the seeds with which they were trained.

    Raises:
        ArtifactError: if the tidy table has a number twice, or the runs of a dataset do not have the same images, each once.
    """
    refuse_repeats(values)
    refuse_other_images(images)
    trained = values[RUN_KEY].drop_duplicates()
    chosen = decoders(values, grading.decoder)
    tables = Tables(values, images, grading, failed_beyond or {}, trained, chosen, registered or {})
    return [found for claim in claims.claims for place in _places(tables, claim) for found in _at(tables, claim, place)]


def _places(tables: Tables, claim: Claim) -> list[dict[str, Any]]:
    """List where the treatment was trained and any model was measured: also where every treatment failed."""
    values, metric = tables.values, claim.metric
    names = [metric.name, f"{metric.name}{FIXED}"] if metric.name in WITH_DECODER else [metric.name]
    measured = values[(values["stage"] == metric.stage) & values["metric"].isin(names)][PLACE]
    trained = _of_arm(tables.trained, {}, claim.treatment)[PLACE].drop_duplicates()
    places = trained.merge(measured.drop_duplicates(), on=PLACE)
    where: list[list[str]] = [claim.where.datasets, [*claim.where.sdes], [*claim.where.objectives]]
    for key, allowed in zip(PLACE, where, strict=True):
        places = places[places[key].isin(allowed)] if allowed else places
    return records(places)


def _at(tables: Tables, claim: Claim, place: dict[str, str]) -> Iterator[Comparison]:
    """Yield the comparisons of a claim at one place."""
    for kind, arm in _arms(tables.grading, claim):
        against = "" if arm is None else f"{arm.value:g}" if isinstance(arm, Bound) else name_of(arm)
        found = Comparison(claim, place, kind, against)
        if arm is None:
            yield found._replace(why_absent="the suite does not name one")
        elif claim.metric.sampler == CHOSEN and tables.grading.samplers is None:
            yield found._replace(why_absent="samplers were not chosen beforehand, on validation images")
        else:
            yield _paired(tables, found, arm)


def _arms(grading: GradingParams, claim: Claim) -> Iterator[tuple[str, Side | Bound | None]]:
    """Yield the models with which the treatment is compared, each with the kind of the comparison."""
    if claim.baseline:
        at_compute = isinstance(claim.baseline, Side) and claim.baseline.variant == SAME_COMPUTE
        yield FIXED_NUMBER if isinstance(claim.baseline, Bound) else COMPUTE if at_compute else STEPS, claim.baseline
        return
    controls = grading.toy2d if claim.metric.stage == "toy2d" else grading.images
    named = {STEPS: "", COMPUTE: SAME_COMPUTE, SIMPLE: controls.simple}
    for kind, variant in named.items():
        yield kind, None if variant is None else Side(model=REFERENCE, variant=variant)
    for name in claim.controls:
        variant = controls.scale if name == BEST_SCALE else name
        if variant and variant not in named.values():
            yield CONTROL, Side(model=claim.treatment.model if name == FROZEN_FLOW else REFERENCE, variant=variant)


def name_of(arm: Side) -> str:
    """Write a model, its variant and, if it is not the treatment's, its objective."""
    return " ".join(filter(None, (arm.model, arm.variant, arm.objective)))


class Laid(NamedTuple):
    """A model's numbers, a row per seed and a column per sampler, x and image; the columns of all models at this place.

    ``protocol`` is the decoder or sampler behind them; empty without one, or if it could not be chosen.
    """

    numbers: pd.DataFrame
    cells: "pd.Index[Any]"
    protocol: str


def _paired(tables: Tables, found: Comparison, arm: Side | Bound) -> Comparison:
    """Pair the treatment's numbers with the numbers of another model."""
    claim, place = found.claim, found.place
    arms = [claim.treatment] if isinstance(arm, Bound) else [claim.treatment, arm]
    trained_of = [_seeds(tables, place, one) for one in arms]
    registered_of = [_registered(tables, place, one) for one in arms]
    trained, registered = (reduce(pd.Index.intersection, each) for each in (trained_of, registered_of))
    seeds = trained.union(registered)
    if not len(seeds):
        return found
    found = found._replace(struck=len(registered.difference(trained)), added=len(trained.difference(registered)))
    if not all(map(len, trained_of)):
        # A model whose registered seeds were all struck has no decoder and no steps.
        missing = [len(seeds.difference(each)) for each in trained_of]
        return found._replace(paired=Paired((), np.empty(0), len(seeds), *missing))
    own = _laid_out(tables, claim, place, claim.treatment)
    if isinstance(arm, Bound):
        number = TRANSFORMS[claim.metric.transform][0](arm.value)
        other = own._replace(numbers=pd.DataFrame(number, index=seeds, columns=own.numbers.columns))
    else:
        other = _laid_out(tables, claim, place, arm)
        if claim.metric.stage == "curve":
            # A model's snapshots, at the treatment's steps at the same share of its training, to the nearest step.
            columns = other.numbers.columns.to_frame()
            columns["x"] = columns["x"] * _steps(tables, place, claim.treatment) / _steps(tables, place, arm)
            renamed = pd.MultiIndex.from_frame(columns.assign(x=columns["x"].round()))
            numbers = other.numbers.set_axis(renamed, axis="columns")
            other = other._replace(numbers=numbers.loc[:, ~renamed.duplicated()])
    if _has_decoder(claim.metric) and not (own.protocol and other.protocol):
        return found._replace(why_absent="numbers of both decoders, which choose one, are missing")
    found = found._replace(protocol=" against ".join(dict.fromkeys(filter(None, (own.protocol, other.protocol)))))
    sides, swept = (own.numbers.columns, other.numbers.columns), claim.metric.stage == "sweep"
    # In a sweep, the numbers of steps at which any model was sampled here, not only these two.
    cells = own.cells.intersection(other.cells) if swept else sides[0].union(sides[1])
    # Measured at different steps, neither model has failed, but they cannot be compared.
    if (cells if swept else sides[0].intersection(sides[1])).empty and (swept or all(map(len, sides))):
        return found._replace(paired=Paired(planned=len(seeds)), why_absent="they have no numbers at the same steps")
    treated, against = (side.numbers.reindex(seeds, columns=cells) for side in (own, other))
    paired = _of_sound_seeds(treated, against, claim)
    return found._replace(paired=_in_clusters(paired, _clusters(tables, claim, place), cells))


def _clusters(tables: Tables, claim: Claim, place: Mapping[str, str]) -> "pd.Series[float] | None":
    """Return the cluster of each image at a place, by the image; ``None`` if images do not come in clusters there."""
    if "cluster" not in tables.images:
        return None
    images = tables.images
    here = images[(images["stage"] == claim.metric.stage) & (images["dataset"] == place["dataset"])]
    found = here.dropna(subset="cluster").drop_duplicates("image").set_index("image")["cluster"]
    return None if found.empty else found


def _in_clusters(paired: Paired, clusters: "pd.Series[float] | None", cells: "pd.Index[Any]") -> Paired:
    """Combine the differences of images into differences of clusters."""
    if clusters is None or paired.differences.ndim < 2:
        return paired
    images = np.unique(cells.get_level_values("image"))
    combined = by_cluster(paired.differences, clusters.loc[images].to_numpy())
    return replace(paired, differences=combined, clustered=len(images))


def _of_sound_seeds(treated: pd.DataFrame, other: pd.DataFrame, claim: Claim) -> Paired:
    """Average over x, for the planned seeds that have all numbers in both models; count the others as failed."""
    if treated.empty:
        failed_against = 0 if isinstance(claim.baseline, Bound) else len(other)
        return Paired(planned=len(treated), failed_treatment=len(treated), failed_against=failed_against)
    failed, failed_other = (pd.Series(~np.isfinite(arm.to_numpy()).all(1), arm.index) for arm in (treated, other))
    sound = ~(failed | failed_other)
    sign = 1 if claim.direction == "lower" else -1
    return Paired(
        tuple(int(seed) for seed in treated.index[sound]),
        sign * (_of_seeds(other[sound]) - _of_seeds(treated[sound])),
        len(treated),
        int(failed.sum()),
        int(failed_other.sum()),
    )


def _of_seeds(laid_out: pd.DataFrame) -> Numbers:
    """Average over x: shape (S,), or (S, I) with images."""
    of_images: Numbers = laid_out.T.groupby("image").mean().T.to_numpy()
    return of_images[:, 0] if of_images.shape[1] == 1 else of_images


def _seeds(tables: Tables, place: Mapping[str, str], arm: Side) -> "pd.Index[int]":
    """List the seeds with which a model was trained: the seeds that have any number."""
    return pd.Index(sorted(_of_arm(tables.trained, place, arm)["seed"].dropna()))


def _registered(tables: Tables, place: Mapping[str, str], arm: Side) -> "pd.Index[int]":
    """List the seeds with which a model was registered; without a registration, those with which it was trained."""
    trained = _seeds(tables, place, arm)
    # All models of a known density have its seeds, but a suite does not train each model.
    name = cell_name(**_cell_of(place, arm)) if place["sde"] else place["dataset"] if len(trained) else ""
    return pd.Index(tables.registered.get(name, trained))


def _cell_of(place: Mapping[str, str], arm: Side) -> dict[str, str]:
    objective = {"objective": str(arm.objective)} if arm.objective else {}
    return {**place, "model": arm.model, "variant": arm.variant, **objective}


def _of_arm(found: pd.DataFrame, place: Mapping[str, str], arm: Side) -> pd.DataFrame:
    return _of_place(found, _cell_of(place, arm))


def _of_place(found: pd.DataFrame, place: Mapping[str, str]) -> pd.DataFrame:
    return found[np.logical_and.reduce([found[key] == text for key, text in place.items()])]


def _has_decoder(metric: Metric) -> bool:
    return metric.stage == "nll" and metric.name in WITH_DECODER


def _laid_out(tables: Tables, claim: Claim, place: Mapping[str, str], arm: Side) -> Laid:
    """Lay out a model's numbers, by the decoder or the sampler that the suite's grading states."""
    metric, samplers, protocol = claim.metric, tables.grading.samplers, ""
    if _has_decoder(metric):
        cell = _cell_of(place, arm)
        decoder = tables.decoders.get(tuple(cell[key] for key in CELL), "")
        metric = metric.model_copy(update={"name": metric.name + (FIXED if decoder == "fixed" else "")})
        protocol = f"{decoder} decoder" if decoder else ""
    elif metric.sampler:
        protocol = samplers.get(arm.model, "") if samplers and metric.sampler == CHOSEN else metric.sampler
    found = _select(tables, metric, protocol if metric.sampler else "")
    here = _of_place(found, {key: place[key] for key in PLACE[:2]})
    columns = ["sampler", "x", "image"]
    cells = pd.MultiIndex.from_frame(_of_place(here, place)[columns].drop_duplicates())
    return Laid(_of_arm(here, place, arm).pivot(index="seed", columns=columns, values="value"), cells, protocol)


def _select(tables: Tables, metric: Metric, sampler: str) -> pd.DataFrame:
    """Select the sound numbers of a metric, transformed: one per image if the metric has them, else one per run."""
    values, images = tables.values, tables.images
    found = images[images["stage"] == metric.stage].dropna(subset=metric.name) if metric.name in images else images[:0]
    if len(found) > 0:
        found = found.assign(sampler="", value=found[metric.name])
    else:
        found = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)].assign(image=0)
        if metric.stage in ("sweep", "toy2d"):
            # Whether the sampler has enough steps; in a sweep, an unmarked number is not sound.
            sound = pd.to_numeric(found.get("sound", pd.Series(np.nan, found.index)), errors="coerce").astype(float)
            found = found[sound == 1 if metric.stage == "sweep" else sound != 0]
    # Each side has its own sampler, so that the samplers' names would keep the sides apart.
    found = found[found["sampler"] == sampler].assign(sampler="") if sampler else found
    found = found.assign(x=found["x"].astype(float).fillna(0.0))
    found = found[found["x"].between(metric.x[0], metric.x[1])] if metric.x else found
    key = f"toy2d.{metric.name}" if metric.stage == "toy2d" else metric.name.removesuffix(FIXED)
    return _transformed(found, metric, tables.failed_beyond.get(key, np.inf))


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


def _steps(tables: Tables, place: Mapping[str, str], arm: Side) -> float:
    """Return the number of training steps of a model."""
    values = _of_arm(tables.values, place, arm)
    return float(values[(values["stage"] == "train") & (values["metric"] == "steps")]["value"].max())
