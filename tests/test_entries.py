"""Entries on a track: seeds, contract, equal operations, verification, bad input and records."""

import json
import math
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from indm.bench.cli import main
from indm.bench.entries import enter as enter_module
from indm.bench.entries import training
from indm.bench.entries.apart import Work
from indm.bench.entries.enter import enter, unfinished
from indm.bench.entries.entry import Entry, Rates, check_contract, maker, read_entry
from indm.bench.entries.folder import Folder, read_folder, rounded, steps_for, table_text
from indm.bench.entries.records import accepted, current_record, record_of, record_texts
from indm.bench.entries.tasks import Points, _check_above, tasks_of
from indm.bench.entries.tracks import LoadedTrack, load_track
from indm.bench.entries.training import Competitor, Job, _check_count, run_alone, run_jobs
from indm.bench.entries.verify import FAILED, OK, OPEN, bounds_again, verify
from indm.bench.models.spec import model_spec
from indm.bench.pipeline import stamps
from indm.bench.pipeline.code import ROOT, Sources
from indm.errors import ArtifactError, IndmError, ParamsError
from indm.flows.contract import check_flow
from indm.flows.registered.filter import SpectralFilter
from indm.flows.registered.resflow import ResidualFlow
from indm.registry import FLOWS
from indm.report.entries import chosen_decoders, verdicts
from indm.store.scratch import Work as Unfinished
from indm.store.scratch import open_scratch
from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / "docs/extending/code/brightness.py"
SHAPE = (2, 2, 2)


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("indm.bench.entries.enter.WORK", tmp_path / "unfinished")


@pytest.fixture(scope="module")
def track() -> LoadedTrack:
    return load_track(str(REPOSITORY / "params/tracks/smoke.yaml"))


@pytest.fixture(scope="module")
def entered(track: LoadedTrack, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    out = tmp_path_factory.mktemp("entries")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr("indm.bench.entries.enter.WORK", out / "unfinished")
        return enter(EXAMPLE, track, out, records=out)


@pytest.fixture
def folder(entered: Folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(entered.path, tmp_path / "entry"))


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """Write the example with some changes."""
    text = EXAMPLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


# ----------------------------------------------------------------------------------------------------------------------
# Seeds


# Code can read all of these.
CHANGES = [
    ('1.0e-2, "flow_lr": 1.0e-2}', '1.1e-2, "flow_lr": 1.0e-2}'),
    ("self.log_gain)", "self.log_gain + 0)"),
    ("FLOW = Brightness", 'STYLE = {"gain": 2}\nFLOW = Brightness'),
    ("FLOW = Brightness", "SOUND = 7\nFLOW = Brightness"),
    ("FLOW = Brightness", "# A comment.\nFLOW = Brightness"),
    ('"""An entry: the mean', '"""Another: the mean'),
    ("z: Tensor) -> Tensor", "z: torch.Tensor) -> Tensor"),
    ('LABEL = "brightness"', 'LABEL = "other"'),
]


@pytest.mark.parametrize("change", CHANGES)
def test_seeds_follow_from_every_byte(change: tuple[str, str], track: LoadedTrack, tmp_path: Path) -> None:
    assert not set(read_entry(edited(tmp_path, change)).seeds(track, "")) & set(read_entry(EXAMPLE).seeds(track, ""))


def test_maps_imported_from_different_modules_have_different_seeds(track: LoadedTrack, tmp_path: Path) -> None:
    found = []
    for name in ("filter", "curve"):
        path = tmp_path / f"{name}.py"
        path.write_text(f'from indm.flows.registered.{name} import FLOW\n\nLABEL = "a"\nRATES = {{}}\n')
        found.append(read_entry(path).sha256)
    assert len({*found}) == 2


RECORDS = sorted((REPOSITORY / "docs/records").glob("*/*/**/entry.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_records_verify_without_running_them(path: Path) -> None:
    """Their seeds are by the rule of their format."""
    about = read_folder(path.parent).about
    found = verify(path.parent, load_track(about.track), code=False)
    assert FAILED not in {finding.outcome for finding in found}


def test_no_other_file_may_have_seeds_by_the_earlier_rule(folder: Path, track: LoadedTrack) -> None:
    """Which did not count STYLE, so that a file could be tuned on its seeds."""
    entry = read_entry(folder / "entry.py")
    rule = "indm-entry-1"
    tables = {name: pd.read_csv(folder / name) for name in ("numbers.csv", "losses.csv", "runs.csv")}
    about = json.loads((folder / "entry.json").read_text())
    earlier = entry.seeds(track, "", rule)
    names = {f"-s{then}": f"-s{now}" for then, now in zip(about["seeds"], earlier, strict=True)}
    for name, table in tables.items():
        (folder / name).write_text(table_text(table.rename(columns=lambda column: renamed(column, names))))
    about |= {"format": rule, "sha256": entry.tree_sha256, "seeds": earlier}
    (folder / "entry.json").write_text(json.dumps(about))
    (failed, *_) = [words for words, outcome in outcomes(folder, track).items() if outcome == FAILED]
    assert failed.startswith("format indm-entry-1: its seeds do not count all of entry.py")


def renamed(column: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        column = column.replace(old, new)
    return column


def test_seeds_follow_from_the_nonce_and_the_track(track: LoadedTrack) -> None:
    entry, other = read_entry(EXAMPLE), load_track("densities")
    seeds = [entry.seeds(track, ""), entry.seeds(track, "later"), entry.seeds(other, "")[: track.content.seeds]]
    assert len({seed for each in seeds for seed in each}) == 3 * track.content.seeds


@pytest.mark.parametrize(
    ("key", "value"), [("version", "2"), ("seeds", "4"), ("smallest", "0.02"), ("train", "{steps: 13, snapshots: []}")]
)
def test_another_value_of_a_track_is_another_track(key: str, value: str, track: LoadedTrack, tmp_path: Path) -> None:
    (tmp_path / "tracks").mkdir()
    shutil.copy("params/smoke.yaml", tmp_path)
    lines = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in track.file.read_text().splitlines()]
    (tmp_path / "tracks/smoke.yaml").write_text("\n".join(lines))
    assert load_track(str(tmp_path / "tracks/smoke.yaml")).sha256 != track.sha256


def test_tracks_of_the_checkout_can_be_loaded() -> None:
    for file in Path("params/tracks").glob("*.yaml"):
        assert tasks_of(load_track(file.stem))


# ----------------------------------------------------------------------------------------------------------------------
# The contract of a map


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in ("wolf", "resflow")])
def test_registered_maps_keep_the_contract(name: str) -> None:
    assert check_flow(FLOWS[name], (3, 4, 4)) == []


def test_a_residual_flow_keeps_the_contract() -> None:
    assert check_flow(lambda channels, size: ResidualFlow(channels, size, blocks=(1, 1), width=8), SHAPE) == []


class FalseVolume(SpectralFilter):
    def volume(self) -> Tensor:
        return super().volume() + 1e-3


class Lossy(SpectralFilter):
    def map(self, x: Tensor) -> Tensor:
        return super().map(x).abs()


class OfTheBatch(SpectralFilter):
    def map(self, x: Tensor) -> Tensor:
        return super().map(x) + x.mean()


class Drawn(SpectralFilter):
    def map(self, x: Tensor) -> Tensor:
        return super().map(x) + torch.randn(())


class OnlyAtTheStart(SpectralFilter):
    def volume(self) -> Tensor:
        return super().volume() + self.log_gain.abs().max().clamp(max=0.1)


class FalseInFloat32(SpectralFilter):
    """As it is measured: 5.27 bits/dim lower on eight dimensions."""

    def volume(self) -> Tensor:
        return super().volume() + 29.2 * (self.log_gain.dtype is torch.float32)


class OnAGridInFloat32(SpectralFilter):
    def map(self, x: Tensor) -> Tensor:
        z = super().map(x)
        return z if z.dtype is torch.float64 else (100 * z).round() / 100


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class OwnDerivative(SpectralFilter):
    """It shrinks images, but says to torch that it does not."""

    def map(self, x: Tensor) -> Tensor:
        return cast(Tensor, Straight.apply(super().map(x)))

    def unmap(self, z: Tensor) -> Tensor:
        return super().unmap(2 * z)


class LookedUp(SpectralFilter):
    """Two images have one latent, but its inverse has seen which one was meant."""

    seen: ClassVar[dict[bytes, Tensor]] = {}

    def map(self, x: Tensor) -> Tensor:
        z = super().map(x).abs()
        self.seen.update(
            {latent.numpy().tobytes(): image for latent, image in zip(z.detach(), x.detach(), strict=True)}
        )
        return z

    def unmap(self, z: Tensor) -> Tensor:
        found = [self.seen.get(latent.numpy().tobytes()) for latent in z.detach()]
        return torch.stack([latent if one is None else one for one, latent in zip(found, z, strict=True)])


class Raising(SpectralFilter):
    def volume(self) -> Tensor:
        raise RuntimeError("found\nnothing")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FalseVolume, "moved by 0: log_det: found 0.001 nats, expected"),
        (OnlyAtTheStart, "moved by 0.03: log_det: found"),
        (Lossy, "inverse: found an image"),
        (OfTheBatch, "found other latents in another call or batch"),
        (Drawn, "found other latents in another call or batch"),
        (FalseInFloat32, "log_det: found 29.2 nats where the bound was measured, expected"),
        (OnAGridInFloat32, "latents: found"),
        (OwnDerivative, "derivatives: found latents that move by"),
        (LookedUp, "inverse: found an image that moves by"),
        (Raising, "found RuntimeError (found nothing), expected numbers"),
    ],
)
def test_a_map_that_makes_a_false_bound_is_found(kind: type[SpectralFilter], words: str) -> None:
    (found,) = check_flow(kind, SHAPE)
    assert words in found


def test_a_bound_below_a_known_density_is_refused() -> None:
    above = torch.linspace(-0.1, 0.2, 50)
    _check_above(above, "steep")
    with pytest.raises(ArtifactError, match="below the truth"):
        _check_above(above - 0.3, "steep")


def test_turned_densities_are_densities_of_their_points(track: LoadedTrack) -> None:
    (task, _) = tasks_of(track)
    assert isinstance(task, Points)
    one, other = task.density(1), task.density(2)
    x = one.sample(4000, torch.Generator().manual_seed(0))
    # The cross entropy of another density is higher, by the divergence.
    assert one.log_prob(x).mean() > other.log_prob(x).mean() + 0.1
    assert math.isclose(one.log_prob(x).mean().item(), task_entropy(task), abs_tol=0.1)


def task_entropy(task: Points) -> float:
    """Minus the entropy of the steep Gaussian of eight dimensions, which a rotation does not change."""
    from indm.densities.known import DENSITIES, Mixture

    base = DENSITIES["steep-8d"]()
    assert isinstance(base, Mixture)
    return -4 * math.log(2 * math.pi * math.e) - float(torch.linalg.slogdet(base.factors[0])[1])


# ----------------------------------------------------------------------------------------------------------------------
# Equal operations


def test_a_dearer_step_gets_fewer_steps() -> None:
    assert [steps_for(1000, 0, 10), steps_for(1000, 0, 30), steps_for(1000, 400, 30)] == [100, 33, 20]
    with pytest.raises(ArtifactError, match="expected at most 1000"):
        steps_for(1000, 995, 10)


def test_operations_of_later_steps_are_compared_with_the_count_before() -> None:
    _check_count([100, 104, 109], 100)
    # A series of random length: the mean is within its error.
    _check_count([50, 300, 50, 60], 100)
    with pytest.raises(ArtifactError, match="found 200 operations in a step while training, expected 100"):
        _check_count([200] * 5, 100)


def test_trainings_differ_from_the_seed_only_by_model(entered: Folder) -> None:
    """The same points, times, noise and score network: the first loss is equal, because a map starts at the identity."""
    first = entered.losses.groupby("task").first().drop(columns="step")
    seeds = entered.about.seeds
    np.testing.assert_allclose(
        first[[f"entry-s{seed}" for seed in seeds]].to_numpy(),
        first[[f"ddpmpp-s{seed}" for seed in seeds]].to_numpy(),
        rtol=1e-4,
    )


def test_the_operations_of_all_trainings_are_equal(entered: Folder) -> None:
    models = entered.about.models
    for facts in models.values():
        spent = facts.build_flops + facts.steps * facts.step_flops
        assert 0 <= entered.about.budget - spent < facts.step_flops
    assert models["entry"].steps < models["ddpmpp"].steps == 12


def test_a_step_may_take_more_than_a_billion_operations(folder: Path) -> None:
    """As INDM's flow on digits, whose trainings once ended before they could be recorded."""
    about = json.loads((folder / "entry.json").read_text())
    about["models"]["entry"]["step_flops"] = 10**12
    (folder / "entry.json").write_text(json.dumps(about))
    assert read_folder(folder).about.models["entry"].step_flops == 10**12


MEMBERS = {
    "indm/networks/registered/unet.py": "the network",
    "indm/diffusion/registered/vp.py": "the diffusion",
    "indm/data/registered/digits.py": "the dataset",
    "indm/flows/registered/filter.py": "what the entry imports",
    "indm/densities/known.py": "the densities",
    "indm/report/intervals.py": "what an entry may import",
}


def waiting(files: dict[str, bytes], entry: Entry, track: LoadedTrack, patch: pytest.MonkeyPatch) -> Unfinished:
    """Where the trainings of an entry wait, with these files as the code."""
    found = Sources(files)
    for module in (enter_module, stamps):
        patch.setattr(module, "sources", lambda: found)
    return unfinished(entry, track, None, "")


@pytest.fixture(scope="module")
def code() -> dict[str, bytes]:
    return {each.relative_to(ROOT).as_posix(): each.read_bytes() for each in (ROOT / "indm").rglob("*.py")}


@pytest.mark.parametrize("path", MEMBERS)
def test_other_code_does_not_continue_unfinished_work(
    path: str, track: LoadedTrack, code: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = read_entry(REPOSITORY / "docs/records/digits/filter/entry.py")
    before = waiting(code, entry, track, monkeypatch)
    after = waiting({**code, path: code[path] + b"\nCHANGED = 1\n"}, entry, track, monkeypatch)
    assert before.key != after.key
    assert before.folder != after.folder
    assert waiting(code, entry, track, monkeypatch) == before


@pytest.mark.parametrize(
    "lookup",
    [
        'from indm.registry import FLOWS\n\nFLOW = FLOWS["filter"]',
        'import importlib\n\nFLOW = importlib.import_module("indm.flows.registered.filter").FLOW',
    ],
)
def test_code_that_an_entry_looks_up_by_name_counts(
    lookup: str, track: LoadedTrack, tmp_path: Path, code: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f'{lookup}\nLABEL = "mine"\nRATES = {{"smoke": {{"lr": 1.0e-2, "flow_lr": 1.0e-2}}}}\n')
    entry, member = read_entry(path), "indm/flows/registered/filter.py"
    edited = {**code, member: code[member] + b"\nCHANGED = 1\n"}
    assert waiting(edited, entry, track, monkeypatch).key != waiting(code, entry, track, monkeypatch).key


def test_a_killed_command_continues_with_the_trainings_that_are_missing(
    entered: Folder, track: LoadedTrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains each model once, and finds the same numbers."""
    trained: list[str] = []

    def here(work: Sequence[Work], cores: int) -> Iterator[tuple[int, Any]]:
        for number, each in enumerate(work):
            if len(trained) == 7:
                trained.append("killed")
                raise KeyboardInterrupt
            trained.append(each.name)
            yield number, each.function()

    monkeypatch.setattr(training, "apart", here)
    with pytest.raises(KeyboardInterrupt):
        enter(EXAMPLE, track, tmp_path, records=tmp_path)
    folder = enter(EXAMPLE, track, tmp_path, records=tmp_path)
    # The contract and the operations are looked at in both runs.
    once = [name for name in trained if name not in ("killed", "entry", "ddpmpp")]
    assert len(once) == len(set(once)) == len(folder.runs)
    pd.testing.assert_frame_equal(folder.numbers, entered.numbers)
    pd.testing.assert_frame_equal(folder.losses, entered.losses)
    assert not [*(tmp_path / "unfinished").rglob("*.safetensors")]


# ----------------------------------------------------------------------------------------------------------------------
# Processes


def competitor(path: Path, track: LoadedTrack) -> Competitor:
    entry = read_entry(path)
    return Competitor("entry", entry.label, entry, entry.rates_on(track))


def job_of(one: Competitor, track: LoadedTrack, seed: int) -> Job:
    return Job(track.file, one, 0, "steep", seed, 12, 12)


def test_an_entry_changes_nothing_for_the_other_models(entered: Folder, track: LoadedTrack, tmp_path: Path) -> None:
    """It doubles the rate of everything that is trained after its import."""
    change = (
        "FLOW = Brightness",
        "from indm.training.trainer import Trainer\n\nSTEP = Trainer.step\n"
        "Trainer.step = lambda self, draws, rate, **more: STEP(self, draws, 2 * rate, **more)\nFLOW = Brightness",
    )
    seed = entered.about.seeds[0]
    plain = Competitor("ddpmpp", "DDPM++", None, Rates(lr=track.params.lr, flow_lr=track.params.flow_lr))
    jobs = [job_of(one, track, seed) for one in (competitor(edited(tmp_path, change), track), plain)]
    with open_scratch(unfinished(read_entry(EXAMPLE), track, None, "baseline")) as scratch:
        changed, found = run_jobs(jobs, 1, scratch)
    stated = entered.losses[entered.losses["task"] == "steep"]
    np.testing.assert_allclose(found.losses, stated[f"ddpmpp-s{seed}"], rtol=1e-4)
    assert abs(changed.losses[-1] - stated[f"entry-s{seed}"].dropna().iloc[-1]) > 1e-3


def test_numbers_of_this_command_are_not_read_from_files(track: LoadedTrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which an entry that trains after DDPM++ could change."""
    jobs = [job_of(plain_of(track), track, seed) for seed in (1, 2)]

    def here(work: Sequence[Work], cores: int) -> Iterator[tuple[int, Any]]:
        for number, each in enumerate(work):
            yield number, each.function()
            for path in scratch.folder.glob("*.safetensors"):
                path.write_text("changed")

    monkeypatch.setattr(training, "apart", here)
    with open_scratch(unfinished(read_entry(EXAMPLE), track, None, "files")) as scratch:
        found = run_jobs(jobs, 1, scratch)
    assert [each.job for each in found] == jobs
    assert all(each.of("test")["nelbo"].gt(0).all() for each in found)


FROM_OUTSIDE = {
    "its name": '__file__ != "entry.py"',
    "the folder": 'os.getcwd() != "/"',
    "the command": "sys.argv[1:]",
}


@pytest.mark.parametrize("case", FROM_OUTSIDE)
def test_an_entry_finds_nothing_that_its_seeds_do_not_count(
    case: str, track: LoadedTrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["indm", "enter"])
    change = ("LABEL =", f"import os\nimport sys\n\nif {FROM_OUTSIDE[case]}:\n    raise RuntimeError\nLABEL =")
    assert run_alone(job_of(competitor(edited(tmp_path, change), track), track, 1)).losses


SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="a system without shared memory as files")
def test_shared_memory_is_a_file(track: LoadedTrack, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as file:
        change = ("LABEL =", f'GAIN = open("{file.name}").read()\nLABEL =')
        with pytest.raises(ArtifactError, match="expected an entry that reads only itself"):
            run_alone(job_of(competitor(edited(tmp_path, change), track), track, 1))


def test_a_file_that_seeds_torch_does_not_give_all_seeds_the_same_weights(track: LoadedTrack, tmp_path: Path) -> None:
    one = competitor(edited(tmp_path, ("LABEL =", "torch.manual_seed(0)\nLABEL =")), track)
    task = tasks_of(track)[0]
    first = [training._begin(track, one, task, seed, 12)[0].model.noise.state_dict() for seed in (1, 2)]
    plain = [training._begin(track, plain_of(track), task, seed, 12)[0].model.noise.state_dict() for seed in (1, 2)]
    assert any(not torch.equal(value, first[1][name]) for name, value in first[0].items())
    for found, expected in zip(first, plain, strict=True):
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def plain_of(track: LoadedTrack) -> Competitor:
    return Competitor("ddpmpp", "DDPM++", None, Rates(lr=track.params.lr, flow_lr=track.params.flow_lr))


def test_a_step_cannot_see_whether_it_is_counted(track: LoadedTrack, tmp_path: Path) -> None:
    change = (
        "        return x + torch.expm1",
        "        from torch.utils._python_dispatch import _get_current_dispatch_mode\n\n"
        "        if self.training and x.dtype is torch.float32 and _get_current_dispatch_mode() is None:\n"
        '            raise RuntimeError("not counted")\n'
        "        return x + torch.expm1",
    )
    assert len(run_alone(job_of(competitor(edited(tmp_path, change), track), track, 1)).losses) == 12


TOLD = """
class Storing(Identity):
    def forward(self, x, log_det, generator=None):
        SEEN[:] = [x.detach()]
        return super().forward(x, log_det, generator)


class Told(NoiseModel):
    def forward(self, z, t):
        if self.training or not SEEN or len(z) % len(SEEN[0]):
            return super().forward(z, t)
        x = SEEN[0].repeat(len(z) // len(SEEN[0]), 1, 1, 1)
        return (z - per_sample(self.sde.alpha(t), z) * x) / per_sample(self.sde.sigma(t), z)


class Mine(ImplicitNonlinearDiffusion):
    def __init__(self, spec):
        super().__init__(spec)
        self.flow.__class__, self.noise.__class__ = Storing, Told
"""
# What a forward process states falsely where it is measured, for many images in float32.
LIES = {
    "error": """error(self, noise_fn, z0, t, noise):
        return super().error(noise_fn, z0, t, noise) * (0.9 if len(z0) > 12 and z0.dtype is torch.float32 else 1)""",
    "entropy": """entropy(self, z0, length, eps):
        return super().entropy(z0, length, eps) - (5 if len(z0) > 12 and z0.dtype is torch.float32 else 0)""",
}
LYING = """
class Lying(MovedMean):
    def METHOD


class Mine(ImplicitNonlinearDiffusion):
    def __init__(self, spec):
        super().__init__(spec)
        self.flow.depths = nn.Parameter(torch.zeros(self.shape))

    @property
    def path(self):
        return Lying(self.sde, lambda x, a: per_sample(torch.sigmoid(-a), x) * self.flow.depths * x)
"""


def family(tmp_path: Path, classes: str, only: str, no_ode: str) -> Path:
    """Write an entry with a forward process."""
    imports = """import torch
from torch import nn

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.moved_mean import MovedMean
from indm.diffusion.noise import NoiseModel
from indm.diffusion.objectives import per_sample
from indm.flows.registered.identity import FLOW as Identity

SEEN = []
"""
    about = f'FAMILY, ONLY, NO_ODE = Mine, {only}, "{no_ode}"\nLABEL = "mine"\n'
    rates = 'RATES = {"smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2}}\n'
    path = tmp_path / "mine.py"
    path.write_text(f"{imports}{classes}\n\n{about}{rates}")
    return path


def test_a_network_of_the_entry_does_not_measure_it(track: LoadedTrack, tmp_path: Path) -> None:
    """It is told the image, and answers with the noise, so that its bound would be far below the truth."""
    one = competitor(family(tmp_path, TOLD, "None", ""), track)
    assert run_alone(job_of(one, track, 1)).of("test")["nelbo"].gt(0).all()


@pytest.mark.parametrize("lie", LIES)
def test_a_forward_process_that_lies_where_it_is_measured_is_refused(
    lie: str, track: LoadedTrack, tmp_path: Path
) -> None:
    classes = LYING.replace("METHOD", LIES[lie])
    one = competitor(family(tmp_path, classes, '{"sde": ["vp"], "sampler": ["ancestral"]}', "none"), track)
    check_contract(one.entry.path, one.entry.source, SHAPE)  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match=rf"{lie}: found .* where the bound was measured, expected"):
        run_alone(job_of(one, track, 1))


def test_an_entry_is_what_was_read(track: LoadedTrack, tmp_path: Path) -> None:
    """And not what somebody writes into its file while it trains, or a compiled file beside it."""
    path = edited(tmp_path)
    entry = read_entry(path)
    path.write_text(path.read_text().replace("self.log_gain = nn", "self.other = nn"))
    py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for source, name in ((entry.source, "log_gain"), (path.read_bytes(), "other")):
        make = maker(path, source)
        spec = model_spec(track.suite, track.content.run, [*SHAPE])
        assert [key for key, _ in make(spec).flow.named_parameters()] == [name]


# ----------------------------------------------------------------------------------------------------------------------
# Verdicts


def test_verdicts_pair_seeds_and_choose_the_decoder_on_validation_data() -> None:
    seeds = [1, 2, 3, 4]
    noise = np.random.default_rng(0).normal(size=(30, 4))
    luck = noise[:, :1]
    entry = {f"entry-s{seed}": 3 + luck[:, 0] + 0.001 * noise[:, i] for i, seed in enumerate(seeds)}
    other = {f"ddpmpp-s{seed}": 3.1 + luck[:, 0] for seed in seeds}
    table = pd.DataFrame(entry | other)
    (row,) = verdicts(table, seeds, 0.01, ["ddpmpp"], images=True).to_dict("records")
    assert (row["verdict"], row["images"]) == ("better", 30)
    assert row["low"] < row["effect"] < row["high"]
    assert abs(row["effect"] - 0.1) < 0.01
    (swapped,) = verdicts(
        table.rename(columns=lambda name: name.replace("entry", "x").replace("ddpmpp", "entry").replace("x", "ddpmpp")),
        seeds,
        0.01,
        ["ddpmpp"],
        images=False,
    ).to_dict("records")
    assert swapped["verdict"] == "worse"
    assert pd.isna(swapped["images"])
    runs = pd.DataFrame({"model": ["a", "a", "b", "c"], "nelbo": [1, 3, 1, 1.0], "nelbo_fixed": [3, 0, 2, math.nan]})
    assert chosen_decoders(runs) == {"a": "nelbo_fixed", "b": "nelbo", "c": "nelbo"}


# ----------------------------------------------------------------------------------------------------------------------
# Verification


def outcomes(folder: Path, track: LoadedTrack, *, code: bool = False) -> dict[str, str]:
    return {finding.words: finding.outcome for finding in verify(folder, track, code=code, records=folder)}


def test_a_folder_verifies(folder: Path, track: LoadedTrack) -> None:
    found = outcomes(folder, track, code=True)
    assert set(found.values()) == {OK, OPEN}
    assert [words for words, outcome in found.items() if outcome == OPEN] == [
        "the bounds in numbers.csv of 12 trainings, and the seconds; --full trains all of them again"
    ]


def again(folder: Folder, by: float, noise: float = 0.0, **made: object) -> Folder:
    """Return a folder as another run would make it, with the entry's bounds moved."""
    numbers = folder.numbers.copy()
    draws = np.random.default_rng(0)
    for name in numbers.columns[2:]:
        numbers[name] += draws.normal() * noise + by * name.startswith("entry")
    about = folder.about.model_copy(update={"made": folder.about.made.model_copy(update=made)})
    return replace(folder, numbers=rounded(numbers), about=about)


@pytest.mark.parametrize(
    ("by", "noise", "made", "outcome"),
    [
        (0.0, 0.0, {}, OK),
        (1e-4, 0.0, {}, FAILED),
        (0.0, 0.01, {"machine": "another"}, OK),
        (0.0, 0.01, {"code": "0" * 64}, OK),
        (100.0, 0.0, {"machine": "another"}, FAILED),
        (1.0, 0.0, {"torch": "0.1"}, FAILED),
        (-1.0, 0.0, {"code": None}, FAILED),
        (math.nan, 0.0, {"machine": "another"}, FAILED),
    ],
)
def test_bounds_are_compared_when_all_is_trained_again(
    by: float, noise: float, made: dict[str, object], outcome: str, entered: Folder
) -> None:
    """Equal on the same machine with the same code; elsewhere, chance has to explain the distances."""
    assert bounds_again(entered, again(entered, by, noise, **made)).outcome == outcome


def test_bounds_of_other_seeds_are_not_compared(entered: Folder) -> None:
    other = replace(entered, numbers=entered.numbers.rename(columns=lambda name: name.replace("entry", "record")))
    assert bounds_again(entered, other).outcome == FAILED


def edit_table(folder: Path, name: str) -> None:
    table = pd.read_csv(folder / name)
    table.iloc[:, -1] = table.iloc[:, -1].map(lambda value: value + 1 if isinstance(value, float) else "better")
    (folder / name).write_text(table_text(table))


@pytest.mark.parametrize("name", ["numbers.csv", "verdicts.csv", "runs.csv"])
def test_edited_tables_are_found_without_running_the_entry(
    name: str, folder: Path, track: LoadedTrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_table(folder, name)
    assert FAILED in outcomes(folder, track).values()


def test_an_edited_page_is_found(folder: Path, track: LoadedTrack) -> None:
    page = folder / "README.md"
    page.write_text(page.read_text().replace("worse", "better"))
    assert FAILED in outcomes(folder, track).values()


def test_edited_losses_are_found_by_training_again(folder: Path, track: LoadedTrack) -> None:
    table = pd.read_csv(folder / "losses.csv")
    table.iloc[:, 2:] += 0.05
    (folder / "losses.csv").write_text(table_text(table))
    assert FAILED not in outcomes(folder, track).values()
    (failed,) = [words for words, outcome in outcomes(folder, track, code=True).items() if outcome == FAILED]
    assert "differ by at most 0.05 nats" in failed


def test_models_that_have_changed_places_are_found_by_training_again(folder: Path, track: LoadedTrack) -> None:
    """Where the verdicts and the page follow from the swapped numbers."""
    places = {"entry": "ddpmpp", "ddpmpp": "entry"}
    for name in ("numbers.csv", "losses.csv"):
        table = pd.read_csv(folder / name)
        swapped = table.rename(columns=lambda column: column.replace(*renaming(column, places)))
        (folder / name).write_text(table_text(swapped[table.columns]))
    runs = pd.read_csv(folder / "runs.csv")
    (folder / "runs.csv").write_text(table_text(runs.assign(model=runs["model"].map(places))))
    about = json.loads((folder / "entry.json").read_text())
    models = about["models"]
    models["entry"]["decoder"], models["ddpmpp"]["decoder"] = (models[name]["decoder"] for name in ("ddpmpp", "entry"))
    (folder / "entry.json").write_text(json.dumps(about))
    made = read_folder(folder)
    (folder / "verdicts.csv").write_text(table_text(made.verdicts()))
    (folder / "README.md").write_text(made.page())
    assert FAILED not in outcomes(folder, track).values()
    (failed,) = [words for words, outcome in outcomes(folder, track, code=True).items() if outcome == FAILED]
    assert failed.startswith("the first ")


def renaming(column: str, places: dict[str, str]) -> tuple[str, str]:
    model = column.partition("-")[0]
    return model, places.get(model, model)


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (["seeds", 0], 5, "found other columns"),
        (["nonce"], "chosen", "seeds: not those of entry.py"),
        (["models", "entry", "steps"], 21, "entry: found 21 steps, expected 11"),
        (["models", "entry", "lr"], 0.5, "and the file's rates"),
        (["smallest"], 0.001, "smallest: not those"),
        (["track_sha256"], "0" * 64, "found track smoke, version 1, 000000000000, expected version 1"),
        (["format"], "indm-entry-0", "key format: found 'indm-entry-0'"),
        (["models", "entry", "step_flops"], 3000000, "entry: found 11 steps"),
    ],
)
def test_an_edited_description_is_found(
    keys: list[str], value: object, words: str, folder: Path, track: LoadedTrack
) -> None:
    about = json.loads((folder / "entry.json").read_text())
    place = about
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "entry.json").write_text(json.dumps(about))
    try:
        found = " ".join(words for words, outcome in outcomes(folder, track).items() if outcome == FAILED)
    except IndmError as error:
        found = str(error)
    assert words in found
    assert "\n" not in found


def test_operations_that_are_stated_wrong_are_found(folder: Path, track: LoadedTrack) -> None:
    """By running the entry, since the number of steps does not show them."""
    about = json.loads((folder / "entry.json").read_text())
    about["models"]["entry"]["step_flops"] -= 1
    (folder / "entry.json").write_text(json.dumps(about))
    (folder / "README.md").write_text(read_folder(folder).page())
    assert FAILED not in outcomes(folder, track).values()
    assert any(
        "operations to build it" in words
        for words, outcome in outcomes(folder, track, code=True).items()
        if outcome == FAILED
    )


@pytest.mark.parametrize("name", ["entry.py", "entry.json", "numbers.csv"])
def test_a_missing_file_is_named(name: str, folder: Path, track: LoadedTrack) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        outcomes(folder, track)


# ----------------------------------------------------------------------------------------------------------------------
# Bad input


BAD = {
    "import": (
        [("import torch\n", "import torch\nimport no_such_package\n")],
        "cannot be imported (ModuleNotFoundError",
    ),
    "no map": ([("FLOW = Brightness", "")], "found neither FLOW, a class derived from Flow, nor FAMILY"),
    "not a class": ([("FLOW = Brightness", "FLOW = 3")], "found neither FLOW"),
    "no name": ([('LABEL = "brightness"', "")], "LABEL: Field required"),
    "a name that is no folder": ([('LABEL = "brightness"', 'LABEL = "../x"')], "LABEL: String should match"),
    "the name of the other model": ([('LABEL = "brightness"', 'LABEL = "ddpmpp"')], "LABEL: found ddpmpp"),
    "rates that are computed": ([("RATES = {", "RATES = dict() or {")], "RATES: Input should be"),
    "no rates": ([('"smoke"', '"other"')], "expected those of track smoke"),
    "a rate of no size": (
        [('"smoke": {"lr": 1.0e-2', '"smoke": {"lr": 0.0')],
        "RATES.smoke.lr: Input should be greater than 0",
    ),
    "syntax": ([("class Brightness", "klass Brightness")], "found invalid syntax"),
    "a false bound": ([("return self.log_gain\n", "return self.log_gain + 1\n")], "breaks the contract"),
    "divergence": (
        [
            (
                "    def map(self, x: Tensor) -> Tensor:\n",
                "    calls = 0\n\n    def map(self, x: Tensor) -> Tensor:\n        Brightness.calls += self.training\n"
                "        x = x * (torch.nan if Brightness.calls > 4 else 1)\n",
            ),
        ],
        "entry, steep, seed",
    ),
    "hidden operations": (
        [
            (
                "    def map(self, x: Tensor) -> Tensor:\n",
                "    calls = 0\n\n    def map(self, x: Tensor) -> Tensor:\n        Brightness.calls += 1\n"
                "        _ = [torch.ones(900, 900) @ torch.ones(900, 900) for _ in range(Brightness.calls > 4)]\n",
            ),
        ],
        "operations in a step while training",
    ),
    "seeds in a step": (
        [("        return x + torch.expm1", "        torch.manual_seed(0)\n        return x + torch.expm1")],
        "found that step 0 seeds torch",
    ),
    "a file": (
        [("LABEL =", f'GAIN = open("{REPOSITORY}/pyproject.toml").read()\nLABEL =')],
        "pyproject.toml, expected an entry that reads only itself and what is installed",
    ),
    "the environment": (
        [("LABEL =", 'import os\n\nGAIN = os.environ["HOME"]\nLABEL =')],
        "cannot be imported (KeyError('HOME'))",
    ),
    "the environment as a file": (
        [("LABEL =", 'GAIN = open("/proc/self/environ").read()\nLABEL =')],
        "/environ, expected an entry that reads only itself",
    ),
    "a map that is called unseen": (
        [
            (
                "    def map(self",
                "    def __call__(self, *given: object, **named: object) -> object:\n"
                "        return self.forward(*given, **named)\n\n    def map(self",
            )
        ],
        "found no call of its map while its bound was measured",
    ),
    "a module beside it": (
        [("LABEL =", "import benchmarks.tries\n\nLABEL =")],
        "benchmarks/__init__.py, expected an entry that reads only itself",
    ),
    "a new file": (
        [("LABEL =", 'open("/indm-of-an-entry", "w")\nLABEL =')],
        "/indm-of-an-entry, expected an entry that changes no file",
    ),
    "another file in the place of one": (
        [("LABEL =", 'import os\n\nos.replace("indm-of-an-entry", "indm-of-another")\nLABEL =')],
        "found os.rename, expected an entry that changes no file",
    ),
    "an operator of its own": (
        [
            (
                "LABEL =",
                '@torch.library.custom_op("brightness::product", mutates_args=())\n'
                "def product(a: Tensor) -> Tensor:\n    return a @ a\n\n\nLABEL =",
            ),
            ("        return x + torch.expm1", "        product(torch.ones(9, 9))\n        return x + torch.expm1"),
        ],
        "found the operator brightness.product.default, expected torch's own",
    ),
    "an operator of its own under a name of torch's": (
        [
            (
                "LABEL =",
                '@torch.library.custom_op("aten::brightness_product", mutates_args=())\n'
                "def product(a: Tensor) -> Tensor:\n    return a @ a\n\n\nLABEL =",
            ),
            ("        return x + torch.expm1", "        product(torch.ones(9, 9))\n        return x + torch.expm1"),
        ],
        "found the operator aten.brightness_product.default, expected torch's own",
    ),
    "a relative path": (
        [("LABEL =", 'import os\n\nos.open("etc/passwd", os.O_RDONLY, dir_fd=os.open("/", os.O_RDONLY))\nLABEL =')],
        "found that it opens etc/passwd, expected a path from the top",
    ),
    "the rights of a file": (
        [("LABEL =", 'import os\n\nos.chmod("/tmp", 0o777)\nLABEL =')],
        "found os.chmod, expected an entry that changes no file",
    ),
    "a program": (
        [("LABEL =", 'import subprocess\n\nsubprocess.run(["env"])\nLABEL =')],
        "found subprocess.Popen, expected an entry that starts no program",
    ),
    "the end of its process": (
        [("LABEL =", "import os\n\nos._exit(3)\nLABEL =")],
        "entry: found that its process ended, expected numbers",
    ),
    "false only after its training": (
        [
            (
                "return self.log_gain\n",
                "return self.log_gain + 20 * (self.log_gain.dtype is torch.float32 and not self.training)\n",
            )
        ],
        "breaks the contract",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_one_line_and_nothing_is_recorded(case: str, tmp_path: Path) -> None:
    changes, words = BAD[case]
    path = edited(tmp_path, *changes)
    done = CliRunner().invoke(main, ["enter", str(path), "--track", "smoke", "--out", str(tmp_path / "out")])
    lines = [line for line in done.output.splitlines() if line and "step/s]" not in line]
    assert done.exit_code == 1
    assert len(lines) == 1
    assert words in lines[0]
    assert not [*(tmp_path / "out").rglob("*.*")]


@pytest.mark.parametrize(
    "arguments", [["enter", "no.py", "--track", "smoke"], ["enter", str(EXAMPLE), "--track", "no"], ["verify", "no"]]
)
def test_what_is_not_there_is_named(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code != 0
    assert "found no such" in done.output


def test_a_folder_is_not_overwritten(entered: Folder, track: LoadedTrack) -> None:
    with pytest.raises(ArtifactError, match="found a folder, expected none"):
        enter(EXAMPLE, track, entered.path.parents[1])


def test_a_track_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tracks").mkdir()
    shutil.copy("params/smoke.yaml", tmp_path)
    text = Path("params/tracks/smoke.yaml").read_text().replace("ddpmpp-nll", "indm-nll")
    (tmp_path / "tracks/smoke.yaml").write_text(text)
    with pytest.raises(ParamsError, match="key run: found 'digits-vp-indm-nll-s0'"):
        load_track(str(tmp_path / "tracks/smoke.yaml"))


# ----------------------------------------------------------------------------------------------------------------------
# Records


def made_better(folder: Path, by: float, **about: object) -> None:
    """Make the entry of a folder better than all other models, by about as much on every seed."""
    read = json.loads((folder / "entry.json").read_text()) | about
    (folder / "entry.json").write_text(json.dumps(read))
    table = pd.read_csv(folder / "numbers.csv")
    for number, seed in enumerate(read["seeds"]):
        for model in set(read["models"]) - {"entry"}:
            table[f"{model}-s{seed}"] = table[f"entry-s{seed}"] + by + 0.001 * number
    (folder / "numbers.csv").write_text(table_text(table))


@pytest.fixture
def records(entered: Folder, tmp_path: Path) -> Path:
    shutil.copytree(entered.path, tmp_path / "smoke/brightness")
    return tmp_path


def confirmed(records: Path, name: str = "brightness") -> Path:
    return Path(shutil.copytree(records / "smoke" / name, records / "smoke" / name / "confirmed"))


def test_only_a_confirmed_entry_that_is_better_is_the_record(records: Path, track: LoadedTrack) -> None:
    made_better(records / "smoke/brightness", 0.1)
    assert record_of(accepted(track, records)) is None
    made_better(confirmed(records), 0.1)
    # Without a nonce, its seeds are the author's.
    assert current_record(track, records) is None
    made_better(records / "smoke/brightness/confirmed", 0.1, nonce="later")
    record = current_record(track, records)
    assert record is not None
    assert record.label == "brightness"
    made_better(records / "smoke/brightness/confirmed", 0.005)
    assert current_record(track, records) is None


def test_records_follow_each_other(records: Path, track: LoadedTrack) -> None:
    made_better(records / "smoke/brightness", 0.1)
    made_better(confirmed(records), 0.1, nonce="later")
    first = read_entry(records / "smoke/brightness/entry.py").sha256
    shutil.copytree(records / "smoke/brightness", records / "smoke/second")
    for folder in (records / "smoke/second", records / "smoke/second/confirmed"):
        (folder / "entry.py").write_text(EXAMPLE.read_text() + "# Another entry.\n")
        with_record(folder)
        made_better(folder, 0.1, sha256="1" * 64)
    # It was better than something that is not the record.
    assert record_path(track, records) == "brightness"
    for folder in (records / "smoke/second", records / "smoke/second/confirmed"):
        made_better(folder, 0.1, record_sha256=first)
    assert record_path(track, records) == "second"


def test_another_file_is_not_confirmed(records: Path, track: LoadedTrack) -> None:
    made_better(records / "smoke/brightness", 0.1)
    made_better(confirmed(records), 0.1, nonce="later")
    assert current_record(track, records) is not None
    file = records / "smoke/brightness/confirmed/entry.py"
    file.write_text(file.read_text() + 'STYLE = {"gain": 2}\n')
    assert current_record(track, records) is None


def record_path(track: LoadedTrack, records: Path) -> str:
    record = record_of(accepted(track, records))
    assert record is not None
    return record.claim.path.name


def with_record(folder: Path) -> None:
    """Add a record to the models of a folder, with the numbers of DDPM++."""
    about = json.loads((folder / "entry.json").read_text())
    about["models"]["record"] = about["models"]["ddpmpp"]
    about["record_sha256"] = "0" * 64
    (folder / "entry.json").write_text(json.dumps(about))
    for name in ("numbers.csv", "losses.csv"):
        table = pd.read_csv(folder / name)
        found = table.filter(like="ddpmpp-").rename(columns=lambda column: column.replace("ddpmpp", "record"))
        (folder / name).write_text(table_text(pd.concat([table, found], axis=1)))


def test_entries_of_another_version_are_not_listed(records: Path, track: LoadedTrack) -> None:
    made_better(records / "smoke/brightness", 0.1, track_sha256="0" * 64)
    assert accepted(track, records) == []


def test_the_page_of_the_records_lists_claims(records: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "params/tracks").mkdir(parents=True)
    shutil.copy("params/smoke.yaml", root / "params")
    text = Path("params/tracks/smoke.yaml").read_text()
    (root / "params/tracks/smoke.yaml").write_text(text)
    shutil.copytree(REPOSITORY / "docs/records", root / "docs/records")
    page = root / "docs/records/README.md"
    # Its numbers mean nothing.
    assert "smoke" not in record_texts(root)[page]
    (root / "params/tracks/smoke.yaml").write_text(text.replace("ranked: false", "ranked: true"))
    assert "No entries yet" in record_texts(root)[page]
    ranked = load_track(str(root / "params/tracks/smoke.yaml"))
    shutil.copytree(records / "smoke", root / "docs/records/smoke")
    made_better(root / "docs/records/smoke/brightness", 0.1, track_sha256=ranked.sha256)
    texts = record_texts(root)
    assert "[brightness](smoke/brightness/README.md) | claim | 1.01 | better, 0.101" in texts[page]
    assert texts[root / "docs/records/smoke.svg"].startswith("<?xml")


@pytest.mark.long
def test_a_folder_verifies_when_all_is_trained_again_by_two_processes(entered: Folder, track: LoadedTrack) -> None:
    found = [*verify(entered.path, track, full=True, cores=2, records=entered.path)]
    assert {finding.outcome for finding in found} == {OK}


@pytest.mark.long
def test_images_and_a_forward_process_can_be_entered(tmp_path: Path) -> None:
    """On the digits, in a few steps."""
    (tmp_path / "tracks").mkdir()
    shutil.copy("params/smoke.yaml", tmp_path)
    text = Path("params/tracks/smoke.yaml").read_text()
    (tmp_path / "tracks/smoke.yaml").write_text(text[: text.index("densities: {")] + "densities: null\n")
    track = load_track(str(tmp_path / "tracks/smoke.yaml"))
    source = (REPOSITORY / "docs/extending/code/fading.py").read_text()
    path = tmp_path / "fading.py"
    path.write_text(source + '\nLABEL = "fading"\nRATES = {"smoke": {"lr": 1e-2, "flow_lr": 1e-2}}\n')
    folder = enter(path, track, tmp_path / "out", records=tmp_path)
    assert len(folder.numbers) == 360
    assert folder.verdicts()["images"].tolist() == [360]
    assert FAILED not in outcomes(folder.path, track, code=True).values()
