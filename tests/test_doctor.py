"""``indm doctor``: what is ready, what will be downloaded, what is missing; and both engines, which ask it first."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from click.testing import CliRunner, Result

from indm.bench import doctor
from indm.bench.cli import main
from indm.bench.doctor import DOWNLOAD, MISSING, READY, Work, disk_item, requirements, unfinished, work_of
from indm.bench.pipeline.jobs import Job
from indm.bench.suite.load import load_suite, suite_content
from indm.bench.suite.schema.suite import Suite
from indm.errors import NoGpuError
from indm.metrics import weights
from indm.metrics.weights import CLEAN_FID, TORCH_FIDELITY
from indm.registry import DATASETS
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml
from tests.archives import md5
from tests.checkout import add_dvc_file, copy_checkout, run
from tests.conftest import REPOSITORY

PAPER = REPOSITORY / "params/paper.yaml"
DIGITS = REPOSITORY / "params/digits.yaml"
NOTHING = Work(set(), set(), False)
INDM_FID = "cifar10-vp-indm-fid-s0"
# What is made of a dataset, and of a run: first what measures its images, then all else.
DATA = ["dataset.json", "labels.json", "train.npy", "valid.npy", "test.npy"]
DATA += ["extractor.safetensors", "features.npy", "statistics.safetensors", "reference.json"]
MEASURED = ["fid.json", "sweep.csv"]
OTHERS = ["checkpoint.safetensors", "snapshots.safetensors", "train.json", "train.csv", "curve.csv", "curve_images.csv"]
OTHERS += ["nll.json", "nll.csv", "samples.npy", "samples.json", "samples.png", "neighbours.png", "diffusion.png"]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without archives, weights, gdown, a GPU and internet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(weights, "CLEAN_FID", replace(CLEAN_FID, folder=lambda: tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for variable in ("INDM_DATA", "INDM_INCEPTION", "INDM_INCEPTION_CLEAN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("indm.data.archives.importlib.util.find_spec", lambda _: None)
    internet(monkeypatch, False)


def internet(monkeypatch: pytest.MonkeyPatch, connected: bool) -> None:
    def connect(*_: object) -> socket.socket:
        if not connected:
            raise OSError("Network is unreachable")
        return socket.socket()

    doctor.reachable.cache_clear()
    monkeypatch.setattr(socket, "create_connection", connect)


def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def states(page: str) -> dict[str, str]:
    """The state of each line of a page's table; of two lines with one name, the last."""
    lines = page.partition("\n\n")[2].splitlines()
    return {line.split()[0]: next(state for state in (DOWNLOAD, READY, MISSING) if state in line) for line in lines}


def suite(path: Path, **changes: object) -> Suite:
    return Suite.model_validate(suite_content(load_suite(path)) | changes)


EVERYTHING = Work(frozenset({"cifar10", "celeba64"}), frozenset({"cifar10", "celeba64"}), True)


# The page.


def test_the_page_has_the_verdict_then_the_remedies_then_an_aligned_table() -> None:
    done = call("--suite", str(PAPER))
    assert done.exit_code == 1
    verdict, *lines = done.output.splitlines()
    assert verdict == "suite paper: cannot run yet"
    expected = dict.fromkeys(("cifar10", "celeba64", "inception-v3-compat"), MISSING)
    assert states(done.output) == expected | {"disk": READY, "GPU": MISSING}
    assert any(line.startswith("GPU: torch sees none, and paper takes ") for line in lines)
    table = lines[lines.index("") + 1 :]
    assert len({max(line.find(f" {state} ") for state in (READY, MISSING)) for line in table}) == 1
    for dataset in ("cifar10", "celeba64"):
        for archive in DATASETS[dataset].archives:
            assert any(line.startswith(f"data/{archive.path}: missing") and archive.remedy in line for line in lines)
    for file in (TORCH_FIDELITY, CLEAN_FID):
        assert file.remedy in done.output
    assert "install the package gdown" in done.output


def test_without_a_suite_the_default_suite_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = call("--out", "/tmp/nowhere")
    assert done.exit_code == 0
    assert states(done.output) == {"digits": READY, "disk": READY}
    assert done.output.startswith("suite digits: can run, all its requirements are met\n\n")


# Data and weights.


def test_what_can_be_downloaded_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    internet(monkeypatch, True)
    (item,) = doctor.archives("cifar10", Path("data"))
    (archive,) = DATASETS["cifar10"].archives
    assert (item.state, item.gap) == (DOWNLOAD, "")
    assert item.detail == f"data/{archive.path}, about 170 MB from {archive.url}"
    assert {item.state for item in doctor.archives("celeba64", Path("data"))} == {MISSING}, "no gdown"
    monkeypatch.setattr("indm.data.archives.importlib.util.find_spec", lambda _: True)
    assert {item.state for item in doctor.archives("celeba64", Path("data"))} == {DOWNLOAD}
    with_gpu(monkeypatch)
    assert call("--suite", str(PAPER)).exit_code == 0
    assert requirements(load_suite(PAPER), EVERYTHING) == []


def test_the_host_of_a_download_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: tuple[str, int], timeout: float) -> NoReturn:
        asked.append((address, timeout))
        raise TimeoutError

    monkeypatch.setattr("indm.data.archives.importlib.util.find_spec", lambda _: True)
    monkeypatch.setattr(socket, "create_connection", refuse)
    gaps = requirements(load_suite(PAPER), EVERYTHING)
    hosts = ("www.cs.toronto.edu", "drive.google.com", "github.com", "nvlabs-fi-cdn.nvidia.com")
    assert asked == [((host, 443), 3.0) for host in hosts]
    assert sum("drive.google.com cannot be reached" in gap for gap in gaps) == 2


def test_a_host_is_asked_at_the_port_of_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of Fashion-MNIST lie behind an address of http, where nothing answers https."""

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        if address != ("fashion-mnist.s3-website.eu-central-1.amazonaws.com", 80):
            raise TimeoutError
        return socket.socket()

    unpackaged = tuple(replace(archive, packaged=None) for archive in DATASETS["fashion-mnist"].archives)
    known = replace(DATASETS["fashion-mnist"], archives=unpackaged)
    monkeypatch.setattr("indm.registry.DATASETS", {"fashion-mnist": known})
    monkeypatch.setattr(socket, "create_connection", connect)
    assert {item.state for item in doctor.archives("fashion-mnist", tmp_path)} == {DOWNLOAD}


def test_data_root_is_the_option_then_the_variable_then_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(3_000_000)
    (tmp_path / "option").mkdir()
    (tmp_path / "option/cifar-10-python.tar.gz").write_bytes(content)
    (archive,) = DATASETS["cifar10"].archives
    known = replace(DATASETS["cifar10"], archives=(replace(archive, md5=md5(content)),))
    monkeypatch.setattr("indm.registry.DATASETS", {**DATASETS, "cifar10": known})
    assert "  data/cifar-10-python.tar.gz\n" in call("--suite", str(PAPER)).output
    monkeypatch.setenv("INDM_DATA", "variable")
    assert "  variable/cifar-10-python.tar.gz\n" in call("--suite", str(PAPER)).output
    page = call("--suite", str(PAPER), "--data-root", "option").output
    assert "ready          option/cifar-10-python.tar.gz, 3.0 MB\n" in page
    assert "option/celeba/img_align_celeba.zip: missing" in page


def test_weights_at_the_variable_or_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def states() -> list[str]:
        return [item.state for item in doctor.weights("inception-v3-compat")]

    sha256 = hashlib.sha256(b"x").hexdigest()
    file = replace(TORCH_FIDELITY, folder=lambda: tmp_path / "cache", sha256=sha256)
    monkeypatch.setattr(weights, "TORCH_FIDELITY", file)
    assert states() == [MISSING, MISSING]
    file.cached.parent.mkdir(parents=True)
    file.cached.write_bytes(b"x")
    assert states() == [READY, MISSING]
    monkeypatch.setenv(file.option, "mine.pth")
    gap = doctor.weights("inception-v3-compat")[0].gap
    assert gap == f"inception-v3-compat: found no file at INDM_INCEPTION=mine.pth; {file.remedy}, or unset it"
    Path("mine.pth").write_bytes(b"x")
    assert states() == [READY, MISSING]


def test_what_is_made_needs_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper, layout = load_suite(PAPER), Layout(tmp_path, "paper")
    assert unfinished(paper, layout) == EVERYTHING

    def make(folder: Path, *names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_text("made")

    prepared, referenced = DATA[:5], DATA[5:]
    make(layout.data("cifar10"), *prepared[1:])
    assert "cifar10" in unfinished(paper, layout).prepare
    make(layout.data("cifar10"), prepared[0], *referenced)
    assert unfinished(paper, layout) == Work({"celeba64"}, {"cifar10", "celeba64"}, True)
    done = call("--suite", str(PAPER), "--out", str(tmp_path))
    assert "cifar10" not in states(done.output)
    assert done.exit_code == 1
    make(layout.data("celeba64"), *DATA)
    for name in paper.runs:
        make(layout.run(name), *MEASURED)
    make(layout.suite_folder / "protocol", *(f"{dataset}.csv" for dataset in paper.protocol))
    assert unfinished(paper, layout) == Work(set(), set(), True)
    with_gpu(monkeypatch)
    assert call("--suite", str(PAPER), "--out", str(tmp_path)).exit_code == 0
    for name in paper.runs:
        make(layout.run(name), *OTHERS)
        # A picture that the dataset forbids.
        (layout.run(name) / "neighbours.png").write_bytes(b"")
    assert unfinished(paper, layout) == NOTHING


@pytest.mark.parametrize(
    ("stage", "subject", "measured"),
    [
        ("fid", INDM_FID, {"cifar10"}),
        ("sweep", INDM_FID, {"cifar10"}),
        ("sweep_shard", f"{INDM_FID}-1", set()),
        ("protocol", "cifar10", {"cifar10"}),
        ("tune", INDM_FID, {"cifar10"}),
        ("tune", INDM_FID.replace("fid", "nll"), set()),
        ("curve", INDM_FID, set()),
    ],
)
def test_what_each_kind_of_job_needs(stage: str, subject: str, measured: set[str]) -> None:
    """A job that measures images needs the extractor's weights, whatever else is made already."""
    assert work_of(load_suite(PAPER), [Job(stage, subject)]) == Work(set(), measured, True)
    assert work_of(load_suite(DIGITS), [Job("table", ""), Job("toy2d", "moons-short")]) == NOTHING


def test_a_suite_that_asks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = suite(DIGITS, device="cuda")
    assert requirements(cuda, Work(set(), set(), True)) == [str(NoGpuError())]
    assert requirements(cuda, NOTHING) == requirements(load_suite(DIGITS), Work({"digits"}, {"digits"}, True)) == []
    with_gpu(monkeypatch)
    assert requirements(cuda, Work(set(), set(), True)) == []
    four = suite(DIGITS, device="cuda", processes=4)
    assert requirements(four, Work(set(), set(), True)) == [
        "processes: 4, with one GPU each: torch sees 1; set processes to 1 in the suite"
    ]


def test_a_suite_that_is_to_be_compiled_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = suite(DIGITS, compile=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert requirements(load_suite(DIGITS), Work(set(), set(), True)) == []
    assert requirements(compiled, NOTHING) == []
    assert requirements(compiled, Work(set(), set(), True)) == [
        "compile: true: found no C++ compiler (no-such-compiler); install it, or remove the key from the suite"
    ]


# What is there and no good.


def test_damaged_files_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the line that its reader would say."""
    (archive,) = DATASETS["cifar10"].archives
    (tmp_path / archive.path).touch()
    (item,) = doctor.archives("cifar10", tmp_path)
    assert item.state == MISSING
    assert item.gap.startswith(f"{tmp_path / archive.path}: found MD5 {md5(b'')} (0 bytes), expected {archive.md5}")
    (tmp_path / "weights.pth").write_bytes(b"junk")
    monkeypatch.setenv(TORCH_FIDELITY.option, str(tmp_path / "weights.pth"))
    item = doctor.weights("inception-v3-compat")[0]
    assert item.state == MISSING
    assert item.gap.startswith(f"{tmp_path}/weights.pth: found sha256 ")
    statistics = {"path": "stats.npz", "sha256": hashlib.sha256(b"x").hexdigest()}
    reference = parse_yaml(PAPER.read_text())["reference"]
    reference["cifar10"] = {"extractor": "inception-v3-random", "classifier": None, "published_statistics": statistics}
    work, changed = Work(set(), {"cifar10"}, False), suite(PAPER, reference=reference)
    path = tmp_path / "stats.npz"
    for content, words in ((None, "published statistics missing; copy them there"), (b"junk", "found sha256 ")):
        if content:
            path.write_bytes(content)
        (gap,) = requirements(changed, work, tmp_path)
        assert gap.startswith(f"{path}: {words}")
    path.write_bytes(b"x")
    assert requirements(changed, work, tmp_path) == []


def test_a_file_of_no_bytes_is_not_made(tmp_path: Path) -> None:
    digits, layout = load_suite(DIGITS), Layout(tmp_path, "digits")
    layout.data("digits").mkdir(parents=True)
    for name in DATA:
        (layout.data("digits") / name).write_text("made")
    assert "digits" not in unfinished(digits, layout).prepare
    (layout.data("digits") / "train.npy").write_text("")
    assert "digits" in unfinished(digits, layout).prepare


def test_a_disk_that_is_full_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk_item(tmp_path / "results").state == READY
    usage = SimpleNamespace(free=1_000_000)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage)
        gap = f"{tmp_path}: found 1 MB free on its disk, expected at least 50 MB; free space"
        assert disk_item(tmp_path / "results").gap == gap
        assert gap in requirements(load_suite(DIGITS), NOTHING, out=tmp_path / "results")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert disk_item(tmp_path / "results").gap == (
        f"{tmp_path}: cannot be written to; get write access, or choose another folder (--out)"
    )


def test_a_file_in_the_place_of_the_results_is_missing_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "digits").touch()
    (gap,) = requirements(load_suite(DIGITS), NOTHING, out=tmp_path)
    place = tmp_path / "digits"
    assert gap == f"{place}: cannot be written to: found a file at {place}, expected a folder; move it"


# The engines.


def test_the_default_suite_is_checked_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from indm.bench.doctor import Work, requirements; "
        "from indm.bench.suite.load import load_suite; "
        "gaps = requirements(load_suite(Path('params/digits.yaml')), Work({'digits'}, {'digits'}, True)); "
        "sys.exit(bool(gaps) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which no engine may make anything."""
    checkout = copy_checkout(tmp_path_factory.mktemp("engines"))
    add_dvc_file(checkout, "paper")
    return checkout


SNAKEMAKE = ["snakemake", "--cores", "1", "--config", "suite=paper"]


@pytest.mark.e2e
@pytest.mark.long
def test_both_engines_stop_before_the_first_job(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A gap even where there is internet.
    monkeypatch.setenv("INDM_INCEPTION", "absent.pth")
    commands: dict[str, list[str]] = {
        "doctor": [sys.executable, "-m", "indm", "doctor", "--suite", "params/paper.yaml"],
        "snakemake": [*SNAKEMAKE, "--", "results/table_fid.csv"],
        "dvc": ["dvc", "repro", "workflow/dvc/paper/dvc.yaml"],
    }
    done = {name: run(engines, *command) for name, command in commands.items()}
    # After the verdict.
    gaps = done["doctor"].stdout.partition("\n\n")[0].splitlines()[1:]
    assert any("found no file at INDM_INCEPTION=absent.pth" in gap for gap in gaps)
    # Snakemake may run one target of the suite, or submit it to nodes with GPUs, so that it does not stop for one.
    elsewhere = [gap for gap in gaps if not gap.startswith("GPU: ")]
    for name, result in done.items():
        assert result.returncode != 0, name
        output = result.stdout + result.stderr
        expected = elsewhere if name == "snakemake" else gaps
        assert [line for line in output.splitlines() if line in gaps] == expected, name
        assert "Traceback" not in output
    assert done["dvc"].stdout.count("Running stage") == 1
    assert "rule prepare" not in done["snakemake"].stderr
    # The stamps of code, which DVC's first stage writes; nothing that a stage makes.
    assert {path.name for path in (engines / "results/paper").iterdir()} == {"code"}
    assert not list((engines / ".snakemake").glob("locks/*"))


@pytest.mark.long
@pytest.mark.parametrize("option", ["--dry-run", "--touch"])
def test_what_runs_no_job_needs_nothing(engines: Path, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDM_INCEPTION", "absent.pth")
    done = run(engines, *SNAKEMAKE, option, "--", "results/table_fid.csv")
    assert done.returncode == 0, done.stderr
    assert "absent.pth" not in done.stderr
    shutil.rmtree(engines / "results/paper", ignore_errors=True)


@pytest.mark.long
def test_snakemake_asks_for_what_its_jobs_need_alone(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDM_INCEPTION", "absent.pth")
    target = "results/paper/runs/cifar10-vp-ddpmpp-nll-s0/nll.json"
    monkeypatch.setenv("INDM_DATA", "here")
    (engines / "here").mkdir()
    (engines / "here/cifar-10-python.tar.gz").write_bytes(b"truncated")
    done = run(engines, *SNAKEMAKE, "--", target)
    assert "absent.pth" not in done.stderr
    assert "img_align_celeba" not in done.stderr
    # It went on to the job, which says what is wrong with the file.
    assert "here/cifar-10-python.tar.gz: found MD5" in done.stderr
