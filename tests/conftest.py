"""Fixtures that several test modules share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indm.process import only_float32

REPOSITORY = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "data" / "golden"
# A suite whose text and numbers stay; those of the suites in params/ are tuned.
FROZEN = Path(__file__).parent / "data" / "suites" / "frozen.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long, which take minutes")
    parser.addoption("--nightly", action="store_true", help="also run the tests marked nightly, which take an hour")
    parser.addoption("--medium", action="store_true", help="begin with torch.set_float32_matmul_precision('medium')")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--medium"):
        torch.set_float32_matmul_precision("medium")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    times = {"long": "minutes", "nightly": "an hour"}
    for marker in (marker for marker in times if not config.getoption(f"--{marker}")):
        for item in items:
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"takes {times[marker]}; make {marker} runs it"))


@pytest.fixture(scope="session", autouse=True)
def _as_stages_compute() -> None:
    """Put the process into the state in which stages compute, for tests of what stages call, and before any other fixture."""
    only_float32()
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden_sde() -> dict[str, np.ndarray]:
    """SDE quantities measured on the released code, and in exact arithmetic (``_f64``)."""
    return dict(np.load(GOLDEN / "sde.npz"))
