"""Give kept results the modules of their code, and accept the changes since.

Until commit 00be4c4, the manifest of a job listed the definitions of its code. Its code restores the archives again, which shows
that the definitions are still those behind the results, or that their changes were accepted. Then each manifest gets the modules of
that commit, or, if changes were accepted, of the commit that did the job. In the archives, only manifests change, except that a
picture which was not drawn yet becomes an empty file, and that earlier acceptances are removed from records: they are written when
an archive is restored.

All changes since become one entry in accepted.yaml, with the earlier reasons and WHY, which names the evidence. A second
execution, after more changes of the code, only writes this entry again.

    python workflow/migrate.py --why WHY [--at COMMIT] [SUITE ...]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from shutil import copy
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The package of this checkout, even if another one is installed.
sys.path.insert(0, str(ROOT))

from indm.kept.accepted import FILE  # noqa: E402
from indm.kept.folders import Folder, archive, kept_folders, pack, unpack  # noqa: E402
from indm.kept.keep import restore  # noqa: E402
from indm.pipeline.code import sources_of  # noqa: E402
from indm.pipeline.input_check import InputCheck  # noqa: E402
from indm.pipeline.stamps import job_modules, job_stamp  # noqa: E402
from indm.store.files import atomic_write  # noqa: E402
from indm.store.manifest import FORMAT, Manifest  # noqa: E402
from indm.suite.load import load_suite  # noqa: E402
from indm.suite.schema.suite import Suite  # noqa: E402
from indm.suite.strict_yaml import parse_yaml  # noqa: E402

KEPT = ROOT / "docs/results"
# The last commit whose manifests list definitions.
AT = "00be4c4"


def is_old(path: Path) -> bool:
    """Return whether the manifests in an archive do not list modules."""
    return any("modules" not in json.loads(text) for name, text in unpack(path).items() if "/manifest/" in name)


def restored_by(commit: str, suite: str, old: Iterable[Path], folder: Path) -> Path:
    """Restore archives by the code of a commit, which checks them, and return the folder of the results."""
    code = folder / "code"
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", code, commit], check=True)
    try:
        for path in old:
            place = code / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(path, place)
        command = [
            sys.executable,
            "-m",
            "indm",
            "restore",
            "--suite",
            f"params/{suite}.yaml",
            "--out",
            folder / "results",
        ]
        subprocess.run(command, cwd=code, check=True)
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", code], check=True)
    return folder / "results" / suite


def migrated(commit: str, suite: Suite, here: Path, folder: Folder) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archive from its restored files; records list the accepted changes."""
    yield from ((name, (here / name).read_bytes()) for name in folder.files)
    for job in folder.jobs:
        name = next(name for name in folder.records(job) if (here / name).is_file())
        record = json.loads((here / name).read_text())
        accepted = [record.pop(key, None) for key in ("restored_for", "accepted")][1]
        code = (suite, record["stage"], job.subject, sources_of(record["commit"] if accepted else commit))
        path = f"{folder.place}/manifest/{job.stage}.json"
        made: dict[str, Any] = json.loads((here / path).read_text())
        known = {key: made[key] for key in ("stage", "suite", "subject", "parameters", "inputs", "outputs")}
        manifest = Manifest(**known, stamp=job_stamp(*code), modules=job_modules(*code))
        yield path, _json({"format": FORMAT, **asdict(manifest)})
        yield name, _json(record)


def _json(content: Any) -> bytes:
    return f"{json.dumps(content, indent=2)}\n".encode()


def migrate(commit: str, suite: Suite) -> int:
    """Give the manifests in old archives of a suite their modules; return how many archives there were."""
    archives = {folder: archive(KEPT / suite.suite / "kept", folder) for folder in kept_folders(suite)}
    old = {folder: path for folder, path in archives.items() if path.is_file() and is_old(path)}
    with tempfile.TemporaryDirectory() as temporary:
        here = restored_by(commit, suite.suite, old.values(), Path(temporary)) if old else Path()
        packed = {path: pack(dict(migrated(commit, suite, here, folder))) for folder, path in old.items()}
    for path, content in packed.items():
        with atomic_write(path) as file:
            file.write(content)
    return len(old)


def accept(suite: Suite, why: str) -> str:
    """Accept all changes since in one entry, with the reasons of earlier entries; count them before and after."""
    path = KEPT / suite.suite / FILE
    text = path.read_text() if path.is_file() else ""
    before = parse_yaml(text)["accepted"] if text else []
    reasons = list(dict.fromkeys(each["why"] for each in before))
    reasons += [] if any(why in each for each in reasons) else [why]
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "kept").symlink_to(path.parent / "kept")
        checks, made = InputCheck(suite, Path(temporary), Path("reports")), Path(temporary) / FILE
        outcome = restore(checks, Path(temporary) / "kept", replace=False, accept=". ".join(reasons))
        if outcome.failed:
            sys.exit("\n".join(outcome.lines()))
        after = parse_yaml(made.read_text())["accepted"] if made.is_file() else []
        if [{**each, "date": ""} for each in after] != [{**each, "date": ""} for each in before]:
            copy(made, path) if after else path.unlink()
    return f"{outcome.lines()[-1]}; {FILE}: {len(before)} entries before, {len(after)} now"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--why", required=True, help="the evidence that the results are the same by the present code")
    parser.add_argument("--at", default=AT, help="the commit whose code accepts the archives")
    parser.add_argument("suites", nargs="*", default=sorted(path.parent.name for path in KEPT.glob("*/kept")))
    options = parser.parse_args()
    for name in options.suites:
        suite = load_suite(ROOT / f"params/{name}.yaml")
        print(
            f"{name}: {migrate(options.at, suite)} archives got modules; {accept(suite, ' '.join(options.why.split()))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
