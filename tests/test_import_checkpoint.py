"""Released checkpoints in the place of a training: the round trip, and what is refused."""

import io
import json
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from indm.bench.cli import main
from indm.bench.models.spec import model_spec
from indm.bench.stages import import_checkpoint
from indm.bench.suite.load import load_suite
from indm.diffusion.model import ImplicitNonlinearDiffusion, load_model
from indm.errors import ArtifactError, IndmError
from indm.released.checkpoint import averaged_state
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY
from tests.released import export_flow, export_score

Json = dict[str, Any]
RUNS = {"vp": "digits-vp-indm-nll-s0", "ve": "digits-ve-indm-fid-s0"}
AVERAGED, RAW = {"score": "ema", "flow": "ema"}, {"score": "raw", "flow": "raw"}
PLAIN = "digits-vp-ddpmpp-nll-s0"
SCORE = {"embedding": "positional", "fir": False, "progressive_input": "none", "scale_by_sigma": False}
SCORE_VE = {"embedding": "fourier", "fir": True, "progressive_input": "residual", "scale_by_sigma": True}


def released_config(sde: str) -> Json:
    """A released configuration, as JSON, of the small networks of this test."""
    ve = sde == "ve"
    model: Json = {
        "name": "ncsnpp",
        "nf": 8,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "dropout": 0.0,
    }
    model |= {
        "embedding_type": "fourier" if ve else "positional",
        "fourier_scale": 16,
        "fir": ve,
        "fir_kernel": [1, 3, 3, 1],
    }
    model |= {"progressive": "none", "progressive_input": "residual" if ve else "none", "scale_by_sigma": ve}
    model |= {"nonlinearity": "swish", "conditional": True, "attention": True, "resblock_type": "biggan"}
    model |= {"auxiliary_resblock": True, "skip_rescale": True, "fourier_feature": False}
    model |= {"beta_min": 0.1, "beta_max": 20.0, "sigma_min": 0.01, "sigma_max": 50}
    training: Json = {"sde": f"{sde}sde", "truncation_time": 1e-5, "continuous": True, "ddpm_score": True}
    training |= {"unbounded_parametrization": False}
    flow = {
        "model": "resflow",
        "nblocks": "1-1",
        "intermediate_dim": 8,
        "squeeze": False,
        "actnorm": False,
        "act_fn": "sin",
    }
    data = {"num_channels": 1, "image_size": 8, "centered": not ve}
    return {"model": model, "training": training, "flow": flow, "data": data}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small suite whose networks are released ones, and its prepared data."""
    folder = tmp_path_factory.mktemp("prepared")
    suite = parse_yaml((REPOSITORY / "params" / "smoke.yaml").read_text())
    flow = {"activation": "sin", "bound": "linf", "coefficient": 0.98, "blocks": [1, 1], "width": 8}
    suite["train"]["flow"] |= flow | {"init_at_bound": False}
    suite["train"]["score"] |= SCORE | {"normalise_input": "none"}
    # With random weights, the solver of the ODE would take many steps.
    for section in ("nll", "curve"):
        suite[section] |= {"tolerance": None, "ode_steps": 2}
    for run in suite["runs"].values():
        if run["sde"] == "ve":
            run["train"] = {"centered": False, "score": SCORE_VE}
    (folder / "smoke.yaml").write_text(yaml_text(suite))
    for sde in ("vp", "ve"):
        (folder / f"{sde}.json").write_text(json.dumps(released_config(sde)))
    done = call(folder, "prepare", "--dataset", "digits")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def exported(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    released_files(folder, RUNS["vp"], prepared / "smoke.yaml")
    return folder


@pytest.fixture
def released(workplace: Path, exported: Path) -> Path:
    """Beside it, the released files of a run."""
    return Path(shutil.copytree(exported, workplace, dirs_exist_ok=True))


def call(workplace: Path, command: str, *arguments: str) -> Result:
    common = ["--suite", str(workplace / "smoke.yaml"), "--out", str(workplace / "results")]
    return CliRunner().invoke(main, [command, *common, *arguments])


def released_files(workplace: Path, run: str, suite: Path) -> ImplicitNonlinearDiffusion:
    """Save a model with random weights as the released code would; its averaged weights are half of the raw ones."""
    torch.manual_seed(0)
    model = ImplicitNonlinearDiffusion(model_spec(load_suite(suite), run, [1, 8, 8]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network = model.noise.network
    save(workplace / "checkpoint_1.pth", export_score(network), {"module.sigmas": torch.ones(3)}, {"all_modules.0.W"})
    if model.flow.state_dict():
        extras = {
            "module.transforms.0.chain.0.geom_p": torch.tensor(0.5),
            "module.transforms.0.chain.0.scale": torch.zeros(1),
        }
        save(workplace / "flow_checkpoint_1.pth", export_flow(model.flow), extras, set())
    return model


def save(path: Path, state: dict[str, Tensor], extras: dict[str, Tensor], fixed: set[str]) -> None:
    """Write a file of the released layout; a fixed entry is the Fourier frequencies, where the first entry is theirs."""
    averaged = [value / 2 for name, value in state.items() if name.removeprefix("module.") not in fixed]
    averaged += [value / 2 for name, value in extras.items() if name.endswith("geom_p")]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": averaged}
    torch.save({"model": state | extras, "ema": ema, "optimizer": {"state": {}}, "step": 7}, path)


def import_run(workplace: Path, sde: str, run: str, *arguments: str) -> Result:
    files = ["--config", str(workplace / f"{sde}.json"), "--score", str(workplace / "checkpoint_1.pth")]
    return call(workplace, "import-checkpoint", "--run", run, *files, *arguments)


@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_round_trip_gives_identical_outputs_and_the_stages_run(workplace: Path, sde: str) -> None:
    run = RUNS[sde]
    model = released_files(workplace, run, workplace / "smoke.yaml").eval()
    flow = ["--flow", str(workplace / "flow_checkpoint_1.pth")]
    done = import_run(workplace, sde, run, *flow)
    assert done.exit_code == 0, done.output
    folder = Layout(workplace / "results", "smoke").run(run)
    x = torch.rand(3, 1, 8, 8)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    raw = load_model(folder / "checkpoint.safetensors", torch.device("cpu"), RAW)
    assert torch.equal(raw.noise(x, t), model.noise(x, t))
    assert torch.equal(raw.flow(x, "none")[0], model.flow(x, "none")[0])
    average = load_model(folder / "checkpoint.safetensors", torch.device("cpu"), AVERAGED)
    for module, twin in ((average.noise.network, model.noise.network), (average.flow, model.flow)):
        for name, value in twin.named_parameters():
            assert torch.equal(module.get_parameter(name), value / 2), name
    for stage in ("sample", "curve", "nll"):
        result = call(workplace, stage, "--run", run)
        assert result.exit_code == 0, result.output
    assert len((folder / "curve.csv").read_text().splitlines()) == 1
    description = json.loads((folder / "train.json").read_text())
    assert description["steps"] == 7
    assert description["imported"]["score"]["file"] == "checkpoint_1.pth"
    # By these, the comparison with published numbers knows whether it is the same network.
    for part, whole in (("score", model.noise), ("flow", model.flow)):
        assert description[f"{part}_parameters"] == sum(parameter.numel() for parameter in whole.parameters()) > 0


def test_score_sde_checkpoint_needs_no_flow(workplace: Path) -> None:
    released_files(workplace, PLAIN, workplace / "smoke.yaml")
    config = released_config("vp")
    # What the INDM code added to the configurations of score_sde_pytorch.
    del config["flow"], config["training"]["ddpm_score"], config["training"]["unbounded_parametrization"]
    del config["training"]["truncation_time"], config["model"]["auxiliary_resblock"]
    del config["model"]["fourier_feature"], config["model"]["attention"]
    (workplace / "vp.json").write_text(json.dumps(config))
    done = import_run(workplace, "vp", PLAIN)
    assert done.exit_code == 0, done.output


def refused(workplace: Path, *words: str) -> None:
    """Import, and check that it is refused with these words on one line and that nothing is written."""
    flow = workplace / "flow_checkpoint_1.pth"
    done = import_run(workplace, "vp", RUNS["vp"], *(["--flow", str(flow)] if flow.exists() else []))
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    for word in words:
        assert word in done.output
    assert not Layout(workplace / "results", "smoke").run(RUNS["vp"]).exists()


def test_truncated_file_is_refused(released: Path) -> None:
    path = released / "checkpoint_1.pth"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(released, "checkpoint_1.pth: found a file that was refused without executing it (")


def test_malicious_file_is_refused_and_executes_nothing(released: Path) -> None:

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(released / "exploded"),))

    torch.save({"model": Bomb(), "ema": {}, "step": 0}, released / "checkpoint_1.pth")
    refused(released, "checkpoint_1.pth: found a file that was refused without executing it (")
    assert not (released / "exploded").exists()


def test_foreign_file_is_refused(released: Path) -> None:
    torch.save({"state_dict": {}}, released / "checkpoint_1.pth")
    refused(released, "found ['state_dict'], expected the keys model, ema, step")


def change(workplace: Path, file: str, **values: object) -> None:
    """Put other values into a released file."""
    content = torch.load(workplace / file, weights_only=True)
    torch.save(content | values, workplace / file)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("step", "many", "'many'"),
        ("step", -1, "-1"),
        ("step", True, "True"),
        ("step", torch.tensor(-1), "-1"),
        ("step", torch.arange(2), "'2 numbers'"),
        ("model", 5, "7 and a model of int"),
        ("step", [torch.zeros(2, 2)], "'list'"),
        ("model", {"module.a": 5}, "7 and a model of dict"),
        ("model", {"a\nb": torch.ones(2)}, "7 and a model of dict"),
        ("model", {"\ud800": torch.ones(2)}, "7 and a model of dict"),
        ("model", {1: torch.ones(2)}, "7 and a model of dict"),
        ("model", {"a": torch.ones(2, dtype=torch.complex64)}, "7 and a model of dict"),
        ("model", {"a": torch.ones(2, device="meta")}, "7 and a model of dict"),
        ("model", {"a": torch.ones(2).to_sparse()}, "7 and a model of dict"),
    ],
)
def test_values_of_another_type_are_refused(released: Path, key: str, value: object, shown: str) -> None:
    change(released, "checkpoint_1.pth", **{key: value})
    refused(released, f"checkpoint_1.pth: found step {shown}", "expected a number of at least 0 and tensors of real")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
@pytest.mark.parametrize("kind", ["model", "ema"])
def test_weights_that_are_no_floating_point_numbers_are_refused(released: Path, kind: str, dtype: torch.dtype) -> None:
    content = torch.load(released / "checkpoint_1.pth", weights_only=True)
    name = "module.all_modules.0.weight"
    if kind == "model":
        content["model"][name] = content["model"][name].to(dtype)
    else:
        content["ema"]["shadow_params"][0] = content["ema"]["shadow_params"][0].to(dtype)
    torch.save(content, released / "checkpoint_1.pth")
    refused(released, f"all_modules.0.weight is {dtype}, expected torch.float32")


def test_updates_of_averages_that_are_no_number_are_refused(released: Path) -> None:
    average = torch.load(released / "checkpoint_1.pth", weights_only=True)["ema"]
    change(released, "checkpoint_1.pth", ema=average | {"num_updates": torch.arange(2)})
    refused(released, "checkpoint_1.pth: found step 7, 2 numbers updates of its averages", "expected two files that")


def test_a_compressed_file_is_refused_before_it_is_expanded(released: Path) -> None:
    path = released / "checkpoint_1.pth"
    torch.save({"model": {"a": torch.zeros(1_000_000)}, "ema": {}, "step": 0}, path)
    path.write_bytes(zipped(unzipped(path.read_bytes()), zipfile.ZIP_DEFLATED))
    refused(released, "checkpoint_1.pth: found a file that was refused without executing it (it expands to 4,0")


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Alter bytes of the pickle in either of torch's formats, with checksums that are right, or cut the file."""

    def altered(part: bytes, reach: int) -> bytes:
        found = bytearray(part)
        for _ in range(rng.choice([1, 2, 4])):
            found[rng.randrange(min(reach, len(found)))] = rng.randrange(256)
        return bytes(found)

    match rng.choice(["zip", "zip", "legacy", "cut"]):
        case "zip":
            members = unzipped(content)
            (pickled,) = (name for name in members if name.endswith("data.pkl"))
            return zipped(members | {pickled: altered(members[pickled], len(members[pickled]))})
        case "legacy":
            file = io.BytesIO()
            torch.save(torch.load(io.BytesIO(content)), file, _use_new_zipfile_serialization=False)
            return altered(file.getvalue(), 6000)
    return content[: rng.randrange(len(content))]


@pytest.mark.long
def test_a_mutated_file_is_imported_with_finite_numbers_or_refused_in_one_line(released: Path) -> None:
    suite, layout, rng = load_suite(released / "smoke.yaml"), Layout(released / "results", "smoke"), random.Random(0)
    files = {name: released / f"{name}_1.pth" for name in ("checkpoint", "flow_checkpoint")}
    arguments: Json = {"config": released / "vp.json", "wolf_config": None}
    arguments |= {"score": files["checkpoint"], "flow": files["flow_checkpoint"]}
    refusals = []
    for path in files.values():
        whole = path.read_bytes()
        for _ in range(100):
            path.write_bytes(mutated(whole, rng))
            try:
                import_checkpoint.run(suite, layout, RUNS["vp"], **arguments)
            except IndmError as error:
                refusals.append(str(error))
            else:
                # It refuses weights that are not finite, or not of the model's kind.
                load_model(layout.run(RUNS["vp"]) / "checkpoint.safetensors", torch.device("cpu"), AVERAGED)
        path.write_bytes(whole)
    assert 100 < len(refusals) < 200
    assert not any("\n" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "sde", 5, "released configuration: found a value of another type than released"),
        ("flow", "nblocks", "a-b", "flow.nblocks is 'a-b', expected two numbers such as '16-16'"),
        ("flow", "nblocks", 16, "flow.nblocks is 16, expected two numbers such as '16-16'"),
        ("flow", "intermediate_dim", "wide", "train.flow.width: released 'wide', run 8"),
    ],
)
def test_a_configuration_of_another_type_is_refused(
    released: Path, section: str, key: str, value: object, message: str
) -> None:
    config = released_config("vp")
    config[section][key] = value
    (released / "vp.json").write_text(json.dumps(config))
    refused(released, message)


def test_a_flow_of_another_moment_of_the_training_is_refused(released: Path) -> None:
    """Whose steps may differ, where the released code has added the flow to a network that was trained already."""
    average = torch.load(released / "flow_checkpoint_1.pth", weights_only=True)["ema"]
    for values in ({"step": 8}, {"step": 6, "ema": average | {"num_updates": 6}}):
        change(released, "flow_checkpoint_1.pth", **values)
        score = "checkpoint_1.pth: found step 7, 7 updates of its averages; "
        refused(released, score, f"flow_checkpoint_1.pth: found step {values['step']}, ", "expected two files that")
    change(released, "flow_checkpoint_1.pth", step=3, ema=average)
    done = import_run(released, "vp", RUNS["vp"], "--flow", str(released / "flow_checkpoint_1.pth"))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("file", ["checkpoint_1.pth", "flow_checkpoint_1.pth"])
def test_released_weights_that_are_not_finite_are_refused(released: Path, file: str) -> None:
    content = torch.load(released / file, weights_only=True)
    content["ema"]["shadow_params"][1].fill_(torch.nan)
    torch.save(content, released / file)
    place = "ema.flow" if file.startswith("flow") else "ema.noise.network"
    refused(
        released,
        f"1 of the released weights are not finite, among them {place}.",
        "expected finite ones; take the released",
    )


@pytest.mark.parametrize(("key", "value"), [("activation", "elu"), ("bound", "spectral"), ("coefficient", 0.9)])
def test_a_run_with_another_kind_of_residual_blocks_is_refused(released: Path, key: str, value: object) -> None:
    """Their weights have the same shapes."""
    suite = parse_yaml((released / "smoke.yaml").read_text())
    suite["train"]["flow"][key] = value
    (released / "smoke.yaml").write_text(yaml_text(suite))
    built = {"activation": "sin", "bound": "linf", "coefficient": 0.98}[key]
    refused(released, f"train.flow.{key}: released {built!r}, run {value!r}")


def test_keys_and_shapes_are_listed(released: Path) -> None:
    path = released / "checkpoint_1.pth"
    content = torch.load(path, weights_only=True)
    content["model"]["module.all_modules.0.weight"] = torch.zeros(1)
    del content["model"]["module.all_modules.1.bias"]
    content["model"]["module.stranger"] = torch.zeros(2)
    torch.save(content, path)
    refused(
        released, "all_modules.0.weight is (1,), expected (32, 8)", "missing all_modules.1.bias", "unknown stranger"
    )


def test_another_configuration_is_refused_by_its_keys(released: Path) -> None:
    config = released_config("vp")
    config["data"]["centered"] = False
    config["model"]["beta_max"] = 10.0
    (released / "vp.json").write_text(json.dumps(config))
    words = ["train.score.centered: released False, run True", "sde.beta_max: released 10.0, run 20.0"]
    refused(released, *words)


def test_run_with_another_latent_is_refused(released: Path) -> None:
    suite = parse_yaml((released / "smoke.yaml").read_text())
    suite["train"]["latent"]["scale"] = 2.0
    (released / "smoke.yaml").write_text(yaml_text(suite))
    refused(released, "train.latent: released standardise false and scale 1, run another")


def test_averaged_weights_that_do_not_fit_are_refused() -> None:
    state = {"a.weight": torch.zeros(2), "a.running_mean": torch.zeros(2), "b.weight": torch.zeros(3)}
    good = {"model": state, "ema": {"shadow_params": [torch.ones(2), torch.ones(3)]}}
    assert torch.equal(averaged_state(good, "x")["b.weight"], torch.ones(3))
    assert torch.equal(averaged_state(good, "x")["a.running_mean"], torch.zeros(2))
    with pytest.raises(ArtifactError, match=r"1 averaged.*2"):
        averaged_state({"model": state, "ema": {"shadow_params": [torch.ones(2)]}}, "x")
    # A tensor is iterated over as well: this one has more entries than any memory.
    for shadow in (None, 5, [5, 5], torch.ones(1).expand(10**12)):
        with pytest.raises(ArtifactError, match=r"x: .*shadow_params"):
            averaged_state({"model": state, "ema": {"shadow_params": shadow}}, "x")
    with pytest.raises(ArtifactError, match=r"b\.weight.*\(2,\).*\(3,\)"):
        averaged_state({"model": state, "ema": {"shadow_params": [torch.ones(2), torch.ones(2)]}}, "x")
