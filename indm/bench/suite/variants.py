"""Checks of variants: each differs from the plain model, and a control of ``params/claims.yaml`` has the keys of its name."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from indm.fields import LEARNED
from indm.variants import FROZEN_FLOW, SAME_COMPUTE, SAME_PARAMETERS

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


class Control(NamedTuple):
    """The keys in which a control differs from its plain model: keys with their values, and keys with any value."""

    values: Mapping[str, object] = {}
    others: tuple[str, ...] = ()


# A map is trained as INDM's flow is, and a search finds rates for each model that has one.
OF_MAPS = ("train.lr", "train.flow_lr", "train.flow_ema_decay", "train.flow_warmup_steps")
# The exponent of a fixed filter is chosen for each dataset.
EXPONENT = "train.latent.fixed.exponent"
# Those that are compared with each other, in hundredths.
EXPONENTS = (10, 15, 20, 25, 35, 50)
FILTER = {"train.latent.fixed.curve": False, "train.latent.fixed.spectrum": "exact"}
# The scales by frequency take the place of the one for all frequencies.
SPECTRUM = {"train.score.precondition": "spectrum", "train.score.normalise_input": "none"}
CURVE = FILTER | {"train.latent.fixed.curve": True}
SIZE = ("train.score.channels", "train.score.multipliers", "train.score.blocks", "train.score.attention_resolutions")
CONTROLS = {
    **{f"learned-{name}": Control({"train.latent.learned": name}, OF_MAPS) for name in (*LEARNED, "curve-filter")},
    "standardised": Control({"train.latent.standardise": True}),
    "fixed-scale": Control(FILTER | {EXPONENT: 0.0}, OF_MAPS[:1]),
    "fixed-curve": Control(CURVE | {EXPONENT: 0.0}, OF_MAPS[:1]),
    "fixed-filter": Control(FILTER, (EXPONENT, *OF_MAPS[:1])),
    "fixed-filter-circles": Control(FILTER | {"train.latent.fixed.spectrum": "circles"}, (EXPONENT, *OF_MAPS[:1])),
    "fixed-curve-filter": Control(CURVE, (EXPONENT, *OF_MAPS[:1])),
    "v-prediction": Control({"train.score.predict": "v"}, OF_MAPS[:1]),
    "fixed-filter-v": Control(FILTER | {"train.score.predict": "v"}, (EXPONENT, *OF_MAPS[:1])),
    "learned-curve-filter-v": Control({"train.score.predict": "v", "train.latent.learned": "curve-filter"}, OF_MAPS),
    **{f"exponent-{a}": Control(FILTER | {EXPONENT: a / 100}, OF_MAPS[:1]) for a in EXPONENTS},
    **{
        f"exponent-{a}-v": Control(FILTER | {"train.score.predict": "v", EXPONENT: a / 100}, OF_MAPS[:1])
        for a in EXPONENTS
    },
    "preconditioned": Control(SPECTRUM, OF_MAPS[:1]),
    "linear-skip": Control({"train.score.precondition": "skip"}, OF_MAPS[:1]),
    "fixed-filter-preconditioned": Control(FILTER | SPECTRUM, (EXPONENT, *OF_MAPS[:1])),
    "share-eighth": Control({"train.log_det_share": 0.125}),
    "learned-range": Control({"train.sde.vp.learned_range": True}, ("train.reconstruction",)),
    "normalised-input": Control({"train.score.normalise_input": "running"}),
    SAME_COMPUTE: Control(others=("train.steps",)),
    "twice-the-steps": Control(others=("train.steps",)),
    SAME_PARAMETERS: Control(others=SIZE),
    FROZEN_FLOW: Control(others=("train.steps", "train.fresh_score_after")),
}
SCALE = re.compile(r"scale-([0-9]+)")
# Keys that affect the records of a training, not its model.
WRITTEN = {"snapshots", "log_every"}
# The largest factor between the rate of a plain model and the rate of the same model with a learned map.
RATES = 10


def variants(suite: "Suite") -> Iterator[tuple[str, str]]:
    """Yield the mistakes of variants, each with a run that has it."""
    first = cells(suite)
    for (variant, *cell), name in first.items():
        if variant:
            yield from ((name, mistake) for mistake in _variant(suite, name, first.get(("", *cell))))


def cells(suite: "Suite") -> dict[tuple[str, ...], str]:
    """Return the first run of each variant, dataset, SDE, model and objective; the others have the same model."""
    found: dict[tuple[str, ...], str] = {}
    for name, run in suite.runs.items():
        found.setdefault((run.variant, run.dataset, run.sde, run.model, run.objective), name)
    return found


def control(variant: str) -> Control | None:
    """Return the keys that a variant's name stands for; ``None`` for any other name."""
    scale = SCALE.fullmatch(variant)
    return Control({"train.latent.scale": float(scale[1])}) if scale else CONTROLS.get(variant)


def _variant(suite: "Suite", name: str, plain: str | None) -> Iterator[str]:
    variant = suite.runs[name].variant
    named, own = control(variant), _trained(suite, name)
    if named:
        found = list(_own(variant, named, own))
        if plain and not found:
            found = [f"{mistake} of run {plain}" for mistake in _beside(variant, named, own, _trained(suite, plain))]
        if plain and suite.sample_params(name) != suite.sample_params(plain):
            found.append(f"sample: found other values; allowed: the values of run {plain}")
        yield from (
            f"key {mistake}, since variant {variant!r} names that control; or another variant" for mistake in found
        )
    elif plain and suite.sample_params(name) == suite.sample_params(plain) and own == _trained(suite, plain):
        yield f"key variant: found {variant!r} for the model of run {plain}; allowed: '', or other values in train or sample"


def _own(variant: str, named: Control, own: Mapping[str, Any]) -> Iterator[str]:
    """Check the keys on which a control depends, by their own values."""
    for key, value in named.values.items():
        if own.get(key) != value:
            yield f"{key}: found {own.get(key)!r}; allowed: {value!r}"
    after, steps = own["train.fresh_score_after"], own["train.steps"]
    if variant == FROZEN_FLOW and (after is None or 2 * after != steps):
        yield f"train.fresh_score_after: found {after}; allowed: half of train.steps {steps}"


def _beside(variant: str, named: Control, own: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    """Check that a control differs from the plain model in the keys of its name alone; a mistake ends before the run's name."""
    for key in {**plain, **own}:
        if key not in {*named.values, *named.others} and own.get(key) != plain.get(key):
            yield f"{key}: found {own.get(key)!r}; allowed: {plain.get(key)!r}, the value"
    key, lr, steps = "train.lr", plain["train.lr"], plain["train.steps"]
    if key in named.others and not within(own[key], lr, RATES):
        yield f"{key}: found {own[key]}; allowed: within a factor of {RATES} of {lr}, the rate"
    if variant == SAME_COMPUTE and own["train.steps"] <= steps:
        yield f"train.steps: found {own['train.steps']}; allowed: more than the {steps} steps"
    if variant == SAME_PARAMETERS and all(_size(own[key]) <= _size(plain[key]) for key in SIZE):
        yield f"{SIZE[0]}: found {own[SIZE[0]]}; allowed: a larger network than the network"
    if variant == FROZEN_FLOW and own["train.fresh_score_after"] != steps:
        yield f"train.fresh_score_after: found {own['train.fresh_score_after']}; allowed: {steps}, the steps"


def within(found: float, plain: float, factor: float) -> bool:
    """Return whether a rate is within a factor of another one."""
    return plain / factor <= found <= plain * factor


def _size(value: "int | list[int]") -> int:
    return sum(value) if isinstance(value, list) else value


def _trained(suite: "Suite", name: str) -> dict[str, Any]:
    """Return the training of a run by key, such as ``train.latent.scale``, except the keys that affect only its records."""
    found: dict[str, Any] = {"train": suite.train_params(name).model_dump(exclude=WRITTEN)}
    while nested := [key for key, value in found.items() if isinstance(value, dict)]:
        for key in nested:
            found |= {f"{key}.{name}": value for name, value in found.pop(key).items()}
    return found
