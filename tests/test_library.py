"""Runs in Python: the published weights give the published numbers, and what is wrong is said on one line."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import indm
from indm.data.levels import to_uint8
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError, DataError, ParamsError
from indm.library import Run
from indm.process import FPMATH, only_float32
from indm.registry import DATASETS
from indm.shipped import WEIGHTS
from indm.store.files import CHECKPOINT_FORMAT, file_sha256, write_json, write_weights
from indm.store.manifest import Manifest, write_manifest
from indm.store.weights import SIGNATURE, WEIGHTS_FORMAT, read_published, signature
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results/digits"
FIRST = "noise.network.conv_in.weight"
INDM, DDPMPP = "digits-vp-indm-nll-s4", "digits-vp-ddpmpp-nll-s4"


@pytest.fixture(scope="module")
def run() -> Run:
    return indm.load_run(INDM)


def digits(count: int) -> Tensor:
    return torch.from_numpy(next(DATASETS["digits"].load(split_seed=0)["test"].pieces())[:count])


def test_the_package_brings_all_weights_that_are_published() -> None:
    brought = {path.relative_to(WEIGHTS): path.resolve() for path in WEIGHTS.glob("*/*")}
    files = REPOSITORY.glob("docs/results/*/weights/*")
    assert brought == {Path(file.parts[-3], file.name): file for file in files}


def test_import_takes_neither_torch_nor_numpy() -> None:
    code = "import sys, indm; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError, match="'load'"):
        _ = indm.load


def test_images_come_back_from_their_latents(run: Run) -> None:
    assert (run.name, run.dataset, run.seed, run.levels) == (INDM, "digits", 4, 17)
    images = digits(20)
    latents = run.encode(images)
    assert latents.shape == images.shape
    assert torch.equal(run.invert(latents), images)
    # The flow moves them: it is no identity.
    levels = (latents + 1) / 2 * run.levels
    assert (levels - images).abs().max() > 1


def test_samples_are_levels_and_repeat(run: Run) -> None:
    images = run.sample(3, steps=4)
    assert (images.shape, images.dtype) == ((3, 1, 8, 8), torch.uint8)
    assert images.max() < run.levels
    assert torch.equal(run.sample(3, steps=4), images)
    assert not torch.equal(run.sample(3, steps=4, seed=1), images)


def test_likelihood_says_of_what_it_is(run: Run) -> None:
    found = run.likelihood(digits(6).numpy(), seed=7, ode_steps=8, time_draws=2)
    assert found.nll.shape == found.nelbo.shape == (6,)
    assert re.fullmatch(r"NLL \d\.\d{3} ± \d\.\d{3}, NELBO \S+ ± \S+ bits/dim \(6 images, seed 7\)", str(found))
    alone = run.likelihood(digits(1), ode_steps=8, time_draws=2)
    assert re.fullmatch(r"NLL \d\.\d{3}, NELBO \d\.\d{3} bits/dim \(1 images, seed 4\)", str(alone))


def places() -> dict[str, Any]:
    """Where torch's newer switches are."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    found = {"all": backends, "cuda": cudnn, "cuda matmul": backends.cuda.matmul, "cuda conv": cudnn.conv}
    found |= {"cuda rnn": cudnn.rnn, "onednn": type(mkldnn.matmul)("mkldnn", "all")}
    return found | {f"onednn {name}": getattr(mkldnn, name) for name in ("matmul", "conv", "rnn")}


def program() -> dict[str, object]:
    """What decides in which precision torch computes."""
    precisions = {name: place.fp32_precision for name, place in places().items()}
    autocast = {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    mkldnn: Any = torch.backends.mkldnn
    return precisions | autocast | {"default": torch.get_default_dtype(), "onednn on": mkldnn.enabled}


class Convolutions(TorchDispatchMode):
    """Notes what each convolution is computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[object]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in str(func):
            for name, value in program().items():
                self.seen.setdefault(name, set()).add(value)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Be a program that has allowed all that torch's older switches can allow; leave products in float32."""
    for place in places().values():
        place.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    yield
    only_float32()


CALLS: dict[str, Callable[[Run], object]] = {
    "sample": lambda run: run.sample(1, steps=2),
    "encode": lambda run: run.encode(digits(1)),
    "invert": lambda run: run.invert(np.zeros((1, 1, 8, 8))),
    "likelihood": lambda run: run.likelihood(digits(1), ode_steps=6, time_draws=1),
}


@contextlib.contextmanager
def of_all(precision: str) -> Iterator[None]:
    """Allow a precision to all products by their common switch, from which others inherit."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.fp32_precision = precision  # type: ignore[attr-defined]
    yield


@contextlib.contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


PROGRAMS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "medium": contextlib.nullcontext,
    "tf32": lambda: of_all("tf32"),
    "bf16": lambda: of_all("bf16"),
    "onednn": lambda: torch.backends.mkldnn.flags(enabled=True, allow_tf32=False, fp32_precision="bf16"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": float64,
    "meta": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("around", PROGRAMS)
def test_products_are_float32_and_a_programs_settings_stay(run: Run, name: str, around: str) -> None:
    """Inside each operator, so that a processor without bfloat16 sees it too."""
    with PROGRAMS[around]():
        before = program()
        assert torch.is_inference_mode_enabled() == (around == "inference")
        with Convolutions() as convolutions:
            CALLS[name](run)
        assert program() == before
    found = convolutions.seen
    assert {name: found.pop(name) for name in ("cpu", "cuda", "default", "onednn on")} == {
        "cpu": {False},
        "cuda": {False},
        "default": {torch.float32},
        "onednn on": {True},
    }
    assert all(values == {"ieee"} for values in found.values()), found


def test_switches_that_inherit_still_do_after_a_call(run: Run) -> None:
    with of_all("bf16"):
        assert program()["onednn conv"] == "bf16"
        CALLS["encode"](run)
        torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
        assert program()["onednn conv"] == program()["onednn rnn"] == "ieee"


@pytest.mark.parametrize("variable", FPMATH)
@pytest.mark.parametrize("value", ["BF16", "any", "strict"])
def test_an_environment_that_onednn_has_read_is_not_followed(
    run: Run, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with Convolutions() as convolutions:
        CALLS["encode"](run)
    assert convolutions.seen["onednn on"] == {value == "strict"}
    assert program()["onednn on"]


@pytest.mark.long
@pytest.mark.parametrize("name", [INDM, DDPMPP])
def test_published_weights_give_the_published_likelihoods(name: str) -> None:
    """As many digits as the tables' numbers are of. On another processor, the last of these digits may differ."""
    values = pd.read_csv(PUBLISHED / "tables/values.csv")
    rows = values[(values["source"] == f"runs/{name}/nll.json")].set_index("metric")["value"]
    found = indm.load_run(name).likelihood(digits(360), draws="batch")
    assert found.nll.mean().item() == pytest.approx(rows["nll"], abs=1e-4)
    assert found.nelbo.mean().item() == pytest.approx(rows["nelbo"], abs=1e-4)


@pytest.mark.long
def test_published_weights_draw_the_published_samples(run: Run) -> None:
    """A grid of eight by eight digits, with one white pixel between them; rounding may differ on another processor."""
    picture = np.asarray(Image.open(PUBLISHED / f"samples/{INDM}.png").convert("L"))
    zoom = picture.shape[0] // (8 * 9 + 1)
    tiles = picture[::zoom, ::zoom][1:, 1:].reshape(8, 9, 8, 9).swapaxes(1, 2)[..., :8, :8].reshape(64, 8, 8)
    images = to_uint8(run.sample(400)[:64].numpy(), run.levels)[:, 0]
    assert (images == tiles).mean() > 0.99


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A run of one's own: averaged weights are those published, raw ones are zero."""
    state = run.model.state_dict()
    tensors = {f"ema.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"raw.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    folder = tmp_path / f"results/digits/runs/{INDM}"
    spec, path = {"run": INDM, "step": 800, "model": run.model.spec}, folder / "checkpoint.safetensors"
    write_weights(path, tensors, spec, CHECKPOINT_FORMAT)
    write_train_manifest(folder, file_sha256(path))
    return folder


def write_train_manifest(folder: Path, sha256: str) -> None:
    outputs = {f"results/digits/runs/{INDM}/checkpoint.safetensors": sha256}
    write_manifest(folder / "manifest/train.json", Manifest("train", "digits", INDM, {}, {}, outputs))


def weights(model: ImplicitNonlinearDiffusion, part: str) -> float:
    return sum(value.abs().sum().item() for value in getattr(model, part).parameters())


def test_a_run_of_ones_own_has_the_weights_of_its_samples(run: Run, folder: Path) -> None:
    own = indm.load_run(folder)
    assert (own.name, own.dataset, own.seed) == (INDM, "digits", 4)
    assert weights(own.model, "noise") == weights(run.model, "noise")
    write_json(folder / "samples.json", {"weights": {"score": "ema", "flow": "raw"}})
    own = indm.load_run(folder)
    assert weights(own.model, "noise") == weights(run.model, "noise")
    assert weights(own.model, "flow") == 0


def test_a_checkpoint_of_another_run_or_another_training_is_refused(run: Run, folder: Path) -> None:
    other = folder.with_name("digits-vp-indm-nll-s5")
    shutil.copytree(folder, other)
    checkpoint = other / "checkpoint.safetensors"
    with pytest.raises(ArtifactError, match=f"^{checkpoint}.*{INDM}"):
        indm.load_run(other)
    write_train_manifest(folder, "0" * 64)
    with pytest.raises(ArtifactError, match=r"000000000000.*manifest/train\.json"):
        indm.load_run(folder)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_checkpoint_with_a_changed_bit_is_refused_with_and_without_its_manifest(
    folder: Path, has_manifest: bool
) -> None:
    checkpoint, manifest = folder / "checkpoint.safetensors", folder / "manifest/train.json"
    checkpoint.write_bytes(one_bit(checkpoint.read_bytes()))
    if not has_manifest:
        manifest.unlink()
    with pytest.raises(ArtifactError, match=f"^{checkpoint if has_manifest else manifest}: "):
        indm.load_run(folder)


@pytest.mark.parametrize("content", [{}, {"weights": 5}, {"weights": {"score": "best"}}, {"weights": None}])
def test_samples_that_do_not_say_their_weights_are_named(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / "samples.json", content)
    with pytest.raises(ArtifactError, match=r"samples\.json.*weights"):
        indm.load_run(folder)


def renamed(spec: dict[str, Any]) -> None:
    spec["model"]["flow"]["name"] = "nosuch"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tensors, _: next(iter(tensors.values())).fill_(np.nan), "numbers that are not finite"),
        (lambda tensors, _: tensors.update({FIRST: tensors[FIRST].int()}), "found torch.int32, expected torch.float32"),
        (lambda tensors, _: tensors.pop(FIRST), "weights do not fit the model that the file describes: .*Missing key"),
        (lambda _, spec: spec.pop("model"), "describes no model that this version can build (KeyError('model'))"),
        (lambda _, spec: renamed(spec), "describes no model that this version can build"),
        (lambda _, spec: spec.update(run=5), "found run '5'"),
    ],
)
def test_published_weights_that_are_damaged_are_named(damage: Any, words: str, tmp_path: Path) -> None:
    tensors, spec = read_published(WEIGHTS / f"digits/{INDM}.safetensors")
    damage(tensors, spec)
    spec[SIGNATURE] = signature(tensors, spec)
    path = tmp_path / "weights.safetensors"
    write_weights(path, tensors, {key: value for key, value in spec.items() if key != "format"}, WEIGHTS_FORMAT)
    with pytest.raises(ArtifactError, match=f"^{path}: .*{words if '.*' in words else re.escape(words)}"):
        indm.load_run(path)


def one_bit(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize("change", [one_bit, lambda content: content.replace(b"-s4", b"-s5", 1)])
def test_weights_that_changed_since_they_were_published_are_refused(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    content = (WEIGHTS / f"digits/{INDM}.safetensors").read_bytes()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(change(content))
    assert len(path.read_bytes()) == len(content)
    assert path.read_bytes() != content
    with pytest.raises(ArtifactError, match=f"^{path}: found SHA-256"):
        indm.load_run(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"damaged", "not a safetensors file"),
        (b"\x02" + bytes(7) + b"{}", "found format None"),
        (save({"a": torch.zeros(1)}, {"indm": "[]"}), "indm-weights-2"),
    ],
)
def test_files_that_are_no_weights_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"^{path}: .*{re.escape(words)}"):
        indm.load_run(str(path))


def test_numbers_that_are_none_are_refused(run: Run) -> None:
    images = digits(2)
    wrong: Any
    for wrong in (0, -1, 1.5, True, 10**13):
        for name in ("count", "steps", "batch_size"):
            with pytest.raises(ParamsError, match=f"^{name}: found {re.escape(repr(wrong))}"):
                run.sample(**dict[str, Any]({"count": 1, name: wrong}))
        for name in ("time_draws", "ode_steps", "batch_size"):
            with pytest.raises(ParamsError, match=f"^{name}: found {re.escape(repr(wrong))}"):
                run.likelihood(images, **dict[str, Any]({name: wrong}))
    for wrong in (0.0, -1.0, np.nan, np.inf, "a", True):
        with pytest.raises(ParamsError, match=f"^log_det_tolerance: found {re.escape(repr(wrong))}"):
            run.likelihood(images, **dict[str, Any](log_det_tolerance=wrong))


def test_images_of_256_levels_are_taken() -> None:
    """The brightest of them is 255, the largest byte; and what NumPy reads from a file is read-only."""
    run = indm.load_run("fashion-mnist-vp-ddpmpp-nll-s123")
    images = np.frombuffer(bytes(range(256)) * 4, np.uint8)[:784].reshape(1, 1, 28, 28)
    assert images.max() == 255
    latents = run.encode(images)
    assert torch.equal(run.invert(latents), torch.tensor(images))


def test_an_unknown_run_is_named_with_those_that_are_there(folder: Path) -> None:
    brought = ", ".join(path.stem for path in sorted(WEIGHTS.glob("*/*.safetensors")))
    with pytest.raises(ArtifactError) as error:
        indm.load_run("digits-vp-indm")
    assert str(error.value) == f"digits-vp-indm: found no such run; this package includes: {brought}"
    other = folder.with_name("digits-vp-indm-nll-s5")
    with pytest.raises(ArtifactError) as error:
        indm.load_run(other)
    assert str(error.value).startswith(f"{other}: found no such run; in {folder.parent}: {INDM}; this package")


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        (5, ParamsError, "run: found 5, expected the name of a run"),
        (None, ParamsError, "run: found None, "),
        (b"digits", ParamsError, "run: found b'digits', "),
        (["digits"], ParamsError, "run: found ['digits'], "),
        ("", ParamsError, "run: found '', "),
        ("a" * 5000, ArtifactError, "'" + "a" * 59 + "...: found no such run; this package includes: "),
        ("a" * 5000 + "/b", ArtifactError, "...: found no such run; "),
        ("a\0b", ArtifactError, "a\0b: found no such run; "),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_the_name_of_a_run_is_refused_on_one_line(named: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        indm.load_run(named)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "found 'gpu'"),
        ("cuda:1", "cuda:1: torch sees 1 GPU"),
        (5, "found 5, expected cpu"),
        (None, "found None, expected cpu"),
        ("meta", "found 'meta', expected cpu"),
    ],
    ids=type,
)
def test_a_device_that_is_not_there_is_named(device: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DataError, match=f"^device:? {words}"):
        indm.load_run(INDM, device)


ZEROS = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
# Images or latents, and what is wrong with them.
WRONG: list[tuple[str, Any, str]] = [
    ("images", ZEROS[:, 0], "found shape (2, 8, 8); "),
    ("images", ZEROS[:0], "takes (N, 1, 8, 8), N at least 1"),
    ("images", ZEROS + 17, f"from 17 to 17; {INDM} takes uint8 from 0 to 16"),
    *(("images", np.zeros((2, 1, 8, 8), kind), "found torch.") for kind in ("float32", "uint16", "int64", "bool")),
    ("latents", torch.zeros(2, 64), "found shape (2, 64); "),
    ("latents", ZEROS.to(torch.complex64), "found torch.complex64"),
    *(("latents", np.eye(8).reshape(1, 1, 8, 8) * value, "found ") for value in (np.nan, 1e39)),
]


@pytest.mark.parametrize(("what", "values", "words"), WRONG)
def test_images_and_latents_that_the_model_does_not_take_are_refused(
    run: Run, what: str, values: Any, words: str
) -> None:
    for use in (run.encode, run.likelihood) if what == "images" else (run.invert,):
        with pytest.raises(DataError, match=f"^{what}: .*{re.escape(words)}"):
            use(values)


UNUSUAL: dict[str, Callable[[NDArray[Any]], Any]] = {
    "other strides": lambda values: torch.tensor(values).transpose(2, 3).contiguous().transpose(2, 3),
    "read-only": lambda values: np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape),
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "list of tensors": lambda values: list(torch.tensor(values)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_images_and_latents_of_every_layout_are_taken(run: Run, kind: str) -> None:
    images = digits(2)
    latents = run.encode(images)
    assert torch.equal(run.encode(UNUSUAL[kind](images.numpy())), latents)
    assert torch.equal(run.invert(UNUSUAL[kind](latents.numpy())), images)
    assert torch.equal(run.invert(latents.tolist()), images)


MASKED = np.ma.masked_equal(np.zeros((2, 1, 8, 8), np.uint8), 0)


@pytest.mark.parametrize(
    "values",
    [None, "a", [[1], [2, 3]], torch.zeros(2, 1, 8, 8, device="meta"), np.array([None]), MASKED, list(MASKED)],
)
def test_what_has_no_numbers_is_refused(run: Run, values: Any) -> None:
    words = f"found {type(values).__name__}, which torch cannot read as numbers; expected a tensor, an array or lists"
    for what, use in {"images": run.encode, "latents": run.invert}.items():
        with pytest.raises(DataError, match=f"^{what}: {words}"):
            use(values)


@pytest.mark.parametrize("seed", ["a", 1.5, True, torch.tensor(3), -1, 2**32], ids=type)
def test_seeds_that_no_suite_allows_are_refused(run: Run, seed: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: run.sample(1, seed=seed),
        lambda: run.encode(digits(1), seed=seed),
        lambda: run.invert(torch.zeros(1, 1, 8, 8), seed=seed),
        lambda: run.likelihood(digits(1), seed=seed),
    ]
    for call in calls:
        with pytest.raises(ParamsError, match=f"^seed: found {re.escape(repr(seed))}"):
            call()
