"""Checks of variants: each differs from the plain model, and a control of ``params/claims.yaml`` has the keys of its name."""

import operator
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite
    from indm.suite.schema.train import ScoreParams, TrainParams

# The key of the train section, and its value, that a control of this name needs.
CONTROLS: dict[str, tuple[str, object]] = {
    "standardised": ("latent.standardise", True),
    "learned-scale": ("latent.learned", "scale"),
    "learned-affine": ("latent.learned", "affine"),
    "learned-linear": ("latent.learned", "linear"),
    "learned-filter": ("latent.learned", "filter"),
    "learned-curve": ("latent.learned", "curve"),
    "learned-curve-filter": ("latent.learned", "curve-filter"),
    "learned-range": ("sde.vp.learned_range", True),
    "normalised-input": ("score.normalise_input", "running"),
}
SCALE = re.compile(r"scale-([0-9]+)")
# Keys that affect the records of a training, not its model.
WRITTEN = {"snapshots", "log_every"}


def variants(suite: "Suite") -> Iterator[tuple[str, str]]:
    """Yield the mistakes of variants, each with a run that has it; the runs of a cell have the same model."""
    cells: dict[tuple[str, ...], str] = {}
    for name, run in suite.runs.items():
        cells.setdefault((run.variant, run.dataset, run.sde, run.model, run.objective), name)
    for (variant, *cell), name in cells.items():
        if variant:
            yield from ((name, mistake) for mistake in _variant(suite, name, cells.get(("", *cell))))


def _variant(suite: "Suite", name: str, plain: str | None) -> Iterator[str]:
    variant, train = suite.runs[name].variant, suite.train_params(name)
    found = list(_control(variant, train))
    if plain:
        found += _beside(variant, train, plain, suite.train_params(plain))
        same_sample = suite.sample_params(name) == suite.sample_params(plain)
        if not found and same_sample and _trained(train) == _trained(suite.train_params(plain)):
            yield f"key variant: found {variant!r} for the model of run {plain}; allowed: '', or other values in train or sample"
    yield from (
        f"key train.{mistake}, since variant {variant!r} names that control; or another variant" for mistake in found
    )


def _control(variant: str, train: "TrainParams") -> Iterator[str]:
    """Check the key on which a control depends, by its own value."""
    if variant == "frozen-flow" and train.fresh_score_after is None:
        yield "fresh_score_after: found None; allowed: a number of steps"
    scale = SCALE.fullmatch(variant)
    key, expected = ("latent.scale", float(scale[1])) if scale else CONTROLS.get(variant, ("", None))
    if key and (found := operator.attrgetter(key)(train)) != expected:
        yield f"{key}: found {found!r}; allowed: {expected!r}"


def _beside(variant: str, train: "TrainParams", plain: str, of_plain: "TrainParams") -> Iterator[str]:
    """Check the keys on which a control depends, by comparison with the plain model."""
    if variant == "same-compute" and train.steps <= of_plain.steps:
        yield f"steps: found {train.steps}; allowed: more than the {of_plain.steps} steps of run {plain}"
    larger = any(own > other for own, other in zip(_size(train.score), _size(of_plain.score), strict=True))
    if variant == "same-parameters" and train.score.name == of_plain.score.name and not larger:
        yield f"score.channels: found {train.score.channels}; allowed: a larger network than in run {plain}"


def _size(score: "ScoreParams") -> tuple[int, ...]:
    return score.channels, score.blocks, sum(score.multipliers), len(score.attention_resolutions)


def _trained(train: "TrainParams") -> dict[str, object]:
    return train.model_dump(exclude=WRITTEN)
