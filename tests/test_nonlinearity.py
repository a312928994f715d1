"""How nonlinear the flows are: maps whose nonlinear share is known, and the page's numbers."""

import numpy as np
import pytest

from benchmarks.nonlinearity import table, unexplained
from tests.conftest import REPOSITORY


def normal(count: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal((count, 2))


def test_nothing_of_a_linear_map_remains_after_the_affine_fit() -> None:
    x, other = normal(100, 0), normal(50, 1)
    matrix = np.array([[2.0, 1.0], [0.0, 0.5]])
    line, affine = unexplained(x, x @ matrix + 3, other, other @ matrix + 3)
    assert affine < 1e-20
    assert line > 0.1
    assert max(unexplained(x, 2 * x + 3, other, 2 * other + 3)) < 1e-20


def test_the_share_of_a_square_is_the_known_one() -> None:
    """With a normal x, affine maps leave 2 c² / (1 + 2 c²) of the variance of x + c x²."""
    x, other = normal(20_000, 0), normal(20_000, 1)
    found = unexplained(x, x + 0.2 * x**2, other, other + 0.2 * other**2)
    assert found == pytest.approx((0.08 / 1.08, 0.08 / 1.08), rel=0.05)


@pytest.mark.parametrize("name", ["digits-vp-indm-nll-s4", "digits-vp-indm-fid-s55", "digits-vp-indm-nll-s55"])
def test_the_page_has_the_measured_shares(name: str) -> None:
    """On failure: python -m benchmarks.nonlinearity, and copy the table to docs/controls.md."""
    assert table([name])[-1] in (REPOSITORY / "docs/controls.md").read_text()
