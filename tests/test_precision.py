"""Precision by name: what it costs a flow, where it is switched on, and what results say of it."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from indm import process
from indm.errors import ConvergenceError
from indm.flows import sources
from indm.flows.log_det import Series
from indm.flows.registered import resflow
from indm.flows.registered.resflow import ResidualFlow
from indm.process import FPMATH, float32_products, only_float32, precision_now, precision_used, products_in, set_up
from indm.store.files import read_json
from indm.training.batches import draw
from indm.training.losses import Optimisation
from indm.training.saving import write_training
from indm.training.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.test_training import OPTIONS, SEED, images, model, same, weights

# Bits of a mantissa behind the point.
BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}
ATEN = torch.ops.aten
# Of each product, which arguments are factors.
FACTORS = {
    ATEN.mm: (0, 1),
    ATEN.bmm: (0, 1),
    ATEN.addmm: (1, 2),
    ATEN.baddbmm: (1, 2),
    ATEN.convolution: (0, 1),
    ATEN.convolution_backward: (0, 1, 2),
}
CUDA = torch.device("cuda")
BOUNDED: list[dict[str, Any]] = [
    {"activation": "sin", "bound": "linf", "coefficient": 0.98},
    {"activation": "elu", "bound": "spectral", "coefficient": 0.9},
]
# Of a flow of six blocks at their bound, against float64: of z in a pixel, of log-determinants in bits/dim, of the gradient
# (relative). They are some three times what is found. One level of 256 is 0.0078 wide.
ERRORS = {"float32": (1e-6, 2e-7, 1e-6), "tf32": (1e-3, 2e-5, 1e-3), "bfloat16": (6e-3, 2e-4, 8e-3)}


def rounded(x: Tensor, bits: int) -> Tensor:
    """Round float32 numbers to so many bits of the mantissa, halves away from zero."""
    dropped = 23 - bits
    if not dropped:
        return x
    return ((x.contiguous().view(torch.int32) + (1 << (dropped - 1))) & -(1 << dropped)).view(torch.float32)


class RoundedProducts(TorchDispatchMode):
    """Computes products in a precision of :data:`BITS`, as a GPU does: mantissas of factors are rounded, sums are float32's."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.bits = BITS[precision]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Round the factors of products."""
        factors = FACTORS.get(func.overloadpacket, ())
        args = [rounded(x, self.bits) if index in factors else x for index, x in enumerate(args)]
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Leave torch's switches as stages set them."""
    yield
    only_float32()


@pytest.fixture
def float32_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the same numbers for a flow in float64."""
    draw_probe = sources.draw_probe
    for module in (sources, resflow):
        monkeypatch.setattr(module, "draw_probe", lambda x, *rest: draw_probe(torch.empty(x.shape), *rest).to(x.dtype))


def at_its_bound(**options: Any) -> ResidualFlow:
    torch.manual_seed(0)
    flow = ResidualFlow(3, 8, blocks=(3, 3), width=32, **options)
    for _, _, block in flow.named_blocks():
        block.scale_to_bound()
        for conv in block.convs:
            conv.weight.data.mul_(2)
    flow.update_norms()
    return flow


def evaluated(flow: ResidualFlow, x: Tensor) -> list[Tensor]:
    """Return z, both log-determinants and the gradient of a training step."""
    with torch.no_grad():
        z, exact = flow(x, "exact")
        series = flow(x, Series(1e-6), Generator().manual_seed(1))[1]
    trained, estimate = flow(x, "train", Generator().manual_seed(2))
    (trained.square().sum() / 2 - estimate.sum()).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in flow.parameters() if parameter.grad is not None])
    return [z, exact, series, gradient]


@pytest.mark.usefixtures("float32_draws")
@pytest.mark.parametrize("options", BOUNDED, ids=str)
@pytest.mark.parametrize("precision", BITS)
def test_a_flow_in_each_precision_is_that_of_float64_to_its_rounding(options: dict[str, Any], precision: str) -> None:
    flow, x = at_its_bound(**options), torch.rand(4, 3, 8, 8, generator=Generator().manual_seed(0)) * 2 - 1
    z, exact, series, gradient = evaluated(copy.deepcopy(flow).double(), x.double())
    with RoundedProducts(precision):
        found = evaluated(flow, x)
    of_z, of_log_det, of_gradient = ERRORS[precision]
    assert (found[0] - z).abs().max() < of_z
    bits = torch.cat([found[1] - exact, found[2] - series]).abs() / x[0].numel() / torch.tensor(2.0).log()
    assert bits.max() < of_log_det
    assert (found[3] - gradient).norm() < of_gradient * gradient.norm()


@pytest.mark.parametrize("options", BOUNDED, ids=str)
def test_the_inverse_reaches_its_tolerance_in_float32(options: dict[str, Any]) -> None:
    flow, x = at_its_bound(**options), torch.rand(4, 3, 8, 8, generator=Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        z = copy.deepcopy(flow).double()(x.double(), "none")[0].float()
    assert (flow.inverse(z) - x).abs().max() < 1e-5


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_the_inverse_does_not_in_shorter_ones_so_evaluation_is_float32(precision: str) -> None:
    flow = at_its_bound(**BOUNDED[1])
    with RoundedProducts(precision), pytest.raises(ConvergenceError, match="100 iterations"):
        flow.inverse(torch.rand(4, 3, 8, 8, generator=Generator().manual_seed(0)) * 2 - 1, max_iterations=100)


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_stages_begin_in_float32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    assert precision_now() == "tf32"
    set_up("cpu", 1)
    assert allowed() == (False, False)
    assert precision_now() == "float32"
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    assert precision_now() == "tf32"


def onednn() -> dict[str, str]:
    """What oneDNN may compute products in."""
    mkldnn: Any = torch.backends.mkldnn
    return {name: getattr(mkldnn, name).fp32_precision for name in ("matmul", "conv", "rnn")}


@pytest.mark.parametrize("parent", [True, False])
def test_stages_begin_without_what_a_program_has_allowed(parent: bool) -> None:
    """On the CPU too, where oneDNN would take bfloat16 on processors that have it."""
    mkldnn: Any = torch.backends.mkldnn
    if parent:
        mkldnn.matmul.fp32_precision = "none"
        mkldnn.set_flags(_fp32_precision="bf16")
    else:
        torch.set_float32_matmul_precision("medium")
    assert onednn()["matmul"] == "bf16"
    assert precision_now() == "bfloat16"
    set_up("cpu", 1)
    assert set(onednn().values()) == {"ieee"}
    assert torch.get_float32_matmul_precision() == "highest"
    assert precision_now() == "float32"


def test_older_releases_have_other_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    torch.set_float32_matmul_precision("medium")
    assert precision_now() == "bfloat16"
    with float32_products():
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32, precision_now()) == (
            "highest",
            False,
            "float32",
        )
    assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("medium", True)
    set_up("cpu", 1)
    assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("highest", False)


@pytest.mark.long
def test_the_environment_does_not_reach_onednn() -> None:
    """It reads the variable when torch is imported; it prints what it is told of each convolution."""
    found = {}
    for call in ("", "unset_fpmath()"):
        code = (
            f"from indm.process import unset_fpmath; {call}\nimport torch; torch.conv2d(*[torch.ones(8, 8, 8, 8)] * 2)"
        )
        environment = os.environ | dict.fromkeys(FPMATH, "BF16") | {"ONEDNN_VERBOSE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
        )
        found[call] = "fpmath:bf16" in done.stdout
    assert found == {"": torch.backends.mkldnn.is_available(), "unset_fpmath()": False}


@pytest.mark.parametrize(
    ("asked", "capability", "on"),
    [("float32", (9, 0), False), ("tf32", (9, 0), True), ("tf32", (7, 5), False), ("bfloat16", (8, 0), True)],
)
def test_tf32_is_on_inside_the_block_where_a_gpu_has_it(
    asked: str, capability: tuple[int, int], on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    set_up("cpu", 1)
    with products_in(asked, CUDA):
        assert allowed() == (on, on)
    assert allowed() == (False, False)
    with pytest.raises(KeyError), products_in(asked, CUDA):
        raise KeyError
    assert allowed() == (False, False)
    assert precision_used(asked, CUDA) == ("float32" if asked == "tf32" and not on else asked)


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_a_training_has_tf32_in_its_networks_alone(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this device had it: on in the passes, forward and backward; off where bounds and weights are renewed."""
    monkeypatch.setattr(process, "_has_tf32", lambda device: True)
    set_up("cpu", 1)
    trainer, seen = Trainer(model(), Optimisation(objective=objective, precision="tf32", **OPTIONS)), dict[str, Any]()
    for name in ("flow", "noise"):
        network = getattr(trainer.model, name)
        network.register_forward_hook(lambda _, inputs, out, name=name: seen.update({f"{name} forward": allowed()}))
        parameter = next(network.parameters())
        parameter.register_hook(lambda grad, name=name: seen.update({f"{name} backward": allowed()}))
    norms, step = trainer.model.flow.update_norms, trainer.optimisers["score"].step
    monkeypatch.setattr(trainer.model.flow, "update_norms", lambda: [seen.update(norms=allowed()), norms()])
    monkeypatch.setattr(trainer.optimisers["score"], "step", lambda: [seen.update(step=allowed()), step()])
    trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    passes = {f"{name} {way}": (True, True) for name in ("flow", "noise") for way in ("forward", "backward")}
    assert seen == passes | {"norms": (False, False), "step": (False, False)}


def test_tf32_on_a_cpu_is_float32_and_results_say_so(tmp_path: Path) -> None:
    trained = []
    for precision in ("float32", "tf32"):
        trainer = Trainer(model(), Optimisation(objective="nll", precision=precision, **OPTIONS))
        losses = trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
        write_training(tmp_path / precision, trainer, [losses | {"step": 1}], {"run": "a", "step": 1}, {})
        trained.append(weights(trainer.model))
        assert read_json(tmp_path / precision / "train.json")["precision"] == "float32"
    assert same(*trained)
