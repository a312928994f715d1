"""The stages of the pipeline: the subject, the inputs and the outputs of each.

The command line, the stamps of code, the rules of Snakemake and every ``dvc.yaml`` are made from this description.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from indm.facts import CLUSTERED
from indm.report.catalogue import CATALOGUE, SHOWN
from indm.store.layout import PICTURES

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

Subject = Literal["dataset", "run", "shard", "toy", ""]

SUITE = "results/{suite}"
DATA = f"{SUITE}/data/{{dataset}}"
RUN = f"{SUITE}/runs/{{run}}"
TOY = f"{SUITE}/toy2d/{{toy}}"
PROTOCOL = f"{SUITE}/protocol/{{dataset}}.csv"
TABLES = f"{SUITE}/tables"
CHECKPOINT = f"{RUN}/checkpoint.safetensors"
SHARD = f"{RUN}/shards/{{shard}}"
DESCRIPTION = f"{DATA}/dataset.json"
REFERENCE = (f"{DATA}/extractor.safetensors", f"{DATA}/features.npy", f"{DATA}/statistics.safetensors", DESCRIPTION)
COLLECTED = tuple(f"{TABLES}/{table}.csv" for table in SHOWN)
VERDICTS = f"{TABLES}/claims.csv"
IDENTITY = ("runs.{run}.dataset", "runs.{run}.model", "runs.{run}.seed")
# All keys of a suite.
SECTIONS: tuple[str, ...] = ("suite", "device", "threads", "processes", "save_seconds", "datasets", "reference")
SECTIONS += ("train", "sample", "weights", "fid", "nll", "curve", "flow", "sweep", "protocol", "toy2d", "tune")
SECTIONS += ("runs", "shards", "compile", "failed", "failed_beyond", "grading")
# A row of a sweep does not depend on which other ones there are.
ROWS = ("sweep.objectives", "sweep.samplers", "sweep.steps")
TOY2D: tuple[str, ...] = ("lengths", "test_points", "vp", "eps", "training", "time_draws", "importance")
TOY2D += ("sample_steps", "samples")
# The results of a run that tables show.
RESULTS = [f"{RUN}/{name}" for name in ("samples.json", "fid.json", "nll.json", "nll.csv", "train.json", "curve.csv")]
RESULTS += [f"{RUN}/{name}" for name in ("curve_images.csv", "flow.json", "sweep.csv", "tune.csv")]


def _described(suite: "Suite") -> list[str]:
    if suite.flow is None:
        return []
    return [name for name in suite.runs if suite.flow.bands is not None or suite.has_map(name)]


def _measured(suite: "Suite") -> list[str]:
    """List the runs whose dataset has an extractor; the images of other datasets are drawn, but not measured."""
    return [name for name, run in suite.runs.items() if run.dataset in suite.reference]


def _swept(suite: "Suite") -> list[str]:
    return [name for name in _measured(suite) if suite.runs[name].objective in suite.sweep.objectives]


def _trials(suite: "Suite", run: str) -> tuple[str, ...]:
    """Name the keys on which a trial does not depend: keys of the search, keys that it sets, and for a bound, keys of images."""
    found = [f"tune.{run}.{key}" for key in ("trials", "confirm", "lengths")]
    found += [f"train.{key}" for key in ("steps", "snapshots", *suite.tune[run].space)]
    if suite.runs[run].objective != "fid":
        found += ["sample", "fid.bootstrap", REFERENCE[0].format(suite=suite.suite, dataset=suite.runs[run].dataset)]
    return tuple(found)


def has_clusters(dataset: str) -> bool:
    """Return whether images of a dataset come in clusters, which its description then lists."""
    return dataset in CLUSTERED


# The options of the command line that name a subject.
OPTIONS: dict[Subject, tuple[str, ...]]
OPTIONS = {"dataset": ("dataset",), "run": ("run",), "shard": ("run", "shard"), "toy": ("toy",), "": ()}


class Stage(NamedTuple):
    """A stage: one command of the package, one rule of Snakemake, one stage of DVC.

    In paths and keys, ``{dataset}``, ``{run}`` and ``{toy}`` stand for names; a stage without a subject collects all of them. A
    shard, ``<run>-<shard>``, is a part of the batches of a run. The suite sets the number of shards; there are none if it is one.

    Arguments:
        summary: for the command line; the list of commands shows only its first sentence.
        folder: folder of its manifest and its provenance.
        subject: kind of names with one job for each; empty if there is one job.
        inputs: files that it reads.
        further: files that it reads in suites that ask for what needs them.
        outputs: files that it writes.
        metrics: outputs in JSON that DVC shows as numbers.
        plots: outputs that DVC plots, tables, with the options of the plot.
        keys: keys of the suite that it reads.
        only: lists its subjects if they are not all subjects of the suite.
        builds: whether it builds the model of a run.
        measures: whether it measures images by the extractor of their dataset.
        grows: names the parameters and inputs of a job on which its unfinished work does not depend, so that a job that grows, such
            as a search of more trials, continues from it; ``None`` if the stage keeps no unfinished work.
        reports: whether it writes to the reports folder.
        distributed: whether the suite's number of processes share a job.
        memory: MB of the machine's memory for a process of a job.
        inception: further MB if the extractor is Inception.
    """

    summary: str
    folder: str
    subject: Subject = ""
    inputs: tuple[str, ...] = ()
    further: Mapping[str, Callable[["Suite"], bool]] = MappingProxyType({})
    outputs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    plots: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    keys: tuple[str, ...] = ()
    only: Callable[["Suite"], list[str]] | None = None
    builds: bool = False
    measures: bool = False
    grows: Callable[["Suite", str], tuple[str, ...]] | None = None
    reports: bool = False
    distributed: bool = False
    memory: int = 1000
    inception: int = 0

    @property
    def written(self) -> tuple[str, ...]:
        """Every file that it writes except its manifest."""
        return (*self.outputs, *self.metrics, *self.plots)

    @property
    def on_device(self) -> bool:
        """Whether it computes on the suite's device; if it has shards and does not measure, only the shards do."""
        return self.builds or self.measures

    def reads(self, suite: "Suite") -> tuple[str, ...]:
        """List the files that it reads in a suite."""
        return (*self.inputs, *(pattern for pattern, is_read in self.further.items() if is_read(suite)))

    def subjects(self, suite: "Suite") -> list[str]:
        """List the names of its jobs in a suite; one empty name if there is one job."""
        if self.only is not None:
            return self.only(suite)
        if self.subject == "run":
            return list(suite.runs)
        if self.subject == "toy":
            return list(suite.toy2d.datasets)
        return list(suite.datasets) if self.subject == "dataset" else [""]

    def command(self, name: str) -> str:
        """Return the command that both engines run; ``name`` is the name of the stage."""
        words = [f"python -m indm {command_name(name)} --suite params/{{suite}}.yaml"]
        words += [f"--{option} {{{option}}}" for option in OPTIONS[self.subject]]
        words += ["--out results"] + (["--reports reports"] if self.reports else [])
        return " ".join(words)


def command_name(stage: str) -> str:
    """Return a stage's name on the command line."""
    return stage.replace("_", "-")


def gathering(stage: str) -> str:
    """Name the stage that gathers the results of a stage of shards, and whose module has both; for other stages, themselves."""
    return stage.removesuffix("_shard")


def run_of(shard: str) -> tuple[str, int]:
    """Return the run of a shard, and its number, from 1."""
    run, _, number = shard.rpartition("-")
    return run, int(number)


def _shards(
    stage: str,
    summary: str,
    inputs: tuple[str, ...],
    keys: tuple[str, ...],
    further: Mapping[str, Callable[["Suite"], bool]] = MappingProxyType({}),
) -> Stage:
    """Describe a stage of shards, each of which computes some batches for another stage that gathers them."""

    def listed(suite: "Suite") -> list[str]:
        return [f"{run}-{shard}" for run in STAGES[stage].subjects(suite) for shard in suite.shards.numbers(stage)]

    return Stage(
        summary=summary,
        subject="shard",
        folder=SHARD,
        inputs=inputs,
        further=further,
        outputs=(shard_file(stage),),
        keys=(*keys, f"shards.{stage}"),
        only=listed,
        builds=True,
        # A batch is the same in any number of shards.
        grows=lambda *_: (f"shards.{stage}", *(ROWS if stage == "sweep" else ())),
        memory=2000,
    )


_of_run = partial(Stage, subject="run", folder=RUN, memory=2000)


def _tables(stage: str) -> tuple[str, ...]:
    return tuple(f"{TABLES}/{name}.csv" for name, table in CATALOGUE.items() if table.stage == stage)


def shard_file(stage: str) -> str:
    """Return the path of the file that a shard of a stage writes."""
    return f"{SHARD}/{stage}.safetensors"


DRAWING = (CHECKPOINT, f"{DATA}/train.npy", DESCRIPTION)
DRAWN = ("weights", *IDENTITY, "runs.{run}.sample")
# The moments of the control variate are of training images.
FITTED: Mapping[str, Callable[["Suite"], bool]] = {f"{DATA}/train.npy": lambda suite: suite.nll.draws == "image"}
EVALUATED = ("nll", "weights", "runs.{run}.dataset", "runs.{run}.model", "runs.{run}.seed")
STAGES: dict[str, Stage] = {
    "prepare": Stage(
        summary="Load a dataset and split it. Writes its arrays, its labels and its description.",
        subject="dataset",
        folder=DATA,
        outputs=(f"{DATA}/train.npy", f"{DATA}/valid.npy", f"{DATA}/test.npy", f"{DATA}/labels.json", DESCRIPTION),
        keys=("datasets.{dataset}",),
    ),
    "reference": Stage(
        summary="Train a dataset's feature extractor. Also measures the floor of each image metric: the score of real "
        "images.",
        subject="dataset",
        folder=DATA,
        inputs=(f"{DATA}/train.npy", f"{DATA}/valid.npy", f"{DATA}/test.npy", f"{DATA}/labels.json", DESCRIPTION),
        outputs=REFERENCE[:-1],
        metrics=(f"{DATA}/reference.json",),
        keys=("reference.{dataset}", "fid"),
        only=lambda suite: [*suite.reference],
        measures=True,
        memory=2000,
        inception=6000,
    ),
    "train": _of_run(
        summary="Train a run's model.",
        inputs=(f"{DATA}/train.npy", DESCRIPTION),
        outputs=(CHECKPOINT, f"{RUN}/snapshots.safetensors"),
        metrics=(f"{RUN}/train.json",),
        plots={f"{RUN}/train.csv": {"x": "step", "y": "score_loss"}},
        keys=("train", *(f"runs.{{run}}.{key}" for key in ("dataset", "sde", "model", "objective", "seed", "train"))),
        builds=True,
        grows=lambda *_: (),
        distributed=True,
    ),
    "sample_shard": _shards(
        "sample",
        "Generate part of a run's images. The sample stage gathers the parts.",
        DRAWING,
        keys=("sample", *DRAWN),
    ),
    "sample": _of_run(
        summary="Generate images from a trained run.",
        inputs=(*DRAWING, shard_file("sample")),
        outputs=(f"{RUN}/samples.npy", f"{RUN}/samples.json", *(f"{RUN}/{picture}.png" for picture in PICTURES)),
        keys=("sample", *DRAWN),
        builds=True,
        grows=lambda *_: (),
    ),
    "fid": _of_run(
        summary="Measure FID and the other image metrics. Compares a run's images with the reference: FID, KID, IS, precision, "
        "recall, clean-FID.",
        inputs=(f"{RUN}/samples.npy", *REFERENCE),
        metrics=(f"{RUN}/fid.json",),
        keys=("fid", "weights", *IDENTITY),
        only=_measured,
        measures=True,
        inception=4000,
    ),
    "nll_shard": _shards(
        "nll",
        "Evaluate part of a run's likelihoods. The nll stage gathers the parts.",
        (CHECKPOINT, f"{DATA}/test.npy", DESCRIPTION),
        keys=EVALUATED,
        further=FITTED,
    ),
    "nll": _of_run(
        summary="Evaluate a run's likelihoods. Writes four numbers, measured on the test split.",
        inputs=(CHECKPOINT, f"{DATA}/test.npy", DESCRIPTION, shard_file("nll")),
        further=FITTED,
        outputs=(f"{RUN}/nll.csv",),
        metrics=(f"{RUN}/nll.json",),
        keys=EVALUATED,
        builds=True,
        grows=lambda *_: (),
    ),
    "curve": _of_run(
        summary="Evaluate the likelihoods of all snapshots. Gives the learning curve of a run's training.",
        inputs=(f"{RUN}/snapshots.safetensors", f"{DATA}/valid.npy", f"{DATA}/test.npy", DESCRIPTION),
        further={f"{DATA}/train.npy": lambda suite: suite.curve.draws == "image"},
        outputs=(f"{RUN}/curve_images.csv",),
        plots={f"{RUN}/curve.csv": {"x": "step", "y": "nelbo"}},
        keys=("curve", "weights", *IDENTITY),
        only=lambda suite: [name for name in suite.runs if suite.train_params(name).snapshots],
        builds=True,
        grows=lambda *_: (),
    ),
    "flow": _of_run(
        summary="Measure the effect of a run's flow on images. Gives its log-determinant, its gain by spatial frequency, and its "
        "distance from an affine map; if asked for, the share of each band of frequencies in the bound.",
        inputs=(CHECKPOINT, f"{DATA}/test.npy", DESCRIPTION),
        further={f"{DATA}/train.npy": lambda suite: suite.flow is not None and suite.flow.bands is not None},
        metrics=(f"{RUN}/flow.json",),
        keys=("flow", "nll.batch_size", "nll.log_det", "nll.log_det_tolerance", "weights", *IDENTITY),
        only=_described,
        builds=True,
    ),
    "sweep_shard": _shards(
        "sweep",
        "Generate part of the images of a sweep. The sweep stage gathers the parts.",
        DRAWING,
        keys=("sweep", "sample", *DRAWN),
    ),
    "sweep": _of_run(
        summary="Measure FID by sampler and number of steps. Measures KID too.",
        inputs=(CHECKPOINT, f"{DATA}/train.npy", *REFERENCE, shard_file("sweep")),
        # Points instead of a line, because a file has several samplers.
        plots={f"{RUN}/sweep.csv": {"template": "scatter", "x": "nfe", "y": "fid"}},
        keys=("sweep", "weights", "sample", "fid", *IDENTITY, "runs.{run}.sample"),
        only=_swept,
        builds=True,
        measures=True,
        grows=lambda *_: ROWS,
    ),
    "protocol": Stage(
        summary="Measure how FID depends on its protocol. Changes one part at a time, on one run of a dataset.",
        subject="dataset",
        folder=f"{SUITE}/protocol/{{dataset}}",
        inputs=(CHECKPOINT, f"{DATA}/train.npy", f"{DATA}/valid.npy", f"{DATA}/test.npy", *REFERENCE),
        outputs=(PROTOCOL,),
        keys=("protocol.{dataset}", "weights", "sample", "fid", *IDENTITY, "runs.{run}.sample"),
        only=lambda suite: [*suite.protocol],
        builds=True,
        measures=True,
        memory=12000,
    ),
    "tune": _of_run(
        summary="Search a run's hyper-parameters. Compares trials on the validation split.",
        inputs=(f"{DATA}/train.npy", f"{DATA}/valid.npy", f"{DATA}/extractor.safetensors", DESCRIPTION),
        metrics=(f"{RUN}/tune.json",),
        plots={f"{RUN}/tune.csv": {"template": "scatter", "x": "trial", "y": "target"}},
        keys=(
            *("tune.{run}", "train", "curve", "sample", "weights", "fid.bootstrap"),
            *(f"runs.{{run}}.{key}" for key in ("dataset", "sde", "model", "objective", "train", "sample")),
        ),
        only=lambda suite: [*suite.tune],
        builds=True,
        measures=True,
        grows=_trials,
    ),
    "toy2d": Stage(
        summary="Compare the models on a known density. Trains INDM, DDPM++ and the controls.",
        subject="toy",
        folder=TOY,
        outputs=(f"{TOY}.safetensors",),
        plots={f"{TOY}.csv": {"template": "scatter", "x": "train_flops", "y": "nelbo_excess"}},
        keys=("toy2d.datasets.{toy}", *(f"toy2d.{key}" for key in TOY2D)),
    ),
    "table": Stage(
        summary="Collect a suite's results in tables.",
        folder=TABLES,
        inputs=(*RESULTS, f"{DATA}/reference.json", PROTOCOL, f"{TOY}.csv", "params/published.csv"),
        further={DESCRIPTION: lambda suite: any(map(has_clusters, suite.datasets))},
        outputs=_tables("table"),
        keys=("runs", "failed", "flow", "protocol", "toy2d.datasets", "tune", "grading.decoder"),
    ),
    # Separate from the other tables, because times differ between executions. They are read from provenance/, which is not an
    # output of a stage.
    "compute": Stage(
        summary="Tabulate the cost of a suite's models.",
        folder=TABLES,
        inputs=(f"{RUN}/train.json", f"{RUN}/samples.json"),
        outputs=_tables("compute"),
        keys=("runs",),
    ),
    "claims": Stage(
        summary="Grade the paper's claims. Estimates how many seeds would decide them, and compares with published numbers.",
        folder=TABLES,
        inputs=(
            *(f"{TABLES}/{table}.csv" for table in ("values", "images", "fid", "nll")),
            "params/claims.yaml",
            "params/published.csv",
            "params/registrations.yaml",
        ),
        outputs=tuple(path for path in _tables("claims") if path != VERDICTS),
        keys=("failed_beyond", "grading"),
        plots={VERDICTS: {"template": "bar_horizontal", "x": "effect", "y": "id"}},
    ),
    "figure": Stage(
        summary="Plot a suite's figures.",
        folder="reports/{suite}",
        inputs=(*COLLECTED, f"{TOY}.safetensors"),
        # A folder, because the figures depend on the content of the suite's tables.
        outputs=("reports/{suite}/figures",),
        reports=True,
    ),
    # Its bytes differ between executions, because it shows times from provenance/.
    "report": Stage(
        summary="Write a suite's report. Puts tables, figures and pictures on one page.",
        folder="reports/{suite}",
        inputs=(
            *COLLECTED,
            f"{TABLES}/values.csv",
            "reports/{suite}/figures",
            *(f"{RUN}/{picture}.png" for picture in PICTURES),
            DESCRIPTION,
            f"{DATA}/reference.json",
            *(f"params/{file}" for file in ("claims.yaml", "evidence.csv", "registrations.yaml")),
        ),
        outputs=("reports/{suite}/index.html",),
        # It shows the checksum of the whole suite.
        keys=SECTIONS,
        reports=True,
    ),
}
