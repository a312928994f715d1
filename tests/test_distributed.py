"""Several processes train what one does: the same losses, one writer, and one line where something fails."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from indm.bench.cli import main
from indm.bench.stages import train
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import DivergenceError, NoGpuError, ParamsError, StoppedError, TooLittleMemoryError
from indm.process import NUMBERS
from indm.store import provenance
from indm.store.files import read_json
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.strict_yaml import parse_yaml, yaml_text
from indm.training.batches import draw
from indm.training.distributed import group, launch
from indm.training.loop import Plan
from indm.training.loop import train as train_steps
from indm.training.trainer import Optimisation, Trainer
from tests.conftest import REPOSITORY
from tests.finished import run
from tests.test_resume import OUTPUTS, RUN
from tests.test_training import CPU, LOOP, OPTIONS, PLAN, SEED, images, model, weights

Curve = list[dict[str, float]]


def bfloat16_attention_works() -> bool:
    """Whether this torch has the product of attention in bfloat16, of a first dimension that its fast kernel takes."""
    q = torch.ones(1, 1, 64, 8, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    except RuntimeError:
        return False
    return True


BFLOAT16 = pytest.mark.skipif(
    not bfloat16_attention_works(),
    reason="torch has no attention in bfloat16 here, as where ATEN_CPU_CAPABILITY hides the AVX-512 of a processor with AMX",
)
# What is trained, and by how large a batch: of 7 images, the parts of two processes differ in size.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "nll": ({"objective": "nll"}, 8),
    "fid": ({"objective": "fid"}, 8),
    "fid, micro-batches": ({"objective": "fid", "micro_batches": 3}, 7),
    "nll, reconstruction and soft truncation": (
        {"objective": "nll", "reconstruction": True, "soft_truncation": 1.2},
        7,
    ),
    "nll, running deviation": ({"objective": "nll", "normalise_input": "running", "micro_batches": 2}, 7),
    "fid, float64": ({"objective": "fid", "dtype": torch.float64}, 7),
    "nll, wolf, float64": ({"objective": "nll", "flow": "wolf", "dtype": torch.float64}, 7),
    "nll, learned range": ({"objective": "nll", "learned_range": True, "reconstruction": True}, 7),
    "nll, fresh score": ({"objective": "nll", "fresh_score_after": 3}, 7),
    "nll, share": ({"objective": "nll", "log_det_share": 1 / 7}, 7),
    "fid, wolf, micro-batches, share": (
        {"objective": "fid", "flow": "wolf", "micro_batches": 2, "log_det_share": 0.25},
        8,
    ),
    "nll, wolf": ({"objective": "nll", "flow": "wolf"}, 8),
    "fid, wolf, micro-batches": ({"objective": "fid", "flow": "wolf", "micro_batches": 2}, 8),
}
if bfloat16_attention_works():
    CASES["nll, bfloat16"] = ({"objective": "nll", "precision": "bfloat16"}, 8)


def trained(options: dict[str, Any], batch_size: int) -> tuple[Curve, list[Tensor]]:
    """Take a few steps with a clipped gradient; return the losses and the averaged weights."""
    options = {"grad_clip": 1.0, **options}
    dtype, kind = options.pop("dtype", torch.float32), {"flow": options.pop("flow", "resflow")}
    fresh, share = options.pop("fresh_score_after", None), options.pop("log_det_share", 1.0)
    kind |= {key: options.pop(key) for key in ("normalise_input", "learned_range") if key in options}
    trainer = Trainer(model(**kind).to(dtype), Optimisation(**OPTIONS | options))
    plan = Plan(
        steps=6,
        flow_warmup_steps=1,
        fresh_score_after=fresh,
        log_det_share=share,
        **PLAN | {"batch_size": batch_size, "log_every": 1},
    )
    torch.set_default_dtype(dtype)  # of the draws
    try:
        curve = train_steps(trainer, images(), 17, plan, **LOOP)
    finally:
        torch.set_default_dtype(torch.float32)
    # Not the singular vectors of the flow's weights, whose signs rounding decides.
    return curve, weights(trainer.averaged())


def all_trained() -> dict[str, tuple[Curve, list[Tensor]]]:
    return {name: trained(*case) for name, case in CASES.items()}


def all_trained_in_a_group() -> dict[str, tuple[Curve, Any]]:
    torch.set_num_threads(1)
    with group(CPU):
        # As lists, which need no shared memory.
        return {
            name: (curve, [value.tolist() for value in averaged]) for name, (curve, averaged) in all_trained().items()
        }


@pytest.fixture(scope="module")
def by_two() -> dict[str, tuple[Curve, Any]]:
    return launch(2, all_trained_in_a_group)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_two_processes_follow_the_curve_of_one(by_two: dict[str, tuple[Curve, Any]], case: str) -> None:
    curve, averaged = trained(*CASES[case])
    other_curve, other_averaged = by_two[case]
    tolerance = {"bfloat16": 1e-3, "float64": 1e-9}.get(case.split()[-1], 1e-5)
    for row, other in zip(curve, other_curve, strict=True):
        assert other == pytest.approx(row, rel=0, abs=tolerance)
    for value, found in zip(averaged, other_averaged, strict=True):
        torch.testing.assert_close(torch.tensor(found, dtype=value.dtype), value, rtol=0, atol=10 * tolerance)


def stopped_and_not() -> list[list[list[float]]]:
    """Train for four steps, at once and as two times two; return the raw weights of both."""
    torch.set_num_threads(1)
    found = []
    with group(CPU):
        for lengths in ((4,), (2, 2)):
            state: dict[str, Tensor] = {}
            done = 0
            for length in lengths:
                trainer = Trainer(model(), Optimisation(objective="nll", **OPTIONS))
                if state:
                    trainer.load_state(state)
                for step in range(done, done + length):
                    trainer.step(draw(images(), 17, 8, SEED, step), 1.0)
                state, done = {key: value.clone() for key, value in trainer.state().items()}, done + length
            found.append([value.flatten().tolist() for value in weights(trainer.model)])
    return found


@pytest.mark.long
def test_three_processes_that_continue_add_up_in_the_order_of_undisturbed_ones() -> None:
    """Of three numbers the order of the sum decides the last digit."""
    undisturbed, continued = launch(3, stopped_and_not)
    assert continued == undisturbed


@BFLOAT16
@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_bfloat16_is_close_to_float32(objective: str) -> None:
    """Within one per cent of each loss of six steps: eight bits of a product's factors, averaged over a batch."""
    curve, other = (trained({"objective": objective, "precision": p}, 8)[0] for p in ("float32", "bfloat16"))
    assert curve != other
    assert curve[0] == other[0]  # the flow alone
    for row, found in zip(curve, other, strict=True):
        assert found == pytest.approx(row, rel=1e-2, abs=1e-2)


@BFLOAT16
def test_bfloat16_leaves_the_flow_and_the_bookkeeping_as_they_are() -> None:
    trainer = Trainer(model(), Optimisation(objective="nll", precision="bfloat16", **OPTIONS))
    seen: dict[str, torch.dtype] = {}
    network, flow = trainer.model.noise.network, trainer.model.flow
    network.register_forward_hook(lambda _, inputs, out: seen.update(score=out.dtype, condition=inputs[1].dtype))
    flow.register_forward_hook(lambda _, inputs, out: seen.update(z=out[0].dtype, log_det=out[1].dtype))
    trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    wide = dict.fromkeys(("condition", "z", "log_det"), torch.float32)
    assert seen == {"score": torch.bfloat16, **wide}
    assert all(value.dtype == torch.float32 for value in trainer.model.parameters())


def diverge_in_a_group() -> None:
    """The last image alone, which is the second process's, is not finite."""
    with group(CPU):
        trainer = Trainer(model("identity"), Optimisation(objective="nll", **OPTIONS))
        draws = draw(images(), 17, 8, SEED, 0)
        draws.x[-1] = float("nan")
        trainer.step(draws, 1.0)


def die_in_a_group() -> None:
    with group(CPU):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        all_trained()


def fill_memory_in_a_group() -> None:
    with group(CPU):
        if os.environ["RANK"] == "1":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        all_trained()


@pytest.mark.long
def test_errors_of_processes() -> None:
    """All stop at the same gradient; of one that was killed, the others are not left behind; too little memory is one line."""
    with pytest.raises(DivergenceError, match="loss nan"):
        launch(2, diverge_in_a_group)
    with pytest.raises(StoppedError, match=r"process 1 of 2.*SIGKILL"):
        launch(2, die_in_a_group)
    with pytest.raises(TooLittleMemoryError, match=r"^[^\n]*batch_size[^\n]*$"):
        launch(2, fill_memory_in_a_group)


def write_suite(folder: Path, processes: int, steps: int = 12) -> Path:
    """Write the smoke suite, one short run of it saved after every step, for a number of processes."""
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    content |= {"processes": processes, "save_seconds": 0.0, "runs": {RUN: content["runs"][RUN]}, "tune": {}}
    content["grading"]["images"]["simple"] = None
    content["train"] |= {"steps": steps, "snapshots": [3, 7], "log_every": 1}
    folder.mkdir(exist_ok=True)
    file = folder / "smoke.yaml"
    file.write_text(yaml_text(content))
    return file


def start(suite: Path, out: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*(prefix or ("-m", "indm")), "train", "--suite", str(suite), "--out", str(out), "--run", RUN]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *command], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    return errors


def outputs(layout: Layout) -> dict[str, bytes]:
    return {name: (layout.run(RUN) / name).read_bytes() for name in OUTPUTS}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Where the data lie, made by a job of their own: the processes of a training ask for its manifest."""
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    smoke = str(REPOSITORY / "params/smoke.yaml")
    command = ["-m", "indm", "prepare", "--suite", smoke, "--dataset", "digits", "--out", str(layout.root)]
    subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=True)
    return layout


@pytest.fixture(scope="module")
def undisturbed(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What two processes write that nothing disturbs."""
    errors = finish(start(write_suite(tmp_path_factory.mktemp("params"), 2), layout.root))
    assert len(re.findall(r"\b0/12 ", errors)) == 1, errors  # one progress bar
    return outputs(layout)


@pytest.mark.slow
@pytest.mark.long
def test_a_stage_of_two_processes_writes_what_one_does(
    layout: Layout, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    files = {path.relative_to(layout.root) for path in layout.root.rglob("*")}
    curve = pd.read_csv(layout.run(RUN) / "train.csv")
    summary = read_json(layout.run(RUN) / "train.json")
    (layout.run(RUN) / "train.csv").unlink()
    run(train, load_suite(write_suite(tmp_path, 1)), layout, RUN)
    assert {path.relative_to(layout.root) for path in layout.root.rglob("*")} == files
    one_curve = pd.read_csv(layout.run(RUN) / "train.csv")
    # The same bound as above, in decimals: of the six digits that are written, the last one may differ by one.
    assert list(curve) == list(one_curve)
    assert ((curve - one_curve).abs().round(6) <= 1e-5).all(axis=None)
    # Each refreshes the spectral norms for itself.
    one = read_json(layout.run(RUN) / "train.json")
    assert one["train_flops_per_step"] == pytest.approx(summary["train_flops_per_step"], rel=0.1)
    assert read_json(layout.run(RUN) / "provenance/train.json")["seconds"] > 0


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_that_were_asked_to_stop_go_on(
    layout: Layout, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """By SIGTERM of the first, then of the last: the process that was started passes it on to both."""
    suite, state = write_suite(tmp_path, 2), layout.scratch(RUN, "train") / "state.safetensors"
    process = start(suite, layout.root)
    while not state.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 75, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("indm ")]
    assert re.search(r"stopped by SIGTERM; the state after step \d+ is saved in .*; run it again to continue", line)
    assert errors.count("Traceback") == 0
    assert finish(start(suite, layout.root)).count("continues after step") == 1
    assert outputs(layout) == undisturbed


@pytest.mark.slow
@pytest.mark.long
def test_torchrun_starts_the_processes_too(layout: Layout, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "--", "indm"]
    finish(start(write_suite(tmp_path, 2), layout.root, *torchrun))
    assert outputs(layout) == undisturbed


def join_on_a_gpu(*arguments: Any) -> Finished:
    """Train as one of several processes, each of which says that it has a GPU and much memory."""
    number = int(os.environ["RANK"])
    provenance._device = lambda: f"cuda (GPU {number})"
    provenance.peak_memory = lambda: 1e6 + number
    return train._join(*arguments)


@pytest.mark.slow
@pytest.mark.long
def test_provenance_is_that_of_the_first_process_that_trains(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that started them has neither a device nor a model."""
    monkeypatch.setattr(train, "_join", join_on_a_gpu)
    arguments = ["train", "--suite", str(write_suite(tmp_path, 2)), "--out", str(layout.root), "--run", RUN]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = read_json(layout.run(RUN) / "provenance/train.json")
    assert (found["device"], found["peak_memory_mib"]) == ("cuda (GPU 0)", 1e6)


def test_more_processes_than_images_are_refused(tmp_path: Path) -> None:
    words = rf"run {RUN}, key processes: found 17; allowed: up to 16, the images of a batch \(train.batch_size\)"
    with pytest.raises(ParamsError, match=words):
        load_suite(write_suite(tmp_path, 17))


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_more_processes_than_gpus_are_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    suite = load_suite(write_suite(tmp_path, 2)).model_copy(update={"device": device})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NoGpuError, match="processes 2: found 1 GPU"):
        run(train, suite, layout, RUN)


def test_another_number_of_processes_than_the_suites_is_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite: Suite = load_suite(write_suite(tmp_path, 2))
    for name in (*NUMBERS, "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ParamsError, match=r"found 3 .* 2 .*key processes"):
        run(train, suite, layout, RUN)
