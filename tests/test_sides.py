"""Comparisons whose two sides were computed by different code."""

from typing import Any

import pytest

from indm.report.sides import with_code

ROW: dict[str, Any] = {"dataset": "digits", "sde": "vp", "objective": "nll", "family": "primary", "reason": ""}
ROW |= {"treatment": "indm", "against": "ddpmpp same-compute", "metric": "nll, nelbo, signed"}
SHARED = {"indm.diffusion.likelihood": "a", "indm.flows.base": "a"}
Code = dict[str, dict[str, str]]


def run(
    model: str, variant: str = "", seed: int = 0, objective: str = "nll", **stages: dict[str, str]
) -> dict[Any, Code]:
    code: Code = {"train": SHARED, "nll": SHARED, "sample": SHARED, "fid": SHARED}
    return {("digits", "vp", objective, model, variant, seed): code | stages}


EDITED = SHARED | {"indm.diffusion.likelihood": "b"}


@pytest.mark.parametrize(
    ("treatment", "against", "modules"),
    [
        (run("indm"), run("ddpmpp", "same-compute"), ""),
        (run("indm", nll=EDITED), run("ddpmpp", "same-compute"), "indm.diffusion.likelihood"),
        (run("indm", train=EDITED), run("ddpmpp", "same-compute"), "indm.diffusion.likelihood"),
        # Restored and new runs side by side are paired by seed.
        (run("indm", nll=EDITED), run("ddpmpp", "same-compute", nll=EDITED), ""),
        (run("indm", seed=1, nll=EDITED), run("ddpmpp", "same-compute"), ""),
        # A stage that the number does not come from, a module that only one side reads, another model.
        (run("indm", fid=EDITED), run("ddpmpp", "same-compute"), ""),
        (run("indm", train=SHARED | {"indm.flows.block": "a"}), run("ddpmpp", "same-compute"), ""),
        (run("indm", nll=EDITED), run("ddpmpp"), ""),
    ],
)
def test_a_comparison_of_different_code_is_exploratory_and_says_so(
    treatment: dict[Any, Code], against: dict[Any, Code], modules: str
) -> None:
    found = with_code(ROW, treatment | against)
    words = f"exploratory, because its sides were computed by different code: {modules}"
    assert found == (ROW | {"family": "exploratory", "reason": words} if modules else ROW)


def test_images_have_the_code_that_drew_them_and_sides_their_objectives() -> None:
    row = ROW | {"treatment": "ddpmpp", "against": "ddpmpp fid", "metric": "fid, fid, log", "reason": "few"}
    codes = run("ddpmpp") | run("ddpmpp", objective="fid", sample=EDITED)
    assert with_code(row, codes)["reason"].endswith("different code: indm.diffusion.likelihood; few")
