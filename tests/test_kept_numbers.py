"""Kept results beside published tables: they give the same bytes, and an edited, exchanged or missing archive is refused."""

import gzip
import hashlib
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.kept.folders import pack, unpack
from indm.errors import ArtifactError
from indm.store.files import file_sha256
from indm.store.sums import check_kept, check_sums, update_sums, write_sums
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
IMAGES, RUN, OTHER = "cifar10-1000", "runs/cifar10-vp-indm-nll-s311", "runs/cifar10-vp-indm-nll-s312"
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
    """Restore into a new folder."""
    suite, root = REPOSITORY / f"params/{target.name}.yaml", target.parent
    arguments = ["restore", "--suite", str(suite), "--out", str(root.with_name("out")), "--from", str(root)]
    return CliRunner().invoke(main, arguments)


def falsify(target: Path, place: str, file: str, stage: str, edit: Edit) -> None:
    """Edit a file of an archive, with its hash in the manifest of its stage."""
    path = target / f"kept/{place}.tar.gz"
    content = unpack(path)
    (name,) = (name for name in content if name.endswith(file) and "/manifest/" not in name and "/prov" not in name)
    old, new = content[name], edit(content[name])
    assert old != new
    (manifest,) = (name for name in content if name.endswith(f"/manifest/{stage}.json"))
    before, after = (hashlib.sha256(text).hexdigest().encode() for text in (old, new))
    assert before in content[manifest]
    path.write_bytes(pack(content | {name: new, manifest: content[manifest].replace(before, after)}))


# Below 100 s together, on a free core; what is published is guarded by nothing else.
@pytest.mark.long
@pytest.mark.parametrize("suite", sorted(path.parent.name for path in PUBLISHED.glob("*/kept")))
def test_the_archives_of_a_suite_give_its_published_numbers_to_the_byte(suite: str, tmp_path: Path) -> None:
    file, out, folder = REPOSITORY / f"params/{suite}.yaml", tmp_path / "results", PUBLISHED / suite
    arguments = ["--suite", str(file), "--out", str(out)]
    done = CliRunner().invoke(main, ["restore", *arguments, "--from", str(PUBLISHED)])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(main, ["table", *arguments]).exit_code == 0
    assert (out / suite / "tables/values.csv").read_bytes() == (folder / "tables/values.csv").read_bytes()
    images = gzip.decompress((folder / "tables/images.csv.gz").read_bytes())
    assert (out / suite / "tables/images.csv").read_bytes() == images


def one_digit(text: bytes) -> bytes:
    """Change the last digit of the text's last number."""
    last = max(text.rfind(digit) for digit in (b"1", b"2", b"3"))
    return text[:last] + b"7" + text[last + 1 :]


def change_a_digit(target: Path) -> None:
    falsify(target, RUN, "fid.json", "fid", one_digit)


def swap_a_run(target: Path) -> None:
    shutil.copy(target / f"kept/{OTHER}.tar.gz", target / f"kept/{RUN}.tar.gz")


def remove_a_seed(target: Path) -> None:
    (target / f"kept/{RUN}.tar.gz").unlink()


@pytest.mark.parametrize("harm", [change_a_digit, swap_a_run, remove_a_seed])
def test_other_numbers_than_the_published_ones_are_refused_in_one_line(
    copy: Callable[..., Path], harm: Callable[[Path], None]
) -> None:
    target = copy(IMAGES, "data/cifar10", RUN, OTHER)
    harm(target)
    done = restore(target)
    assert done.exit_code == 1
    (line,) = (line for line in done.output.splitlines() if f"refused {RUN}: " in line)
    assert line.startswith(f"indm restore: refused {RUN}: {target}/kept/{RUN}.tar.gz: found ")
    assert "as in SHA256SUMS; take it from git, or keep the results (indm keep), again" in line
    out = target.parent.with_name("out") / IMAGES
    assert (out / OTHER).is_dir()
    assert not (out / RUN).exists()


def test_an_archive_of_another_run_does_not_fit_where_there_are_no_checksums(copy: Callable[..., Path]) -> None:
    target = copy(IMAGES, "data/cifar10", RUN, OTHER)
    (target / "SHA256SUMS").unlink()
    swap_a_run(target)
    assert f"refused {RUN}: {target}/kept/{RUN}.tar.gz: found no {RUN}/" in restore(target).output


def test_an_edited_archive_is_seen_by_its_checksum(copy: Callable[..., Path]) -> None:
    """Where no published number says so: the likelihoods of two images are swapped."""
    target = copy(IMAGES, "data/cifar10", RUN)

    def swapped(text: bytes) -> bytes:
        head, first, second, *others = text.splitlines(keepends=True)
        numbers = [line.partition(b",")[2] for line in (second, first)]
        return b"".join([head, b"0," + numbers[0], b"1," + numbers[1], *others])

    falsify(target, RUN, "nll.csv", "nll", swapped)
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
