"""Checks across several keys of a suite, each of which returns the mistakes that it finds."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from indm import facts
from indm.bench.suite.variants import RATES, variants, within
from indm.facts import goes_with
from indm.fields import ABSENT, PC, first_repeat
from indm.measured import METRICS
from indm.variants import FROZEN_FLOW, SAME_COMPUTE

if TYPE_CHECKING:
    from indm.bench.suite.schema.evaluation import SampleParams
    from indm.bench.suite.schema.studies import MODELS, RangeParams, Toy2dRatesParams, TuneParams
    from indm.bench.suite.schema.suite import RunParams, Suite
    from indm.bench.suite.schema.train import FlowParams, TrainParams, VEParams, VPParams

# Largest compute of the flow in the study of known densities, relative to the score network.
MOST_COMPUTE = 30
# In that study, the models with a learned map or forward process, and the largest factor between its rate and the rate of
# INDM's flow: maps of other kinds have other scales, but a map that hardly moves is not a control.
MAPS, MAP_RATES = ("learned-linear", "learned-range", "mulan", "diffenc"), 100
# Rounding of a share of a batch, in images.
WHOLE = 1e-6
# Runs that a mistake names.
SHOWN_RUNS = 3


def mistakes(suite: "Suite", path: Path, cells: Mapping[str, str]) -> list[str]:
    """List the mistakes of a suite read from a file, with the name in it of every run: the key, the value found, those allowed."""
    return [
        *_name(suite, path),
        *told_once(_runs(suite, cells)),
        *_alike(suite, cells),
        *told_once((cells[name], mistake) for name, mistake in variants(suite)),
        *_toy2d(suite),
        *_references(suite),
        *_evaluation(suite),
        *_protocol(suite),
        *_tune(suite),
        *_kept_weights(suite),
        *_failed_beyond(suite),
        *_grading(suite),
    ]


def _name(suite: "Suite", path: Path) -> Iterator[str]:
    if suite.suite != path.stem:
        yield f"key suite: found {suite.suite!r}; allowed: the file's name, {path.stem!r}"


def _runs(suite: "Suite", cells: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the mistakes of each run, with its name in the file."""
    for name in suite.runs:
        for mistake in _run(suite, name, cells[name]):
            yield cells[name], mistake


def told_once(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield each mistake once, with all runs that have it, since many runs share the values of the suite's sections."""
    runs: dict[str, dict[str, None]] = {}
    for name, mistake in found:
        runs.setdefault(mistake, {})[name] = None
    for mistake, names in runs.items():
        more = len(names) - SHOWN_RUNS
        shown = ", ".join(list(names)[:SHOWN_RUNS]) + (f" and {more} more" if more > 0 else "")
        yield f"{'runs' if len(names) > 1 else 'run'} {shown}, {mistake}"


def _run(suite: "Suite", name: str, cell: str) -> Iterator[str]:
    run, train = suite.runs[name], suite.train_params(name)
    if name != run.identity:
        # In the file, the name of a cell with seeds has no -s0.
        allowed = run.identity if cell == name else run.identity.removesuffix(f"-s{run.seed}")
        yield f"key (the run's name): found {cell!r}; allowed: {allowed!r}, which is composed of its keys"
    if run.variant and ABSENT.fullmatch(run.variant):
        yield f"key variant: found {run.variant!r}; allowed: another name, since tables would be read without it"
    yield from _steps(run, train)
    if suite.weights.score == "raw" and train.snapshots:
        found = f"key train.snapshots: found {train.snapshots}"
        yield f"{found}; allowed: [], since weights.score is raw and snapshots hold averaged weights only"
    if suite.processes > max(smallest := train.batch_size // train.micro_batches, 1):
        yield (
            f"key processes: found {suite.processes}; allowed: up to {smallest}, "
            "the images of a batch (train.batch_size) or of its smallest part (train.micro_batches)"
        )
    if run.objective == "fid" and run.sde == "vp" and not train.alternate:
        yield "key train.alternate: found False; allowed: True where objective is fid and sde is vp"
    yield from _ranges("train.sde", {"vp.beta": train.sde.vp, "ve.sigma": train.sde.ve})
    yield from _learned_range(run, train)
    yield from _fixed_map(train)
    yield from _precondition(run, train)
    yield from _flow(train.flow)
    yield from _log_det_share(run, train)
    if run.has_flow:
        yield from _blocks(suite.processes, train)
    yield from _family(suite, name)
    yield from _denoising(run, suite.sample_params(name))
    yield from _run_shards(suite, name)
    if run.dataset not in suite.datasets:
        yield f"key dataset: found {run.dataset!r}; allowed: {', '.join(suite.datasets)}"


def _alike(suite: "Suite", cells: Mapping[str, str]) -> Iterator[str]:
    """Check that the runs of a cell differ only in the seed, because tables average over them."""
    first: dict[tuple[str, ...], str] = {}
    for name, run in suite.runs.items():
        other = first.setdefault((run.dataset, run.sde, run.model, run.variant, run.objective), name)
        for key, parameters in (("train", suite.train_params), ("sample", suite.sample_params)):
            if cells[name] != cells[other] and parameters(name) != parameters(other):
                found = f"run {cells[name]}, key {key}: found other values than in run {cells[other]}"
                yield f"{found}; allowed: the same except for the seed; or give one of them another variant"


def _family(suite: "Suite", name: str) -> Iterator[str]:
    """Check that a run's model supports its SDE, its objective and its samplers."""
    run, sweep = suite.runs[name], suite.sweep
    found = [("sde", run.sde), ("objective", run.objective), ("sample.sampler", suite.sample_params(name).sampler)]
    found += [("sweep.samplers", sampler) for sampler in sweep.samplers if run.objective in sweep.objectives]
    for key, value in found:
        allowed = goes_with(run.model, "sampler" if "sampler" in key else key)
        if allowed and value not in allowed:
            yield f"key {key}: found {value!r}; allowed: {', '.join(allowed)}, since the model is {run.model}"
    if (snr := suite.sample_params(name).corrector_snr) is not None and goes_with(run.model, "sampler"):
        yield f"key sample.corrector_snr: found {snr}; allowed: null, since the model is {run.model}"


def _steps(run: "RunParams", train: "TrainParams") -> Iterator[str]:
    """Check the steps at which a training changes or saves something, against its length and its model."""
    if train.snapshots != sorted(train.snapshots) or max(train.snapshots, default=0) > train.steps:
        yield f"key train.snapshots: found {train.snapshots}; allowed: increasing, up to train.steps {train.steps}"
    found = f"key train.flow_warmup_steps: found {train.flow_warmup_steps}"
    if train.flow_warmup_steps and not run.has_flow and train.latent.learned is None:
        yield f"{found}; allowed: 0, since model {run.model} has no flow"
    if train.fresh_score_after is not None:
        yield from _fresh_score(run, train, train.fresh_score_after)
    if train.flow_warmup_steps >= train.steps:
        yield f"{found}; allowed: below train.steps {train.steps}"


def _fresh_score(run: "RunParams", train: "TrainParams", after: int) -> Iterator[str]:
    found = f"key train.fresh_score_after: found {after}"
    if not run.has_forward and train.latent.learned is None:
        yield f"{found}; allowed: null, since model {run.model} has no flow"
    if not train.flow_warmup_steps < after < train.steps:
        yield (
            f"{found}; allowed: null, or above train.flow_warmup_steps {train.flow_warmup_steps} and below train.steps "
            f"{train.steps}"
        )


def _ranges(place: str, sections: Mapping[str, "VPParams | VEParams"]) -> Iterator[str]:
    """Check that the lower end of an SDE's range, by the prefix of its keys, is below the upper end."""
    for start, section in sections.items():
        name = start.partition(".")[2]
        low, high = (getattr(section, f"{name}_{end}") for end in ("min", "max"))
        if low >= high:
            yield f"key {place}.{start}_min: found {low}; allowed: below {name}_max {high}"


def _learned_range(run: "RunParams", train: "TrainParams") -> Iterator[str]:
    if not train.sde.vp.learned_range:
        return
    if run.sde != "vp" or run.objective != "nll":
        yield (
            f"key train.sde.vp.learned_range: found True; allowed: False where sde is {run.sde} and objective is {run.objective}, "
            "because the range is learned by the bound of the nll objective under vp"
        )
    if not train.reconstruction:
        yield (
            "key train.reconstruction: found False; allowed: True where train.sde.vp.learned_range is True, because otherwise the "
            "bound is on noisy latents, and the learned end at eps would choose their noise"
        )


def _fixed_map(train: "TrainParams") -> Iterator[str]:
    """Check that a fixed curve sees pixels in [-1, 1]."""
    latent = train.latent
    if latent.fixed is None or not latent.fixed.curve:
        return
    for key, found, allowed in (
        ("centered", train.centered, True),
        ("latent.standardise", latent.standardise, False),
        ("latent.scale", latent.scale, 1.0),
    ):
        if found != allowed:
            yield f"key train.{key}: found {found}; allowed: {allowed}, because train.latent.fixed.curve maps [-1, 1]"


def _precondition(run: "RunParams", train: "TrainParams") -> Iterator[str]:
    """Check that a preconditioned network sees latents whose spectrum stays as it is, and that nothing else scales its input."""
    found, score = f"key train.score.precondition: found {train.score.precondition!r}; allowed: 'none'", train.score
    if score.precondition == "none":
        return
    if run.has_forward or train.latent.learned is not None:
        yield f"{found}, because the latents of a trained map change, and with them their spectrum"
    if score.scale_by_sigma:
        yield f"{found} where train.score.scale_by_sigma is True, because the output is then a score"
    if score.precondition == "spectrum" and score.normalise_input != "none":
        yield f"{found} where train.score.normalise_input is {score.normalise_input!r}, because both scale the network's input"
    if score.precondition == "spectrum" and not train.centered:
        yield f"{found} where train.centered is False, because the network then maps its input from [0, 1] to [-1, 1]"


def _flow(flow: "FlowParams") -> Iterator[str]:
    if (flow.wolf is not None) != (flow.name == "wolf"):
        expected = "encoder and prior" if flow.name == "wolf" else "null"
        found = "null" if flow.wolf is None else "encoder and prior"
        yield f"key train.flow.wolf: found {found}; allowed: {expected}, since the flow is {flow.name}"


def _log_det_share(run: "RunParams", train: "TrainParams") -> Iterator[str]:
    """Check that the share of the log-determinant is a whole number of images, and that a run that sets it estimates it."""
    found, images = f"key train.log_det_share: found {train.log_det_share:g}", train.log_det_share * train.batch_size
    if round(images) < 1 or abs(images - round(images)) > WHOLE:
        yield (
            f"{found}, {images:g} images of train.batch_size {train.batch_size}; allowed: a whole number of images, at least one"
        )
    if not run.has_flow and run.train.log_det_share is not None:
        yield f"{found}; allowed: no value of its own, since model {run.model} has no flow whose log-determinant is estimated"


def _blocks(processes: int, train: "TrainParams") -> Iterator[str]:
    """Check that a flow has blocks to train, and that the wolf flow's batch norms see more than one image at once."""
    if not any(train.flow.blocks):
        yield f"key train.flow.blocks: found {train.flow.blocks}; allowed: at least one block, since a flow consists of them"
    smallest = train.batch_size // (train.micro_batches * processes)
    if train.flow.name == "wolf" and smallest < 2:
        yield (
            f"key train.batch_size: found {train.batch_size}; allowed: at least {2 * train.micro_batches * processes}, because the "
            "batch norms of the wolf flow need two images in each part (train.micro_batches, processes)"
        )


def _denoising(run: "RunParams", sample: "SampleParams") -> Iterator[str]:
    if sample.denoise == "released_ve" and not (run.sde == "ve" and facts.sampler(sample.sampler).corrector):
        yield (
            f"key sample.denoise: found 'released_ve'; allowed: 'tweedie', 'none' where sde is {run.sde} and sampler is "
            f"{sample.sampler}, because the released code takes that step under VE, after a predictor's last step"
        )


def _run_shards(suite: "Suite", name: str) -> Iterator[str]:
    sample, sweep = suite.sample_params(name), suite.sweep
    yield from shards("sample", suite.shards.sample, sample.num_samples, sample.batch_size, "sample.num_samples")
    if suite.runs[name].objective in sweep.objectives:
        # Without a corrector, pc does not sample.
        samplers = [sampler for sampler in sweep.samplers if sampler != PC or sample.corrector_snr]
        rows = len(samplers) * len(sweep.steps)
        yield from shards("sweep", suite.shards.sweep, sweep.num_samples, sweep.batch_size, "sweep.num_samples", rows)


def shards(stage: str, found: int, images: int, size: int, why: str, rows: int = 1) -> Iterator[str]:
    """Check that each shard of a stage has a batch of its rows of images."""
    most = rows * -(-images // size)
    if found > max(most, 1):
        times = f"{rows} times " if rows > 1 else ""
        batches = f"the batches of {times}{images} images ({why}) by {size} ({stage}.batch_size)"
        yield f"key shards.{stage}: found {found}; allowed: up to {most}, {batches}"


def _toy2d(suite: "Suite") -> Iterator[str]:
    lengths = suite.toy2d.lengths
    for job, found in suite.toy2d.datasets.items():
        if found.length not in lengths:
            yield f"key toy2d.datasets.{job}.length: found {found.length!r}; allowed: {', '.join(lengths)}, of toy2d.lengths"
        elif not {"ddpmpp", "indm"} <= {*lengths[found.length].rates}:
            yield f"key toy2d.lengths.{found.length}.rates: found no ddpmpp or no indm; allowed: both, with or without controls"
    for name, length in lengths.items():
        yield from _toy2d_rates(f"key toy2d.lengths.{name}.rates", length.rates)
    measured = [(job.label, seed) for job in suite.toy2d.datasets.values() for seed in job.seeds]
    if (twice := first_repeat(measured)) is not None:
        yield f"key toy2d.datasets: found seed {twice[1]} of {twice[0]} in two jobs; allowed: each seed once"
    yield from _ranges("toy2d", {"vp.beta": suite.toy2d.vp})
    training = suite.toy2d.training
    score = training.layers * training.width**2
    if training.couplings * training.coupling_width**2 > MOST_COMPUTE * score:
        widest = int((MOST_COMPUTE * score / training.couplings) ** 0.5)
        yield (
            f"key toy2d.training.coupling_width: found {training.coupling_width}; allowed: up to {widest}, because with a flow of "
            f"more than {MOST_COMPUTE} times the score network's compute, the same-compute control would hardly end"
        )


def _toy2d_rates(place: str, rates: "Mapping[MODELS, Toy2dRatesParams]") -> Iterator[str]:
    """Check that no model is held back by its rates, by the rule for the rates of images' variants."""
    for model, own in rates.items():
        plain: MODELS = "indm" if model == FROZEN_FLOW else "ddpmpp"
        if plain in rates and not within(own.lr, rates[plain].lr, RATES):
            allowed = f"within a factor of {RATES} of {rates[plain].lr}, the rate of {plain}"
            yield f"{place}.{model}.lr: found {own.lr}; allowed: {allowed}"
        if model in MAPS and "indm" in rates and not within(own.map_lr, rates["indm"].map_lr, MAP_RATES):
            allowed = f"within a factor of {MAP_RATES} of {rates['indm'].map_lr}, the rate of INDM's flow"
            yield f"{place}.{model}.map_lr: found {own.map_lr}; allowed: {allowed}"


def _references(suite: "Suite") -> Iterator[str]:
    for dataset, reference in suite.reference.items():
        why = f"since the extractor is {reference.extractor}"
        if (reference.classifier is not None) != reference.extractor.endswith("-cnn"):
            expected = "its training" if reference.classifier is None else "null"
            yield f"key reference.{dataset}.classifier: allowed: {expected}, {why}"
        if reference.published_statistics is not None and reference.classifier is not None:
            yield f"key reference.{dataset}.published_statistics: allowed: null, {why}"


def _evaluation(suite: "Suite") -> Iterator[str]:
    neighbours, images = suite.fid.prc_neighbours, suite.fid.prc_images
    if neighbours >= images:
        yield f"key fid.prc_neighbours: found {neighbours}; allowed: below prc_images {images}"
    for key, section in (("nll", suite.nll), ("curve", suite.curve)):
        # Without an ODE, neither is needed.
        is_bare = section.ode_images == 0 and section.tolerance is None
        if (section.tolerance is None) == (section.ode_steps is None) and not is_bare:
            found = f"tolerance {section.tolerance} and ode_steps {section.ode_steps}"
            yield f"key {key}: found {found}; allowed: one of the two, the other null"
        if (section.log_det == "series") != (section.log_det_tolerance is not None):
            allowed = "a tolerance" if section.log_det == "series" else "null"
            found = f"log_det_tolerance {section.log_det_tolerance}"
            yield f"key {key}: found {found}; allowed: {allowed}, since log_det is {section.log_det}"
        if section.draws == "image" and section.tolerance is not None:
            found = f"tolerance {section.tolerance:g} with draws image"
            yield f"key {key}: found {found}; allowed: ode_steps, because the images of a batch share adaptive steps"
        if section.draws == "batch" and section.control == "cosine":
            yield f"key {key}: found control cosine with draws batch; allowed: pixels, or draws image"
    if suite.curve.draws == "image" and suite.curve.ode_images != 0:
        count = "null" if suite.curve.ode_images is None else str(suite.curve.ode_images)
        yield f"key curve.ode_images: found {count}; allowed: 0 with draws image, because the bound chooses the decoder"
    if suite.nll.images is not None:
        yield from shards("nll", suite.shards.nll, suite.nll.images, suite.nll.batch_size, "nll.images")
    if not set(suite.reference) <= set(suite.datasets):
        found, allowed = ", ".join(suite.reference), ", ".join(suite.datasets)
        yield f"key reference: found the datasets {found}; allowed: datasets of key datasets, {allowed}"


def _protocol(suite: "Suite") -> Iterator[str]:
    for dataset, study in suite.protocol.items():
        place = f"key protocol.{dataset}"
        if dataset not in suite.datasets:
            yield f"{place}: no such dataset; allowed: {', '.join(suite.datasets)}"
        elif dataset not in suite.reference:
            yield f"{place}: found a study of FID; allowed: none, since key reference has no extractor of {dataset}"
        fitting = [name for name, run in suite.runs.items() if run.dataset == dataset]
        if study.run not in fitting:
            yield f"{place}.run: found {study.run!r}; allowed: a run of {dataset}: {', '.join(fitting)}"


def _failed_beyond(suite: "Suite") -> Iterator[str]:
    known: dict[str, None] = {}
    for stage, metrics in METRICS.items():
        prefix = "toy2d." if stage == "toy2d" else ""
        known |= dict.fromkeys(prefix + metric for metric in metrics)
    if unknown := [metric for metric in suite.failed_beyond if metric not in known]:
        yield f"key failed_beyond: found {', '.join(map(repr, unknown))}; allowed: {', '.join(known)}"


def _grading(suite: "Suite") -> Iterator[str]:
    """Check that the grading's names are in the suite, and that test images do not choose a decoder."""
    grading, rates = suite.grading, {name for length in suite.toy2d.lengths.values() for name in length.rates}
    known: dict[str, tuple[set[str], str]] = {
        "images": ({run.variant for run in suite.runs.values() if not run.has_flow} - {""}, "a variant in runs"),
        "toy2d": ({*rates}, f"a model of toy2d.lengths: {', '.join(sorted(rates))}"),
    }
    for section, (names, allowed) in known.items():
        for key, variant in getattr(grading, section).model_dump().items():
            if variant is not None and variant not in names:
                yield f"key grading.{section}.{key}: found {variant!r}; allowed: null, or {allowed}"
    swept = {run.model for run in suite.runs.values() if run.objective in suite.sweep.objectives}
    if grading.samplers is not None and (without := sorted(swept - {*grading.samplers})):
        yield f"key grading.samplers: found no sampler for {', '.join(without)}; allowed: null, or one for each model of the sweep"
    for model, sampler in (grading.samplers or {}).items():
        if sampler not in suite.sweep.samplers:
            yield f"key grading.samplers.{model}: found {sampler}; allowed: {', '.join(suite.sweep.samplers)}, of sweep.samplers"
    without = [key for key, found in suite.datasets.items() if found.validation == 0]
    if grading.decoder == "validation" and without:
        yield (
            f"key grading.decoder: found validation; allowed: learned or test, since {', '.join(without)} has no validation "
            "images, and its curve is measured on test images"
        )


def _kept_weights(suite: "Suite") -> Iterator[str]:
    kept, known = suite.kept_weights, {run.variant for run in suite.runs.values()}
    if kept and (unknown := [variant for variant in kept.variants if variant not in known]):
        yield f"key kept_weights.variants: found {unknown[0]!r}; allowed: variants of its runs: {sorted(known)}"
    if kept and (raw := [key for key, kind in suite.weights.model_dump().items() if kind == "raw"]):
        yield f"key kept_weights: allowed: null, since weights.{raw[0]} is raw and averaged ones are not evaluated"


def _tune(suite: "Suite") -> Iterator[str]:
    if suite.tune and suite.weights.score == "raw":
        yield "key tune: found runs; allowed: {}, since weights.score is raw and trials are measured with averaged ones"
    first: dict[tuple[str, str, str], str] = {}
    # The lengths of same-compute follow from another model's.
    for name, search in sorted(suite.tune.items(), key=lambda item: _is_same_compute(suite, item[0])):
        place = f"key tune.{name}"
        if name not in suite.runs:
            yield f"{place}: no such run; allowed: {', '.join(suite.runs)}"
            continue
        if (dataset := suite.runs[name].dataset) not in suite.reference:
            yield f"{place}: found a search; allowed: none, since key reference has no extractor of {dataset}"
        yield from (f"{place}.{mistake}" for mistake in _search(suite, name, search))
        run = suite.runs[name]
        model = first.setdefault((run.dataset, run.sde, run.objective), name)
        expected = _as_long(suite, name, model)
        for key in ("trials", "steps", "seeds", "confirm"):
            if (found := search.model_dump()[key]) != expected[key]:
                allowed = f"{json.dumps(expected[key])}, as for {model}, with which it is compared"
                yield f"{place}.{key}: found {json.dumps(found)}; allowed: {allowed}"


def _as_long(suite: "Suite", name: str, model: str) -> dict[str, Any]:
    """Return the search of a model as another run's: trials of same-compute are longer by as much as its trainings are."""
    found = suite.tune[model].model_dump()
    if _is_same_compute(suite, name):
        factor = suite.train_params(name).steps / suite.train_params(model).steps
        for search in filter(None, (found, found["confirm"])):
            search["steps"] = round(search["steps"] * factor)
    return found


def _is_same_compute(suite: "Suite", name: str) -> bool:
    return name in suite.runs and suite.runs[name].variant == SAME_COMPUTE


def _search(suite: "Suite", name: str, search: "TuneParams") -> Iterator[str]:
    """Check a search of hyper-parameters against the training of its run, and its lengths against one another."""
    for key, bounds in search.space.items():
        if bounds.low >= bounds.high or (bounds.log and bounds.low <= 0):
            allowed = f"below high {bounds.high}" + (", above 0 where log is true" if bounds.log else "")
            yield f"space.{key}.low: found {bounds.low}; allowed: {allowed}"
        elif not _tunable(suite, name, key, bounds):
            yield f"space.{key}: found {bounds.low} to {bounds.high}; allowed: numbers that a key of the train section takes"
    for key in ("flow_lr", "flow_ema_decay"):
        if key in search.space and suite.weights_of(name)["flow"] is None:
            yield f"space: found {key}; allowed: keys that affect its training, since the run has neither a flow nor a learned map"
    train = suite.train_params(name)
    for key in ("batch_size", "log_det_share"):
        if key in search.space and (train.log_det_share < 1 or key == "log_det_share"):
            yield f"space: found {key}; allowed: other keys, because train.log_det_share of a batch is a whole number of images"
    longest = max(train.flow_warmup_steps, train.fresh_score_after or 0)
    for key, shortest in (("steps", search.steps), ("lengths", min(search.lengths, default=search.steps))):
        if shortest <= longest:
            yield f"{key}: found {shortest}; allowed: above {longest}, the steps of a training's first part"
    if search.confirm and search.confirm.steps <= search.steps:
        yield f"confirm.steps: found {search.confirm.steps}; allowed: above steps {search.steps}"
    if search.confirm and search.confirm.trials > search.trials:
        yield f"confirm.trials: found {search.confirm.trials}; allowed: up to trials {search.trials}"
    if search.lengths and suite.runs[name].objective != "nll":
        yield f"lengths: found {search.lengths}; allowed: [], since the rule of lengths applies to the nll objective"
    if search.lengths != sorted(search.lengths):
        yield f"lengths: found {search.lengths}; allowed: increasing"


def _tunable(suite: "Suite", name: str, key: str, bounds: "RangeParams") -> bool:
    """Return whether both ends of a range are valid values of a key of the train section."""
    try:
        for value in (bounds.low, bounds.high):
            _train_params_with(suite, name, {key: value})
    except ValidationError:
        return False
    return True


def _train_params_with(suite: "Suite", name: str, values: Mapping[str, Any]) -> "TrainParams":
    """Resolve the training parameters of a run with other values, without the code of trials, which counts in stamps."""
    run = suite.runs[name]
    train = type(run.train).model_validate(run.train.model_dump(exclude_unset=True) | values)
    changed = suite.model_copy(update={"runs": {name: run.model_copy(update={"train": train})}})
    return changed.train_params(name)
