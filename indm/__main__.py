"""``python -m indm``, and the command ``indm``."""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec

# glibc then asks the system for large pages: a training takes 0.94 to 0.99 of the time. It reads this when a process starts.
TUNABLES, LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
# What the extra `bench` installs, by the names of imports.
BENCH = [
    "cleanfid",
    "dvc",
    "jinja2",
    "markdown_it",
    "matplotlib",
    "optuna",
    "pooch",
    "rich",
    "ruamel",
    "snakemake",
    "tabulate",
    "torch_fidelity",
    "torchvision",
]
# The commands that need none of it, besides every --help.
ALONE = {"referee"}


def main() -> None:
    """Run the command line in a process with large pages, whoever has started it."""
    _start_with_large_pages()
    if _needs_bench(sys.argv[1:]):
        _check_bench()
    # Imported late: the first start would import it for nothing, and the call below comes before the command line's imports.
    from indm.process import start

    start()

    from indm.bench.cli import main as run

    run(prog_name="indm")


def large_pages() -> dict[str, str]:
    """Return what the environment lacks for large pages: nothing where it has tunables of its own, and where there is no glibc."""
    return {TUNABLES: LARGE_PAGES} if TUNABLES not in os.environ and sys.platform == "linux" else {}


def _start_with_large_pages() -> None:
    """Start this process again with large pages, unless it has them: it keeps its number and its files."""
    if lacking := large_pages():
        # Where a process cannot be started again, it does the same without large pages.
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | lacking)


def _needs_bench(words: list[str]) -> bool:
    """Return whether a command line asks for more than help, the version, or a command of the core."""
    named = next((word for word in words if not word.startswith("-")), None)
    return named is not None and named not in ALONE and not {"-h", "--help"} & set(words)


def _check_bench() -> None:
    """End with one line if the packages of the bench are missing."""
    if missing := [name for name in BENCH if find_spec(name) is None]:
        sys.exit(f"indm: the bench is not installed: found no {', '.join(missing)}; pip install 'indm[bench]'")


# Processes of a training import this module too.
if __name__ == "__main__":
    main()
