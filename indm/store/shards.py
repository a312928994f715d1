"""Shards: batches of a stage's work that several jobs make in parallel, each in a file, and that the stage itself then gathers.

A batch has the same name and content in every shard. The inputs and parameters of a shard are in its manifest; the stamp of its
code is in its file.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError, ConvergenceError, DivergenceError
from indm.store.files import AGAIN, read_spec, write_weights
from indm.store.layout import Layout
from indm.store.provenance import Finished, computed_on
from indm.store.scratch import Scratch, Work, open_scratch

if TYPE_CHECKING:
    from torch import Tensor

    Batch = dict[str, Tensor]

FORMAT = "indm-shard-1"


class Shard:
    """The batches that one job makes; scratch holds each until all are written."""

    def __init__(self, folder: Path, scratch: Scratch) -> None:
        self.finished = Finished(folder, scratch.earlier)
        self._scratch, self._started = scratch, time.monotonic()
        self._batches: dict[str, Batch] = {}
        self._errors: dict[str, str] = {}

    def once(self, name: str, make: "Callable[[], Batch]") -> "Batch":
        """Make the batch of a name, or take it from scratch, and keep it.

        Raises:
            ConvergenceError, DivergenceError: as ``make`` does; the shard keeps the message.
        """
        try:
            self._batches[name] = self._scratch.once(name, make)
        except (ConvergenceError, DivergenceError) as error:
            self._errors[name] = str(error)
            raise
        return self._batches[name]

    def write(self, path: Path, code: str) -> None:
        """Write the batches; ``code`` is the stamp of the code that made them."""
        spec = {
            "code": code,
            "computed_on": computed_on(),
            "seconds": self._scratch.earlier + time.monotonic() - self._started,
            "batches": {name: list(batch) for name, batch in self._batches.items()},
            "errors": self._errors,
        }
        tensors = {f"{name}/{key}": value for name, batch in self._batches.items() for key, value in batch.items()}
        write_weights(path, tensors, spec, FORMAT)


@contextlib.contextmanager
def open_shard(layout: Layout, run: str, stage: str, number: int, work: Work) -> Iterator[Shard]:
    """Open a shard of a stage of a run, by its number from 1 on, and write it if the block ends without an error."""
    with open_scratch(work) as scratch:
        shard = Shard(layout.shard(run, number), scratch)
        yield shard
        shard.write(_file(layout, run, stage, number), work.code)


def share(number: int, count: int, before: int = 0) -> slice:
    """Return the slice of batches that belong to a shard: every ``count``-th, after ``before`` batches were assigned already."""
    return slice((number - 1 - before) % count, None, count)


class Gathered:
    """The batches in several files of shards, made by code of a stamp; each is read when it is needed.

    Raises:
        ArtifactError: if one is missing, damaged, or made by other code.
    """

    def __init__(self, paths: Sequence[Path], code: str) -> None:
        self.earlier = 0.0
        self.computed_on: dict[str, str] = {}
        self._paths = paths
        self._places: dict[str, tuple[Path, list[str]]] = {}
        self._errors: dict[str, str] = {}
        for path in paths:
            spec = read_spec(path, FORMAT)
            if spec["code"] != code:
                found = f"found code stamp {spec['code'][:12]}, expected {code[:12]}, the present stamp of the stage"
                raise ArtifactError(f"{path}: {found}; {AGAIN}")
            self.earlier += spec["seconds"]
            for key, text in spec["computed_on"].items():
                named = self.computed_on.get(key, "").split("; ")
                self.computed_on[key] = "; ".join(sorted({*filter(None, named), text}))
            self._places |= {name: (path, keys) for name, keys in spec["batches"].items()}
            self._errors |= spec["errors"]

    def once(self, name: str, make: "Callable[[], Batch]") -> "Batch":
        """Read the batch of a name; ``make`` is not called, and is there because :meth:`Shard.once` has it.

        Raises:
            DivergenceError: if the batch is missing because the sampler failed, with the message of that failure.
            ArtifactError: if no shard has it.
        """
        if name in self._errors:
            raise DivergenceError(self._errors[name])
        if name not in self._places:
            raise ArtifactError(
                f"{self._paths[0]}: found no batch {name} in this shard or another one, expected it; {AGAIN}"
            )
        from safetensors import safe_open

        path, keys = self._places[name]
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(f"{name}/{key}") for key in keys}


def gather(layout: Layout, run: str, stage: str, count: int, code: str) -> Gathered:
    """Open all shards of a stage of a run; see :class:`Gathered`."""
    return Gathered([_file(layout, run, stage, number) for number in range(1, count + 1)], code)


def _file(layout: Layout, run: str, stage: str, number: int) -> Path:
    return layout.shard(run, number) / f"{stage}.safetensors"
