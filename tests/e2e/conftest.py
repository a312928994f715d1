"""A finished smoke suite, for the tests that only need one."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.checkout import commands, commit, copy_checkout, finish, start, traced


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which Snakemake has run the smoke suite, made once for all processes of pytest: to be copied, not changed.

    Beside it, the folder ``called`` says in which files each job called functions.
    """
    base = tmp_path_factory.getbasetemp()
    checkout = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished" / "smoke"
    called = checkout.with_name("called")
    called.mkdir(parents=True, exist_ok=True)
    with checkout.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not checkout.with_name("done").exists():
            # Results are published of code that was committed.
            commit(copy_checkout(checkout), "As it is")
            done = finish(start(checkout, commands("smoke")["snakemake"], traced(called)))
            assert done.returncode == 0, done.stdout + done.stderr
            checkout.with_name("done").touch()
    return checkout
