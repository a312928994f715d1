"""An entry: one Python file with a map or a forward process, its name and its rates; and the seeds that follow from its bytes."""

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
    from indm.diffusion.contract import Member
    from indm.diffusion.model import ImplicitNonlinearDiffusion
    from indm.flows.base import Flow

DDPMPP = "ddpmpp"
# Shown in tables, and the upper end of seeds, so that they fit into nine digits.
SEEDS = 10**9
EXPECTED = "an entry's .py file, as in docs/extending/entry.md"
# What an entry finds as the name of its file, whatever it is, because its seeds do not count it.
NAME = "entry.py"
# The formats of an entry's folder, by which its seeds follow from the file. The earlier rule counted the syntax tree without
# annotations and constants such as STYLE, and the names of imported modules, so that a file could change under its hash.
RULE, EARLIER_RULE = "indm-entry-2", "indm-entry-1"
# The only files that may have seeds by the earlier rule, by the SHA-256 of their bytes: those that were trained under it.
EARLIER = {
    "af48e299a84ba1665383d31be7cc15334e6a44c34c6ec01092e6fd6e91f8c2fb": "curve-filter",
    "25543336d42e906b7702488dade8d06feb696323c9b6f63ef73649318f5a0238": "filter",
    "b2ad876e128f17e7122e5e43f489b9b5928b86035f2d4f98cbea45a9acc95632": "residual-flow",
    "7a8ab57a410939033fc094956d0b811e72238c24d6743c68e000c9f2832e937e": "rotation",
    "42d32ce4bdeb8f6318e757ed1bbce336eccee1eb9a8d838e800ab5984dbd4add": "scale",
}


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
    """

    path: Path
    source: bytes
    label: str
    rates: Mapping[str, Rates]

    @property
    def sha256(self) -> str:
        """The hash of the file, from which its seeds follow: code can read all of it, comments and its name included."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def tree_sha256(self) -> str:
        """The hash by the rule of :data:`EARLIER`."""
        tree = ast.parse(self.source)
        module, _ = hashed([node for node in tree.body if not _is_label(node)])
        stamp = hashlib.sha256(repr(([0], [(module, [])])).encode()).hexdigest()
        modules = sorted({str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)})
        return hashlib.sha256("\n".join([stamp, *modules]).encode()).hexdigest()

    def hash_by(self, rule: str) -> str:
        """Return its hash by the rule of a folder's format."""
        return self.tree_sha256 if rule == EARLIER_RULE else self.sha256

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

    def seeds(self, track: "LoadedTrack", nonce: str, rule: str = RULE) -> list[int]:
        """Derive the seeds of the trainings, which are those of all models that are compared with the entry."""
        count, sha256 = track.content.seeds, self.hash_by(rule)
        return [derive_seed("entry", sha256, track.sha256, nonce, number) % SEEDS for number in range(count)]


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
    except (SyntaxError, ValueError) as error:
        raise ArtifactError(f"{path}: found {' '.join(str(error).split())}, expected {EXPECTED}") from None
    literals = _literals(tree, path)
    return Entry(path, source, literals.LABEL, literals.RATES)


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


def maker(path: Path, source: bytes) -> Maker:
    """Import an entry, whose file had this content when it was read, and return what builds its model.

    Raises:
        ArtifactError: if it cannot be imported, or defines neither a map nor a forward process.
    """
    # Imported here, because it imports torch.
    from indm.diffusion.model import build_model

    found = _imported(path, source)
    if not isinstance(found, type):
        return found.family

    def made(spec: Mapping[str, Any]) -> "ImplicitNonlinearDiffusion":
        model = build_model(spec)
        model.flow = found(*spec["shape"][:2])
        return model

    return made


def check_contract(path: Path, source: bytes, shape: tuple[int, int, int]) -> None:
    """Check the contract of an entry's map or forward process.

    Arguments:
        path: the file.
        source: its content.
        shape: (C, S, S) of an image of the track.

    Raises:
        ArtifactError: if it breaks the contract, with the first thing that was found; one line.
    """
    from indm.diffusion.contract import check_family
    from indm.flows.contract import check_flow

    made = _imported(path, source)
    found = check_flow(made, shape) if isinstance(made, type) else check_family(made)
    if found:
        raise ArtifactError(f"{path}: breaks the contract: {found[0]}")


def _imported(path: Path, source: bytes) -> "type[Flow] | Member":
    """Import an entry, and return its map or its forward process."""
    from indm.diffusion.contract import imported, member_of
    from indm.flows.base import Flow

    module = imported(str(path), source, NAME)
    if hasattr(module, "FAMILY"):
        return member_of(module, str(path))
    flow = getattr(module, "FLOW", None)
    if not isinstance(flow, type) or not issubclass(flow, Flow):
        raise ArtifactError(f"{path}: found neither FLOW, a class derived from Flow, nor FAMILY; expected {EXPECTED}")
    return flow
