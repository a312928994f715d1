r"""Stamps of definitions, which depend on the computation and not on file, name or style.

A definition is a function, a class or a constant at the top level of a module. Its hash covers its syntax tree, in which each
reference is replaced by the hash of its definition:

.. math:: h(d) = \mathrm{SHA256}\big(\text{tree of } d,\ h(r_1), \dots, h(r_n)\big)

Definitions that refer to each other in a circle are hashed together. A name from a library counts by its qualified name. A stamp is
the hash of the definitions with which a job begins (:mod:`indm.pipeline.stamps`).

A hash does not count the names of definitions and modules, docstrings, comments, annotations, or the arguments of ``raise`` and
:func:`indm.progress.say`. From the packages in ``OUTSIDE``, which store, report, check or schedule, it counts only the names that
are used, and the values of file formats (``…FORMAT``). It counts the statements of a module outside of its definitions, such as a
loop that adds to a table, with every definition of the module. If a module uses ``__file__``, it counts the files next to the
module that are not modules. Names that are looked up while the program runs are not seen; ``tests/test_stamps.py`` forbids them.

A stamp cannot be stale, because it is always computed from the present sources. ``__pycache__`` keeps the parsed content of each
file by the hash of its bytes, as Python keeps its bytecode.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from indm.errors import ArtifactError
from indm.pipeline.references import Place, References
from indm.pipeline.syntax import STATEMENTS, sha256
from indm.pipeline.trees import Folder, Tree

ROOT = Path(__file__).parents[2]


def sources() -> "Sources":
    """Return the sources of this package, read once per execution, because imported modules do not change either."""
    return _sources(ROOT)


@functools.cache
def _sources(root: Path) -> "Sources":
    return Sources(Folder(root))


class Sources(References):
    """The definitions in a tree of files, and their hashes.

    Arguments:
        tree: the files.
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._stamps: dict[tuple[str, ...], str] = {}
        self._hashes: dict[Place, str] = {}

    def stamp(self, *names: str) -> str:
        """Hash definitions, by their qualified names, with all definitions to which they refer.

        Raises:
            ArtifactError: if there is no such definition, or a module cannot be parsed.
        """
        if names not in self._stamps:
            places = self._places(names)
            for place in places:
                self._hash(place)
            self._stamps[names] = sha256(*sorted(self._hashes[place] for place in places))
            self._save()
        return self._stamps[names]

    def reachable(self, *names: str) -> dict[Place, str]:
        """Hash each of these definitions, and of all to which they refer, by itself: its tree and the names that it uses."""
        found: dict[Place, str] = {}
        queue = self._places(names)
        while queue:
            place = queue.pop()
            if place in found:
                continue
            links = self._links(place)
            # Otherwise the first statement in a module would change all of its definitions.
            named = [link for link in links if not (isinstance(link, Place) and link.name == STATEMENTS)]
            words = [link.name if isinstance(link, Place) else link for link in named]
            found[place] = sha256(self._own(place), *words)
            queue += [link for link in links if isinstance(link, Place)]
        self._save()
        return found

    def has(self, name: str) -> bool:
        """Return whether there is a definition of a qualified name, in its module or in another one."""
        return isinstance(self._begin(name)[0], Place)

    def _places(self, names: Iterable[str]) -> list[Place]:
        places = [self._begin(name) for name in names]
        if missing := [name for name, place in zip(names, places, strict=True) if not isinstance(place[0], Place)]:
            raise ArtifactError(f"indm/: found no definition {missing[0]}, expected one in the sources of this package")
        return [place for place, _ in places if isinstance(place, Place)]

    def _begin(self, name: str) -> tuple[Place | str, str]:
        """Find a definition by its qualified name, or else in the only other module of the same file name that has it."""
        found = self._resolve(name)
        if isinstance(found[0], Place):
            return found
        *_, file, last = name.split(".")
        moved = [
            Place(module, last) for module in self.files if module.endswith(f".{file}") and self._defines(module, last)
        ]
        return (moved[0], "") if len(moved) == 1 else found

    def _hash(self, first: Place) -> None:
        """Hash a definition after its references; Tarjan's algorithm finds the circles."""
        order: dict[Place, int] = {}
        lowest: dict[Place, int] = {}
        stack: list[Place] = []
        work = [(first, iter(self._links(first)))] if first not in self._hashes else []
        while work:
            place, links = work[-1]
            if place not in order:
                order[place] = lowest[place] = len(order)
                stack.append(place)
            for link in links:
                if not isinstance(link, Place) or link in self._hashes:
                    continue
                if link not in order:
                    work.append((link, iter(self._links(link))))
                    break
                lowest[place] = min(lowest[place], order[link])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[place])
                if lowest[place] == order[place]:
                    at = stack.index(place)
                    self._hash_circle(stack[at:])
                    del stack[at:]

    def _hash_circle(self, circle: list[Place]) -> None:
        """Hash definitions that refer to each other, or a single one.

        References inside the circle count by their number in an order that is independent of names, unless two definitions are
        identical.
        """
        alone = {place: self._combined(place, dict.fromkeys(circle, "circle")) for place in circle}
        if len(circle) == 1:
            self._hashes |= alone
            return
        numbers = {place: str(i) for i, place in enumerate(sorted(circle, key=lambda place: (alone[place], place)))}
        whole = sha256(*(self._combined(place, numbers) for place in numbers))
        for place, number in numbers.items():
            self._hashes[place] = sha256(whole, number)

    def _combined(self, place: Place, inside: Mapping[Place, str]) -> str:
        links = self._links(place)
        words = (link if isinstance(link, str) else inside.get(link) or self._hashes[link] for link in links)
        return sha256(self._own(place), *words)
