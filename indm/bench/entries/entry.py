"""An entry: one Python file with a map or a forward process, its name and its rates; and the seeds that follow from it."""

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from indm.bench.pipeline.code import hashed
from indm.errors import ArtifactError, ParamsError
from indm.fields import Rate
from indm.seeding import derive_seed
from indm.strict_yaml import Strict

if TYPE_CHECKING:
    from indm.bench.entries.tracks import LoadedTrack
    from indm.diffusion.model import ImplicitNonlinearDiffusion
    from indm.flows.base import Flow

DDPMPP = "ddpmpp"
# Shown in tables, and the upper end of seeds, so that they fit into nine digits.
SEEDS = 10**9
EXPECTED = "an entry's .py file, as in docs/extending/entry.md"


class Rates(Strict):
    """Peak learning rates of the score network and of what stands in front of it."""

    lr: Rate
    flow_lr: Rate


class Literals(Strict):
    """What is read of an entry without running it."""

    LABEL: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    RATES: dict[str, Rates]


@dataclass(frozen=True)
class Entry:
    """What is known of an entry without running its code.

    Arguments:
        path: the file.
        source: its content.
        label: its name.
        rates: its rates on each track.
        sha256: the hash of its syntax tree and of the names of the modules that it imports, from which its seeds follow. It does
            not count comments, docstrings, layout, messages of errors, annotations and the name.
    """

    path: Path
    source: bytes
    label: str
    rates: Mapping[str, Rates]
    sha256: str

    def rates_on(self, track: "LoadedTrack") -> Rates:
        """Return the rates on a track.

        Raises:
            ParamsError: if the entry states none.
        """
        if track.name not in self.rates:
            raise ParamsError(
                f"{self.path}: found RATES of {', '.join(self.rates) or 'no track'}, expected those of track {track.name}; add them"
            )
        return self.rates[track.name]

    def seeds(self, track: "LoadedTrack", nonce: str) -> list[int]:
        """Derive the seeds of the trainings, which are those of all models that are compared with the entry."""
        count = track.content.seeds
        return [derive_seed("entry", self.sha256, track.sha256, nonce, number) % SEEDS for number in range(count)]


def read_entry(path: Path) -> Entry:
    """Read an entry without running its code.

    Raises:
        ArtifactError: if the file is missing or not Python, or lacks a literal; the message names what is expected.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: found no such file, expected {EXPECTED}")
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
        module, _ = hashed([node for node in tree.body if not _is_label(node)])
    except (SyntaxError, ValueError) as error:
        raise ArtifactError(f"{path}: found {' '.join(str(error).split())}, expected {EXPECTED}") from None
    modules = sorted({str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)})
    literals = _literals(tree, path)
    # The form of a stamp of one module, from which the seeds of the records follow.
    stamp = hashlib.sha256(repr(([0], [(module, [])])).encode()).hexdigest()
    sha256 = hashlib.sha256("\n".join([stamp, *modules]).encode()).hexdigest()
    return Entry(path, source, literals.LABEL, literals.RATES, sha256)


def _is_label(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id="LABEL")]):
            return True
    return False


def _literals(tree: ast.Module, path: Path) -> Literals:
    found: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="LABEL" | "RATES" as name)], value=value):
                found[name] = _value(value)
    try:
        literals = Literals.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            f"{path}: {place}: {first['msg']}; expected LABEL, a name in lower-case letters, digits and hyphens, and RATES, as in "
            '{"digits": {"lr": 1.67e-2, "flow_lr": 5e-3}}, both as literals'
        ) from None
    if literals.LABEL == DDPMPP:
        raise ArtifactError(f"{path}: LABEL: found {DDPMPP}, expected another name, as this is the model without a map")
    return literals


def _value(node: ast.expr) -> Any:
    """Return the value of a literal; of something else its text, which is then refused."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


Maker = Callable[[Mapping[str, Any]], "ImplicitNonlinearDiffusion"]
"""Builds the model of a specification whose flow is the identity; see :class:`ImplicitNonlinearDiffusion`."""


def without_map(spec: Mapping[str, Any]) -> "ImplicitNonlinearDiffusion":
    """Build DDPM++ from its specification."""
    from indm.diffusion.model import build_model

    return build_model(spec)


def maker(path: Path) -> Maker:
    """Import an entry, and return what builds its model.

    Raises:
        ArtifactError: if it cannot be imported, or defines neither a map nor a forward process.
    """
    # Imported here, because they import torch.
    from indm.diffusion.contract import member
    from indm.diffusion.model import build_model

    if (flow := _flow(path)) is None:
        return member(str(path)).family

    def made(spec: Mapping[str, Any]) -> "ImplicitNonlinearDiffusion":
        model = build_model(spec)
        model.flow = flow(*spec["shape"][:2])
        return model

    return made


def check_contract(path: Path, shape: tuple[int, int, int]) -> None:
    """Check the contract of an entry's map or forward process.

    Arguments:
        path: the file.
        shape: (C, S, S) of an image of the track.

    Raises:
        ArtifactError: if it breaks the contract, with the first thing that was found; one line.
    """
    from indm.diffusion.contract import check_family, member
    from indm.flows.contract import check_flow

    flow = _flow(path)
    found = check_family(member(str(path))) if flow is None else check_flow(flow, shape)
    if found:
        raise ArtifactError(f"{path}: breaks the contract: {found[0]}")


def _flow(path: Path) -> "type[Flow] | None":
    """Import an entry, and return its map; None if it has a forward process instead."""
    from indm.diffusion.contract import imported
    from indm.flows.base import Flow

    module = imported(str(path), EXPECTED)
    if hasattr(module, "FAMILY"):
        return None
    flow = getattr(module, "FLOW", None)
    if not isinstance(flow, type) or not issubclass(flow, Flow):
        raise ArtifactError(f"{path}: found neither FLOW, a class derived from Flow, nor FAMILY; expected {EXPECTED}")
    return flow
