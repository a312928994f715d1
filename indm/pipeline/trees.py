"""The files of the package, in the present checkout or in a commit."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from indm.errors import ArtifactError


class Tree(Protocol):
    """The files below ``indm/``, by their paths from the top of a checkout."""

    def paths(self) -> Iterable[str]:
        """List the files."""

    def read(self, path: str) -> bytes:
        """Read one of them."""


class Folder:
    """The present files of a checkout.

    Arguments:
        root: top of the checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def paths(self) -> Iterator[str]:
        """List the files, without files behind links to folders."""
        for folder, folders, files in os.walk(self.root / "indm"):
            folders[:] = [name for name in folders if name != "__pycache__"]
            yield from ((Path(folder) / name).relative_to(self.root).as_posix() for name in files)

    def read(self, path: str) -> bytes:
        """Read one of them."""
        return (self.root / path).read_bytes()


class Commit:
    """The files of a commit.

    Arguments:
        root: the top of its checkout.
        commit: the commit.

    Raises:
        ArtifactError: if git cannot read the commit.
    """

    def __init__(self, root: Path, commit: str) -> None:
        self.root, self.commit = root, commit
        self._blobs: dict[str, str] = {}
        for entry in self._git("ls-tree", "-r", "-z", commit, "indm/").split(b"\0"):
            mode, _, rest = entry.decode().partition(" ")
            # Links point outside of the package.
            if mode.startswith("100"):
                name, _, path = rest.partition("\t")
                self._blobs[path] = name.split()[1]

    def paths(self) -> Iterable[str]:
        """List the files."""
        return self._blobs

    def read(self, path: str) -> bytes:
        """Read one of them."""
        return self._git("cat-file", "blob", self._blobs[path])

    def _git(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, check=False)
        except OSError as error:
            raise ArtifactError(f"commit {self.commit[:12]}: git does not run ({error.strerror}); install it") from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise ArtifactError(
                f"commit {self.commit[:12]}: git cannot read it here ({reason}); fetch it, for example with git fetch --unshallow"
            )
        return done.stdout
