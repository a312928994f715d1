"""Results that outlive the machine: what is kept, what comes back, and what is refused, file by file."""

import gzip
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.kept.folders import archive, kept_folders, pack, unpack
from indm.bench.kept.keep import results_alone
from indm.bench.pipeline import code, stamps
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import IMPORTED, MAKERS, Job, job_names, lasting_inputs
from indm.bench.pipeline.restored import is_still_done
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import job_modules, job_stamp
from indm.bench.pipeline.why import why
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.report.page.contents import code_since
from indm.store.files import write_json
from indm.store.provenance import CHANGED, RESTORED_FOR
from tests.archives import memory_below
from tests.conftest import REPOSITORY
from tests.finished import do

SMOKE = load_suite(REPOSITORY / "params/smoke.yaml")
FOLDERS = {folder.place: folder for folder in kept_folders(SMOKE)}
RUN, OTHER = list(SMOKE.runs)[:2]
PLACE = f"runs/{RUN}"
RECORD = f"{PLACE}/provenance/nll.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite whose jobs have all ended, but for those that collect."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(REPOSITORY / "params", root / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for folder in FOLDERS.values():
            for job in folder.jobs:
                do(SMOKE, root, job)
    return root


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def kept(made: Path) -> Path:
    """What is kept of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert call("keep").exit_code == 0
        return Path(shutil.move("docs", made.with_name("kept")))


@pytest.fixture
def archived(kept: Path, checkout: Path) -> Path:
    """A checkout whose results are kept."""
    shutil.copytree(kept, checkout / "docs")
    return checkout


@pytest.fixture
def cloned(archived: Path) -> Path:
    """A checkout with what was kept alone."""
    shutil.rmtree("results")
    return archived


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--suite", "params/smoke.yaml"])


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def packed(place: str = PLACE) -> Path:
    return archive(Path("docs/results/smoke/kept"), FOLDERS[place])


def line(done: Result, word: str) -> str:
    """Return the one line of an outcome."""
    (found,) = [line for line in done.output.splitlines() if f": {word} " in line]
    return found


def test_what_stages_that_collect_read_is_kept_and_nothing_large() -> None:
    kept = {name for folder in FOLDERS.values() for name in folder.files}
    collected = {
        path.removeprefix("results/smoke/")
        for name, stage in STAGES.items()
        if not stage.subject
        for pattern in stage.inputs
        if pattern in MAKERS and STAGES[MAKERS[pattern]].subject
        for subject in STAGES[MAKERS[pattern]].subjects(SMOKE)
        for path in [pattern.format(**job_names(SMOKE, Job(MAKERS[pattern], subject)))]
    }
    # Beside it, the classifier of the image metrics, by which later runs are measured.
    own = {f"data/digits/{name}" for name in ("extractor.safetensors", "features.npy", "statistics.safetensors")}
    manifests = {name for name in kept if "/manifest/" in name}
    assert kept == collected | own | manifests
    assert len(manifests) == sum(len(folder.jobs) for folder in FOLDERS.values())
    large = ("checkpoint.safetensors", "snapshots.safetensors", "samples.npy", "train.npy", "test.npy")
    assert not [name for name in kept if name.endswith(large)]
    # Inception can be had anywhere: its features of 50,000 images are not for git.
    paper = load_suite(REPOSITORY / "params/paper.yaml")
    assert not [name for folder in kept_folders(paper) for name in folder.files if name.endswith("features.npy")]


def test_a_clone_gets_back_what_was_kept_to_the_byte(checkout: Path) -> None:
    before = files(checkout / "results/smoke")
    assert call("keep").exit_code == 0
    shutil.rmtree(checkout / "results")
    done = call("restore")
    assert (done.exit_code, done.output) == (
        0,
        f"indm restore: {len(FOLDERS)} written, 0 there already, 0 skipped, 0 refused\n",
    )
    after = files(checkout / "results/smoke")
    # Records say for which code they came back.
    records = {name for name in after if "/provenance/" in name}
    assert {name: before[name] for name in after.keys() - records} == results_alone(after)
    for name in records:
        record = json.loads(before[name])
        assert json.loads(after[name]) == record | {RESTORED_FOR: job_stamp(SMOKE, record["stage"], record["subject"])}
    assert set(after) >= {name for folder in FOLDERS.values() for name in folder.files}
    assert {name.split("/")[-1] for name in set(after) if "provenance" in name} == {
        f"{name}.json" for name, stage in STAGES.items() if stage.subject not in ("", "shard")
    }
    # Stages read it.
    for stage in ("table", "compute"):
        InputCheck(SMOKE, Path("results"), Path("reports")).check(Job(stage, ""))
    # Nothing is older than what it was made from.
    assert len({path.stat().st_mtime_ns for path in (checkout / "results").rglob("*") if path.is_file()}) == 1
    # What came back can be kept as well as what was made.
    assert f"0 written, {len(FOLDERS)} there already" in call("keep").output
    assert f"0 written, {len(FOLDERS)} there already" in call("restore").output


def test_archives_are_read_by_tar_and_have_neither_times_nor_users(archived: Path) -> None:
    with tarfile.open(packed()) as found:
        members = found.getmembers()
    assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
    assert [member.name for member in members] == sorted(member.name for member in members)
    content = packed().read_bytes()
    assert content[4:8] == b"\0\0\0\0"
    assert pack(unpack(packed())) == content
    assert gzip.decompress(content) == gzip.decompress(pack(dict(reversed(unpack(packed()).items()))))


def test_a_folder_with_a_job_that_has_not_ended_is_not_kept(checkout: Path) -> None:
    (checkout / f"results/smoke/{PLACE}/manifest/nll.json").unlink()
    done = call("keep")
    assert done.exit_code == 0
    assert f"skipped {PLACE}: results/smoke/{PLACE}/manifest/nll.json: missing" in done.output
    assert not packed().exists()
    assert packed(f"runs/{OTHER}").exists()


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("name", ["nll.json", "checkpoint.safetensors", "samples.npy"])
def test_a_damaged_file_is_not_kept(checkout: Path, name: str) -> None:
    flip(checkout / f"results/smoke/{PLACE}/{name}")
    assert f"results/smoke/{PLACE}/{name}: found SHA-256 " in line(call("keep"), "skipped")
    assert not packed().exists()


def test_an_imported_checkpoint_is_known_by_the_code_that_imported_it(checkout: Path) -> None:
    folder = checkout / f"results/smoke/{PLACE}"
    checks, job = InputCheck(SMOKE, Path("results"), Path("reports")), Job("train", RUN)
    made = json.loads(checks.manifest(job).read_text())
    inputs = {path: made["inputs"][path] for path in lasting_inputs(SMOKE, job, IMPORTED)}
    code = (SMOKE, "import_checkpoint", RUN)
    of_import = {"inputs": inputs, "stamp": job_stamp(*code), "modules": job_modules(*code)}
    write_json(checks.manifest(job), made | of_import)
    record = json.loads((folder / "provenance/train.json").read_text()) | {"stage": "import_checkpoint"}
    (folder / "provenance/train.json").unlink()
    write_json(folder / "provenance/import_checkpoint.json", record)
    call("keep")
    assert f"{PLACE}/provenance/import_checkpoint.json" in unpack(packed())
    assert call("restore").exit_code == 0


def test_of_a_training_and_an_import_the_restored_one_has_the_only_record(archived: Path) -> None:
    """The page counts jobs by their records."""
    folder = archived / f"results/smoke/{PLACE}"
    record = json.loads((folder / "provenance/train.json").read_text()) | {"stage": "import_checkpoint"}
    (folder / "provenance/train.json").unlink()
    write_json(folder / "provenance/import_checkpoint.json", record)
    (folder / "nll.json").unlink()
    assert call("restore").exit_code == 0
    assert {path.stem for path in (folder / "provenance").iterdir()} & {"train", "import_checkpoint"} == {"train"}


def test_a_folder_that_cannot_be_written_is_refused_and_the_others_come_back(cloned: Path) -> None:
    place = Path(f"results/smoke/{PLACE}/nll.json")
    place.mkdir(parents=True)
    done = call("restore")
    assert done.exit_code == 1
    assert f"found a folder at {place}, expected a file; move it" in line(done, "refused")
    assert [*Path(f"results/smoke/{PLACE}").rglob("*")] == [place.resolve().relative_to(cloned)]
    assert f"{len(FOLDERS) - 1} written, 0 there already, 0 skipped, 1 refused" in done.output


def test_keeping_where_nothing_was_run_is_an_error(checkout: Path) -> None:
    shutil.rmtree(checkout / "results")
    done = call("keep")
    assert done.exit_code == 1
    assert done.output.endswith(f"0 written, 0 there already, {len(FOLDERS)} skipped, 0 refused\n")


def test_other_results_are_refused_until_they_are_asked_for(archived: Path) -> None:
    kept = packed().read_bytes()
    do(SMOKE, archived, Job("nll", RUN), "another content of")
    done = call("keep")
    assert done.exit_code == 1
    assert f"{packed()}: found other results than in the results folder" in line(done, "refused")
    assert packed().read_bytes() == kept
    assert call("keep", "--replace").exit_code == 0
    assert packed().read_bytes() != kept


def test_a_job_that_was_done_again_with_the_same_results_is_left_alone(archived: Path) -> None:
    kept = packed().read_bytes()
    path = archived / f"results/smoke/{PLACE}/provenance/nll.json"
    path.write_text(path.read_text().replace("1.5", "2.5"))
    assert f"0 written, {len(FOLDERS)} there already" in call("keep").output
    assert packed().read_bytes() == kept


Content = dict[str, bytes]
TRAINED, EVALUATED = (f"{PLACE}/manifest/{stage}.json" for stage in ("train", "nll"))


def without(content: Content, name: str) -> Content:
    return {path: text for path, text in content.items() if path != name}


def with_modules(content: Content, modules: dict[str, Any]) -> Content:
    made = json.loads(content[EVALUATED]) | {"modules": modules, "stamp": "0" * 64}
    return content | {EVALUATED: json.dumps(made).encode()}


def nested(content: Content, name: str) -> Content:
    """Nest lists in a JSON file as deep as its parser does not follow."""
    return content | {name: content[name].replace(b"{", b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b", ", 1)}


FAULTS: list[tuple[Callable[[Content], Content], str]] = [
    (
        lambda content: content | {TRAINED: content[TRAINED].replace(b'"steps": 20', b'"steps": 21')},
        f"{TRAINED}: made with other parameters than the suite has now: train.steps: found 21, expected 20",
    ),
    (lambda content: content | {f"{PLACE}/nll.json": b"another"}, f"{PLACE}/nll.json: found SHA-256 "),
    (lambda content: with_modules(content, {}), f"{EVALUATED}: found no hashes of modules, "),
    (lambda content: with_modules(content, {"indm.process": 5}), f"{EVALUATED}: found no valid modules.indm.process, "),
    (lambda content: nested(content, EVALUATED), f"{EVALUATED}: not JSON ("),
    (lambda content: without(content, RECORD), f"{RECORD}: missing"),
    (lambda content: without(content, f"{PLACE}/nll.json"), f"found no {PLACE}/nll.json; keep it again"),
    (
        lambda content: content | {f"{PLACE}/checkpoint.safetensors": b"weights"},
        f"found {PLACE}/checkpoint.safetensors, which is not kept; ",
    ),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_what_is_damaged_or_not_of_this_suite_does_not_come_back(
    cloned: Path, fault: Callable[[Content], Content], message: str
) -> None:
    packed().write_bytes(pack(fault(unpack(packed()))))
    done = call("restore")
    assert done.exit_code == 1
    assert f"refused {PLACE}: {packed()}: {message}" in line(done, "refused")
    assert f"{len(FOLDERS) - 1} written, 0 there already, 0 skipped, 1 refused" in done.output
    assert str(Path("/tmp")) not in done.output.replace(str(cloned), "")
    assert not (cloned / f"results/smoke/{PLACE}").exists()


def test_an_edit_of_the_suite_is_seen(cloned: Path) -> None:
    """Runs are refused with the values; a dataset does not depend on the rate at which models learn."""
    file = cloned / "params/smoke.yaml"
    file.write_text(file.read_text().replace("  lr: 4.0e-3", "  lr: 1.5e-3"))
    done = call("restore")
    assert done.exit_code == 1
    assert done.output.count("train.lr: found 0.004, expected 0.0015") >= len(SMOKE.runs)
    assert (cloned / "results/smoke/data/digits/dataset.json").is_file()
    assert not (cloned / "results/smoke/runs").exists()


def test_other_results_that_are_here_stay_and_runs_measured_with_others_too_do_not_come_back(archived: Path) -> None:
    """A classifier trained on another machine: no run that was measured with the kept one can stand beside it."""
    shutil.rmtree(archived / "results/smoke/runs")
    do(SMOKE, archived, Job("reference", "digits"), "another content of")
    done = call("restore")
    assert done.exit_code == 1
    assert "data/digits: found other results than the kept ones; overwrite with --replace" in done.output
    assert f"refused {PLACE}: {packed()}: {PLACE}/manifest/fid.json: made from another " in done.output
    assert not (archived / "results/smoke/runs").exists()
    assert call("restore", "--replace").exit_code == 0
    InputCheck(SMOKE, Path("results"), Path("reports")).check(Job("table", ""))


def test_missing_files_of_a_folder_are_filled_in(archived: Path) -> None:
    (archived / f"results/smoke/{PLACE}/nll.json").unlink()
    assert "1 written" in call("restore").output
    assert (archived / f"results/smoke/{PLACE}/nll.json").is_file()


def test_what_was_not_kept_is_listed(archived: Path) -> None:
    packed().unlink()
    shutil.rmtree(archived / "results")
    assert line(call("restore"), "skipped") == f"indm restore: skipped {PLACE}: not kept"


def test_where_nothing_is_kept_is_one_line(checkout: Path) -> None:
    assert call("restore").output == (
        "indm restore: docs/results/smoke/kept: found no archive of suite smoke, expected some; python -m indm keep makes them\n"
    )


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        make_folder,
    ],
    ids=["empty", "checksum", "folder"],
)
def test_archives_that_are_none_are_refused_and_the_others_restored(
    archived: Path, spoil: Callable[[Path], object]
) -> None:
    shutil.move("results", "before")
    spoil(packed())
    done = call("restore")
    assert done.exit_code == 1
    words = f"refused {PLACE}: {packed()}: not a .tar.gz archive ("
    assert line(done, "refused").startswith(f"indm restore: {words}")
    assert f"{len(FOLDERS) - 1} written, 0 there already, 0 skipped, 1 refused" in done.output
    shutil.rmtree("results")
    shutil.move("before", "results")
    done = call("keep")
    assert done.exit_code == 1
    assert line(done, "refused").startswith(f"indm keep: {words}")
    if not packed().is_dir():
        assert call("keep", "--replace").exit_code == 0
        assert call("restore").exit_code == 0


@pytest.mark.parametrize(
    "header", [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.size": "1000000000000", "GNU.sparse.map": "0,1"}]
)
def test_an_archive_with_a_broken_header_is_refused(tmp_path: Path, header: dict[str, str]) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers=header) as made:
        made.addfile(tarfile.TarInfo("data/digits/dataset.json"))
    with pytest.raises(ArtifactError, match=r"a\.tar\.gz: "):
        unpack(path)


def test_an_archive_that_expands_a_thousandfold_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(300 << 20)))
    with memory_below(200 << 20), pytest.raises(ArtifactError, match=r"a\.tar\.gz.* more than 7"):
        unpack(path)


def test_a_damaged_byte_is_seen(tmp_path: Path) -> None:
    """Provenance has no SHA-256 in a manifest: the archive's own checksum is what speaks for it."""
    path = tmp_path / "a.tar.gz"
    content = pack({"a": bytes(range(256)) * 4, "b": b"text"})
    for place in range(10, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 85]) + content[place + 1 :])
        with pytest.raises(ArtifactError):
            unpack(path)


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/indm-elsewhere", PLACE, f"runs/{OTHER}/nll.json"])
def test_an_archive_cannot_write_elsewhere(cloned: Path, name: str) -> None:
    before = files(cloned)
    packed().write_bytes(pack(unpack(packed()) | {name: b"text"}))
    done = call("restore")
    assert done.exit_code == 1
    assert f"refused {PLACE}: {packed()}: found {name}, which is not kept; " in line(done, "refused")
    written = {path for path in set(files(cloned)) - set(before) if path.startswith(f"results/smoke/{PLACE}/")}
    assert not written
    assert not Path("/tmp/indm-elsewhere").exists()
    assert (cloned / f"results/smoke/runs/{OTHER}/nll.json").read_bytes() != b"text"


def test_an_archive_has_no_links(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(path, "w:gz") as made:
            link = tarfile.TarInfo("data/digits/dataset.json")
            link.type, link.linkname = kind, os.devnull
            made.addfile(link)
        with pytest.raises(ArtifactError, match="is not a file"):
            unpack(path)


def test_runs_are_not_restored_beside_a_dataset_that_was_refused(archived: Path) -> None:
    """The dataset that is here is another one, and the one that the runs were trained on is of other code."""
    shutil.rmtree(archived / "results/smoke/runs")
    content = unpack(packed("data/digits"))
    packed("data/digits").write_bytes(pack({name: text for name, text in content.items() if "provenance" not in name}))
    for job in FOLDERS["data/digits"].jobs:
        do(SMOKE, archived, job, "another content of")
    done = call("restore")
    assert f"refused {PLACE}: " in done.output
    assert not (archived / "results/smoke/runs").exists()


@pytest.fixture
def edit(cloned: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Replace text in a copy of the package, by whose present state results were kept."""
    shutil.copytree(REPOSITORY / "indm", cloned / "indm", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", cloned)
    code.sources.cache_clear()

    def replace(path: str, old: str, new: str) -> None:
        text = (cloned / path).read_text()
        assert old in text
        (cloned / path).write_text(text.replace(old, new))
        code.sources.cache_clear()

    return replace


@pytest.fixture(autouse=True)
def _forget_sources() -> Iterator[None]:
    yield
    code.sources.cache_clear()


LIKELIHOOD = "indm/diffusion/likelihood.py"


def again(stage: str = "nll") -> dict[Job, list[str]]:
    """Ask why the jobs of a stage would be done again."""
    return why(InputCheck(SMOKE, Path("results"), Path("reports")), stage).again


def provenance(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"results/smoke/{PLACE}/provenance/{stage}.json").read_text())
    return found


def test_results_of_other_code_come_back_state_what_has_changed_and_are_void_after_another_edit(
    edit: Callable[[str, str, str], None],
) -> None:
    edit(LIKELIHOOD, "def ode_nll(", "def ode_nll(*, new=1,")
    done = call("restore")
    assert done.exit_code == 0, done.output
    folders, commit = len(SMOKE.runs) + len(SMOKE.toy2d.datasets), provenance("nll")["commit"][:12]
    assert done.output.splitlines() == [
        f"indm restore: {PLACE} and {folders - 1} more: computed by commit {commit}; since then changed: {LIKELIHOOD}",
        f"indm restore: {len(FOLDERS)} written, 0 there already, 0 skipped, 0 refused",
    ]
    (stated,) = provenance("nll")[CHANGED]
    assert stated.startswith("indm.diffusion.likelihood ")
    assert provenance("nll")[RESTORED_FOR] == job_stamp(SMOKE, "nll", RUN)
    assert CHANGED not in provenance("fid")
    assert code_since([provenance("nll")]) == [
        f"computed by commit {commit}; since then indm.diffusion.likelihood changed"
    ]
    assert again() == {}
    assert f"0 written, {len(FOLDERS)} there already" in call("keep").output
    assert CHANGED not in json.loads(unpack(packed())[f"{PLACE}/provenance/nll.json"])
    # An edit afterwards voids what imports it, and is the only cause.
    edit("indm/metrics/kid.py", "def kid(", "ADDED = 1\n\n\ndef kid(")
    assert again() == {}
    assert again("fid")[Job("fid", RUN)] == ["indm/metrics/kid.py changed"]
    edit(LIKELIHOOD, "new=1", "new=2")
    assert again()[Job("nll", RUN)] == [f"{LIKELIHOOD} changed"]
    # Of the files that Snakemake did not make, it hears of the same.
    void = {
        job for folder in FOLDERS.values() for job in folder.jobs if is_still_done(SMOKE, Path("results"), job) is False
    }
    assert {job.stage for job in void} >= {"fid", "nll"}
    assert not {job.stage for job in void} & {"prepare", "train", "sample"}
    # Restored again, the results are of the present code.
    assert call("restore").exit_code == 0
    assert again() == again("fid") == {}
    assert all(is_still_done(SMOKE, Path("results"), job) for job in void)


def test_restored_results_are_void_after_an_edit_of_their_keys(cloned: Path) -> None:
    assert call("restore").exit_code == 0
    jobs = [job for folder in FOLDERS.values() for job in folder.jobs]
    assert all(is_still_done(SMOKE, Path("results"), job) for job in jobs)
    edited = SMOKE.model_copy(update={"fid": SMOKE.fid.model_copy(update={"bootstrap": SMOKE.fid.bootstrap + 1})})
    void = {job.stage for job in jobs if not is_still_done(edited, Path("results"), job)}
    assert void == {"reference", "fid", "sweep", "protocol", "tune"}
    shutil.rmtree(f"results/smoke/{PLACE}/provenance")
    assert is_still_done(SMOKE, Path("results"), Job("nll", RUN)) is None


def test_what_a_stamp_covers_besides_modules_is_stated(cloned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "FORMATS", ["indm-another-1"])
    done = call("restore")
    assert done.exit_code == 0
    assert "since then changed: derived values, formats or imports" in done.output
    assert again() == {}


def test_what_a_killed_process_was_writing_is_swept(checkout: Path) -> None:
    """Where the place is of a file that is there, too."""
    left = packed().with_name(f".{packed().name}.1.tmp")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    call("keep")
    rests = [Path(f"results/smoke/{PLACE}/.{name}.1.tmp") for name in ("nll.json", "checkpoint.safetensors")]
    for rest in rests:
        rest.write_bytes(b"half")
    Path(f"results/smoke/{PLACE}/nll.json").unlink()
    assert call("restore").exit_code == 0
    # A training may be writing its checkpoint.
    assert (left.exists(), [rest.exists() for rest in rests]) == (False, [False, True])
