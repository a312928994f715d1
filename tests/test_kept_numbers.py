"""Kept results beside published tables: archives that were edited together with their own hashes are refused."""

import csv
import hashlib
import importlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.kept.folders import archive, kept_folders, pack, unpack
from indm.bench.kept.numbers import PublishedNumbers
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.store.files import file_sha256
from indm.store.sums import check_kept, check_sums, update_sums, write_sums
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
IMAGES, DENSITIES, SWEPT = "cifar10-1000", "rivals", "digits-ve"
RUN = "runs/cifar10-vp-indm-nll-s311"
OF_SWEEP = "runs/digits-ve-ddpmpp-fid-s231"
# Its images come in clusters, so that the published errors of its likelihoods are over people.
CLUSTERED, OF_PEOPLE = "celeba64-6000", "runs/celeba64-6000-vp-indm-nll-s372"
DATA = {IMAGES: "data/cifar10", CLUSTERED: "data/celeba64-6000"}
Edit = Callable[[bytes], bytes]


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Copy the tables, checksums and some archives of a published suite."""

    def copied(suite: str, *places: str) -> Path:
        target = tmp_path / "docs/results" / suite
        for name in ("tables", "provenance.json", "SHA256SUMS", *(f"kept/{place}.tar.gz" for place in places)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if name == "tables" else shutil.copy)(PUBLISHED / suite / name, target / name)
        update_sums(target, [])
        return target

    return copied


def restore(target: Path) -> Result:
    """Restore into a new folder, whatever has changed in the code since."""
    suite, root = REPOSITORY / f"params/{target.name}.yaml", target.parent
    arguments = ["restore", "--suite", str(suite), "--out", str(root.with_name("out")), "--from", str(root)]
    return CliRunner().invoke(main, [*arguments, "--accept", "for this test"])


def falsify(target: Path, place: str, file: str, stage: str, edit: Edit) -> None:
    """Edit a file of an archive, with its hash in the manifest of its stage and the checksum of the archive."""
    path = target / f"kept/{place}.tar.gz"
    content = unpack(path)
    (name,) = (name for name in content if name.endswith(file) and "/manifest/" not in name and "/prov" not in name)
    old, new = content[name], edit(content[name])
    assert old != new
    (manifest,) = (name for name in content if name.endswith(f"/manifest/{stage}.json"))
    before, after = (hashlib.sha256(text).hexdigest().encode() for text in (old, new))
    assert before in content[manifest]
    content |= {name: new, manifest: content[manifest].replace(before, after)}
    path.write_bytes(pack(content))
    update_sums(target, [f"kept/{place}.tar.gz"])


def halved(key: str) -> Edit:
    """Halve a number of a JSON file."""

    def edit(text: bytes) -> bytes:
        content = json.loads(text)
        return json.dumps(content | {key: content[key] / 2}, indent=2).encode()

    return edit


def with_cell(row: int, column: str, value: str) -> Edit:
    """Write a cell of a CSV file."""

    def edit(text: bytes) -> bytes:
        rows = list(csv.DictReader(io.StringIO(text.decode())))
        rows[row][column] = value
        return written(rows)

    return edit


def written(rows: list[dict[str, str]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def another_seed(text: bytes) -> bytes:
    """Add a training that the tables do not have."""
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    return written([*rows, rows[0] | {"seed": "999"}])


FALSE: dict[str, tuple[str, str, str, str, Edit, str]] = {
    "fid": (IMAGES, RUN, "fid.json", "fid", halved("fid"), "found fid "),
    "its error": (IMAGES, RUN, "fid.json", "fid", halved("fid_se"), "found fid_se "),
    "nelbo": (IMAGES, RUN, "nll.json", "nll", halved("nelbo"), "found nelbo "),
    "nelbo of people": (CLUSTERED, OF_PEOPLE, "nll.json", "nll", halved("nelbo"), "found nelbo "),
    "cost": (IMAGES, RUN, "train.json", "train", halved("train_flops_per_step"), "found train_flops_per_step "),
    "flow": (IMAGES, RUN, "flow.json", "flow", halved("midpoint"), "found midpoint "),
    "snapshot": (
        IMAGES,
        RUN,
        "curve.csv",
        "curve",
        with_cell(0, "nelbo", "4.5"),
        "row 1000: found nelbo 4.5, expected ",
    ),
    "snapshot's number gone": (
        IMAGES,
        RUN,
        "curve.csv",
        "curve",
        with_cell(0, "nll", ""),
        "row 1000: found nll without a number, expected ",
    ),
    "sampler": (
        SWEPT,
        OF_SWEEP,
        "sweep.csv",
        "sweep",
        with_cell(0, "fid", "0.5"),
        "row euler_maruyama, 8: found fid 0.5, expected ",
    ),
    "density": (
        DENSITIES,
        "toy2d/moons-long",
        "moons-long.csv",
        "toy2d",
        with_cell(0, "gap", "0.5"),
        "row indm, 401: found gap 0.5, expected -0.019005 as in ",
    ),
    "samples of a density": (
        DENSITIES,
        "toy2d/moons-long",
        "moons-long.csv",
        "toy2d",
        with_cell(0, "energy_16", "0.5"),
        "row indm, 401: found energy_16 0.5, expected 0.000415581 as in ",
    ),
    "seed": (
        DENSITIES,
        "toy2d/moons-long",
        "moons-long.csv",
        "toy2d",
        another_seed,
        "row indm, 999: found ",
    ),
}


@pytest.mark.parametrize("kind", FALSE)
def test_an_edited_number_does_not_come_back_beside_the_published_one(copy: Callable[..., Path], kind: str) -> None:
    suite, place, file, stage, edit, words = FALSE[kind]
    dataset = DATA.get(suite, "data/digits")
    target = copy(suite, dataset, place)
    falsify(target, place, file, stage, edit)
    done = restore(target)
    assert done.exit_code == 1
    (line,) = (line for line in done.output.splitlines() if "refused " in line and ":" in line.partition("refused ")[2])
    assert line.startswith(f"indm restore: refused {place}: {target}/kept/{place}.tar.gz: ")
    assert f"{file}: {words}" in line
    assert f"as in {target}/tables/values.csv; " in line
    assert not (target.parent.with_name("out") / suite / place).exists()
    assert (target.parent.with_name("out") / suite / dataset).exists()


def test_a_halved_fid_is_named_with_both_numbers(copy: Callable[..., Path]) -> None:
    target = copy(IMAGES, "data/cifar10", RUN)
    assert restore(target).exit_code == 0
    shutil.rmtree(target.parent.with_name("out"))
    fid = json.loads(unpack(target / f"kept/{RUN}.tar.gz")[f"{RUN}/fid.json"])["fid"]
    falsify(target, RUN, "fid.json", "fid", halved("fid"))
    assert f"{RUN}/fid.json: found fid {fid / 2:.6g}, expected {fid:.6g} as in " in restore(target).output


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in PUBLISHED.glob("*/kept")))
def test_all_kept_results_give_the_published_numbers(suite: str, tmp_path: Path) -> None:
    numbers, compared = PublishedNumbers(PUBLISHED / suite), 0
    # Every fifth folder, because all of them take ten times as long.
    for folder in kept_folders(load_suite(REPOSITORY / f"params/{suite}.yaml"))[1::5]:
        path = archive(PUBLISHED / suite / "kept", folder)
        files = {name: content for name, content in unpack(path).items() if "/manifest/" not in name}
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        numbers.refuse_others(tmp_path, files)
        compared += len(files)
    assert compared


def test_an_edited_archive_is_seen_by_its_checksum(copy: Callable[..., Path]) -> None:
    """Where no published number says so: the likelihoods of two images are swapped."""
    target = copy(IMAGES, "data/cifar10", RUN)

    def swapped(text: bytes) -> bytes:
        head, first, second, *others = text.splitlines(keepends=True)
        numbers = [line.partition(b",")[2] for line in (second, first)]
        return b"".join([head, b"0," + numbers[0], b"1," + numbers[1], *others])

    before = (target / "SHA256SUMS").read_bytes()
    falsify(target, RUN, "nll.csv", "nll", swapped)
    (target / "SHA256SUMS").write_bytes(before)
    done = restore(target)
    assert done.exit_code == 1
    assert f"kept/{RUN}.tar.gz: found SHA-256 {file_sha256(target / f'kept/{RUN}.tar.gz')}, expected " in done.output


def test_published_pages_are_not_made_beside_an_edited_archive(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "workflow"))
    target = copy(IMAGES, RUN)
    for page in ("README.md", "docs/library.md", "docs/results/README.md"):
        shutil.copy(REPOSITORY / page, target.parents[2] / page)
    path = target / f"kept/{RUN}.tar.gz"
    path.write_bytes(pack(unpack(path) | {f"{RUN}/fid.json": b"{}"}))
    with pytest.raises(ArtifactError, match=f"^{path}: found SHA-256 .*keep"):
        importlib.import_module("generate").readme_text(target.parents[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder with a table and two kept files."""
    for name in ("tables/values.csv", "provenance.json", "kept/runs/a.tar.gz", "kept/weights/a.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    write_sums(tmp_path)
    return tmp_path


def test_checksums_cover_kept_files(folder: Path) -> None:
    check_sums(folder)
    (folder / "kept/runs/.b.tar.gz.7.tmp").write_text("half of a file that keep is writing")
    check_sums(folder)
    (folder / "kept/runs/b.tar.gz").write_text("added")
    with pytest.raises(ArtifactError, match=r"kept/runs/b\.tar\.gz: found SHA-256 .*, expected no file"):
        check_sums(folder)
    (folder / "kept/runs/b.tar.gz").unlink()
    (folder / "kept/weights/a.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"kept/weights/a\.safetensors: found SHA-256 no file"):
        check_sums(folder)
    # An installation has the tables alone.
    shutil.rmtree(folder / "kept")
    check_sums(folder)
    (folder / "tables/values.csv").write_text("edited")
    with pytest.raises(ArtifactError, match=r"tables/values\.csv: found SHA-256 "):
        check_sums(folder)


def test_a_table_that_was_added_is_refused(folder: Path) -> None:
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables/more.csv").write_text("a\n1\n")
    with pytest.raises(ArtifactError, match=r"more\.csv"):
        check_sums(folder)


def test_keeping_updates_the_checksums_of_kept_files_alone(folder: Path) -> None:
    kept = folder / "kept/runs/a.tar.gz"
    kept.write_text("of a later run")
    with pytest.raises(ArtifactError, match=r"kept/runs/a\.tar\.gz: found "):
        check_kept(folder, kept)
    (folder / "kept/weights/a.safetensors").unlink()
    update_sums(folder, ["kept/runs/a.tar.gz"])
    check_kept(folder, kept)
    check_sums(folder)
    (folder / "tables/values.csv").write_text("edited")
    update_sums(folder, ["kept/runs/a.tar.gz"])
    with pytest.raises(ArtifactError, match=r"tables/values\.csv: found "):
        check_sums(folder)


def test_folders_that_were_not_published_or_by_an_earlier_version_have_no_checksums_of_kept_files(folder: Path) -> None:
    kept = folder / "kept/runs/a.tar.gz"
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if "  kept/" not in line))
    kept.write_text("edited")
    check_kept(folder, kept)
    (folder / "SHA256SUMS").unlink()
    check_kept(folder, kept)
    update_sums(folder, ["kept/runs/a.tar.gz"])
    assert not (folder / "SHA256SUMS").exists()
