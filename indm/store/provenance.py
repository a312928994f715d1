"""The provenance of a result: the commit, the versions, the machine, the time.

Results do not contain values that differ between executions; such values go to ``provenance/`` next to the results.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from indm.errors import ArtifactError
from indm.progress import peak_memory
from indm.store.files import AGAIN, read_json


@dataclass(frozen=True)
class Finished:
    """The return value of a stage.

    Arguments:
        folder: folder of its outputs and of its provenance.
        earlier: seconds that earlier executions spent on the work that this one continued; provenance includes them.
        computed_on: machine and device of the processes that did the work, and their peak memory in a training, if this execution
            only gathered the work or waited for them.
    """

    folder: Path
    earlier: float = 0.0
    computed_on: Mapping[str, Any] = field(default_factory=dict)


# An imported checkpoint replaces a training, so only the later of the two has a record.
STANDS_FOR = {"import_checkpoint": "train"}
# Added to a record when results are restored: the stamp of the code of that day, by which they count as done.
RESTORED_FOR = "restored_for"
# Added too: the modules of science that have changed since the job was done, each with its hash then and at the restore.
CHANGED = "changed_since"
CHECKOUT = Path(__file__).resolve().parents[2]
# `git replace` would show another commit in the place of the one that is named.
GIT = ("git", "--no-replace-objects")
# The paths of a checkout that affect a result, unlike a lock file that an engine has just written.
SOURCES = [":/indm", ":/params", ":/pyproject.toml"]
CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
# Variables that keep torch, oneDNN and MKL from using all instructions of the processor.
RESTRICTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
# Packages whose versions may change the numbers of a job that can be continued.
COMPUTING = ("torch", "torch-fidelity", "torchdiffeq", "numpy", "scipy", "optuna")
# More than any job took, in any unit, to refuse numbers such as the largest one in JSON.
MOST = 1e12


def record_names(stage: str) -> tuple[str, ...]:
    """Name the records that a stage may have: its own, or the record of the import that replaces it."""
    return stage, *(other for other, replaced in STANDS_FOR.items() if replaced == stage)


def provenance(seconds: float, threads: int) -> dict[str, Any]:
    """Describe the execution of a stage: commit, versions, machine, device, allocator, times in seconds, peak memory in MiB.

    ``seconds`` is the given wall time, and ``processor_seconds`` what this process and its finished children have computed, which
    does not grow while other work has the processor, or while the machine is suspended.
    The commit is ``None`` if the package is not in its own checkout.
    """
    packages = (*COMPUTING, "clean-fid", "scikit-learn", "pandas")
    # Asked at once, because each question starts a process.
    top, _, commit = (_ask_git("rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    changes = _ask_git("status", "--porcelain", "--", *SOURCES) if top == str(CHECKOUT) else None
    return {
        "commit": commit if top == str(CHECKOUT) else None,
        "uncommitted_changes": None if changes is None else bool(changes),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "threads": threads,
        "allocator": os.environ.get("GLIBC_TUNABLES", "default"),
        **this_process(),
        "seconds": round(seconds, 3),
        "processor_seconds": round(sum(os.times()[:4]), 3),
    }


def version(package: str) -> str:
    """Return a package's version; a loaded package is asked itself, since the metadata of a wheel may omit its type of GPU."""
    loaded = sys.modules.get(package)
    return str(getattr(loaded, "__version__", None) or metadata.version(package))


def _is_text(value: object, expression: str = ".*") -> bool:
    return isinstance(value, str) and value.isprintable() and re.fullmatch(expression, value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST


def _are_versions(value: object) -> bool:
    return isinstance(value, dict) and {"python", "torch"} <= value.keys() and all(map(_is_text, value.values()))


# The check of each value in a record, and its description.
VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "code_stamp": (lambda value: _is_text(value, "[0-9a-f]{64}"), "64 hexadecimal digits"),
    "commit": (lambda value: value is None or _is_text(value, "[0-9a-f]{40,64}"), "the name of a commit, or null"),
    "uncommitted_changes": (lambda value: value in (True, False, None), "true, false or null"),
    "versions": (_are_versions, "the version of each package, python and torch among them"),
    **dict.fromkeys(("machine", "device", "allocator"), (_is_text, "a text of one line")),
    **dict.fromkeys(("threads", "seconds", "peak_memory_mib"), (_is_number, "a number of at least 0")),
    "processor_seconds": (lambda value: value is None or _is_number(value), "a number of at least 0, or null"),
    CHANGED: (
        lambda value: isinstance(value, list) and all(_is_text(line, r"\S+ \S+ \S+") for line in value),
        "the modules that restore writes",
    ),
}


def read_provenance(path: Path, suite: str, subject: str, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read the provenance of a job, ``<stage>.json``, with the needed keys: records of earlier versions have fewer.

    Raises:
        ArtifactError: if it is damaged, belongs to another job, lacks a key or has an invalid value.
    """
    found = read_json(path)
    expected = {"suite": suite, "stage": path.stem, "subject": subject}
    if wrong := {key: found.get(key) for key, value in expected.items() if found.get(key) != value}:
        raise ArtifactError(f"{path}: found the record of another job ({wrong}), expected {expected}; {AGAIN}")
    for key, (is_right, words) in VALUES.items():
        if key in found and not is_right(found[key]):
            raise ArtifactError(f"{path}: key {key}: found {found[key]!r}, expected {words}; {AGAIN}")
    if missing := [key for key in needed if key not in found]:
        raise ArtifactError(
            f"{path}: found no {', '.join(missing)}, expected all keys that stage {path.stem} writes; {AGAIN}"
        )
    return found


def changed_since(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the modules that have changed since jobs were done, by their records, each once."""
    return sorted({line.split()[0] for record in records for line in record.get(CHANGED, ())})


def descends(commit: str, ancestor: str) -> bool | None:
    """Return whether a commit is another one or a descendant of it; ``None`` if the package's checkout lacks one of them."""
    if not commit or _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return None
    base = _git("merge-base", commit, ancestor)
    return None if base is None else base == ancestor


def commit_date(commit: str) -> str | None:
    """Return the date of a commit of the package's checkout, such as 2026-01-31; ``None`` if git does not find it."""
    return _git("show", "--no-patch", "--format=%cs", commit)


def committed(commit: str, file: Path) -> str | None:
    """Return the text of a file in a commit of the package's checkout; ``None`` if git does not find them."""
    return _git("show", f"{commit}:{file}")


def first_with(text: str, file: Path) -> str | None:
    """Return the first commit in the history of the package's checkout in which a file has a text; ``None`` if git finds none."""
    found = _git("log", "--format=%H", "--reverse", f"-S{text}", "--", str(file))
    return found.splitlines()[0] if found else None


def computed_on() -> dict[str, str]:
    """Name the machine, with the restrictions of its instructions, and the device on which this process has computed."""
    machine = ", ".join([processor(), f"{os.cpu_count()} CPUs", platform.system(), *restrictions()])
    return {"machine": machine, "device": _device()}


def restrictions() -> list[str]:
    """Return the variables of the environment, with their values, that restrict the processor's instructions."""
    return [f"{name}={os.environ[name]}" for name in RESTRICTIONS if name in os.environ]


def this_process() -> dict[str, Any]:
    """Return machine and device of this process, by :func:`computed_on`, and its peak memory in MiB."""
    return computed_on() | {"peak_memory_mib": round(peak_memory(), 1)}


def _device() -> str:
    """Name the device on which this process has computed; torch initialises CUDA at its first use and not before."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    return f"cuda ({torch.cuda.get_device_name()})"


def processor() -> str:
    """Name the processor by the properties that can affect results: its model and its widest instructions."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return f"{platform.processor() or 'unknown'}, {platform.machine()}"
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = known.get("model name", platform.processor() or "unknown")
    number = f" (family {known['cpu family']}, model {known['model']})" if {"cpu family", "model"} <= set(known) else ""
    found = known.get("flags", "").split()
    widest = next((name for flag, name in INSTRUCTIONS.items() if flag in found), "")
    return ", ".join(filter(None, (f"{name}{number}", widest, platform.machine())))


def _git(*arguments: str) -> str | None:
    """Ask git about the package's own checkout; ``None`` if the package is elsewhere, such as in another project's checkout."""
    if _ask_git("rev-parse", "--show-toplevel") != str(CHECKOUT):
        return None
    return _ask_git(*arguments)


def _ask_git(*arguments: str) -> str | None:
    command = [*GIT, "-C", str(CHECKOUT), *arguments]
    try:
        # Long enough for a machine that is busy: a question without an answer would be read as a commit that is not there.
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
