"""Models of someone's own parts are built when a suite is validated; those that come with the package need no torch for that."""

import subprocess
import sys
from pathlib import Path

import pytest

from indm.bench.models.buildable import TESTED, check_models
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.flows.base import Flow
from indm.registry import DIFFUSIONS, FAMILIES, FLOWS, NETWORKS
from tests.conftest import FROZEN, REPOSITORY

RESFLOW = FLOWS["resflow"]


class Plain(Flow):
    """A flow that takes no keys of a suite."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)


class Computing(RESFLOW):  # type: ignore[misc, valid-type]
    """A flow that reads its weights as it is built."""

    def __init__(self, channels_in: int, image_size: int, **options: object) -> None:
        super().__init__(channels_in, image_size, **options)
        self.norm = sum(float(weights.detach().sum()) for weights in self.parameters())


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite whose flow is one of someone's own, by the name of one that comes with the package."""
    own = {key: parts - {"resflow"} for key, parts in TESTED.items()}
    monkeypatch.setattr("indm.bench.models.buildable.TESTED", own)
    small = FROZEN.read_text().replace("blocks: [2, 2]\n    width: 32", "blocks: [1, 1]\n    width: 4")
    (tmp_path / "frozen.yaml").write_text(small)
    suite = load_suite(tmp_path / "frozen.yaml")
    first = next(name for name, run in suite.runs.items() if run.has_flow)
    return suite.model_copy(update={"runs": {first: suite.runs[first]}})


def register(monkeypatch: pytest.MonkeyPatch, flow: type[Flow]) -> None:
    members = {name: FLOWS[name] for name in FLOWS} | {"resflow": flow}
    monkeypatch.setattr("indm.flows.build.FLOWS", members)


def test_a_flow_that_cannot_be_built_is_named(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Plain)
    with pytest.raises(ParamsError) as error:
        check_models(suite, FROZEN)
    (line,) = str(error.value).splitlines()
    assert f"run {next(iter(suite.runs))}, key train.flow.name: found 'resflow', whose model cannot be built" in line
    assert "TypeError" in line
    assert "unexpected keyword argument 'blocks'" in line


@pytest.mark.parametrize("flow", [RESFLOW, Computing])
def test_a_flow_that_can_be_built_passes(suite: Suite, monkeypatch: pytest.MonkeyPatch, flow: type[Flow]) -> None:
    """Also one that cannot be built on the meta device."""
    register(monkeypatch, flow)
    check_models(suite, FROZEN)


def test_parts_that_come_with_the_package_are_registered() -> None:
    kinds = {"model": FAMILIES, "sde": DIFFUSIONS, "train.score.name": NETWORKS, "train.flow.name": FLOWS}
    assert {key: parts <= set(kinds[key]) for key, parts in TESTED.items()} == dict.fromkeys(TESTED, True)


def test_a_suite_of_them_is_validated_without_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from indm.bench.cli import main; "
        f"done = CliRunner().invoke(main, ['validate', '{Path('params/smoke.yaml')}']); "
        "print(done.exit_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]
