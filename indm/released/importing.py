"""Checks that a released checkpoint fits the model of a run."""

from typing import Any

from torch import Tensor, nn

from indm.diffusion.model import build_model
from indm.errors import ArtifactError
from indm.released.flow import RESIDUAL_BUILT, residual_arguments
from indm.released.score import score_arguments
from indm.released.settings import FLOW_SETTINGS, Config, plain

RELEASED_NETWORK = "unet"
SDE_NAMES = {"vpsde": "vp", "vesde": "ve"}


def check_fit(spec: dict[str, Any], released: Config, name: str, *, has_flow: bool) -> None:
    """Compare the settings that the shapes of the tensors do not show.

    Raises:
        ArtifactError: if the released configuration differs from the run's configuration.
    """
    try:
        training, model, flow = released["training"], released["model"], released["flow"]["model"]
        found = {
            "sde": SDE_NAMES.get(training["sde"].lower(), training["sde"]),
            "sde.eps": training["truncation_time"],
            "flow": flow,
            "train.score.name": RELEASED_NETWORK,
            **{f"train.score.{key}": value for key, value in score_arguments(released).items()},
        }
        if flow in FLOW_SETTINGS:
            found |= {f"train.flow.{key}": value for key, value in residual_arguments(released).items()}
        keys = ("beta_min", "beta_max") if spec["sde"]["name"] == "vp" else ("sigma_min", "sigma_max")
        found |= {f"sde.{key}": model[key] for key in keys}
    except KeyError as error:
        raise ArtifactError(f"released configuration: found no key {error.args[0]!r}") from None
    except (AttributeError, TypeError) as error:
        raise ArtifactError(f"released configuration: found a value of another type than released ({error})") from None
    expected = {"sde": spec["sde"]["name"], "sde.eps": spec["eps"], "flow": spec["flow"]["name"]}
    expected |= {f"sde.{key}": spec["sde"][key] for key in keys}
    expected |= {f"train.score.{key}": value for key, value in spec["score"].items() if key != "normalise_input"}
    expected |= {"train.score.channels_in": spec["shape"][0], "train.score.image_size": spec["shape"][1]}
    expected |= {"train.score.centered": spec["centered"]}
    if spec["flow"]["name"] in FLOW_SETTINGS:
        expected |= {f"train.flow.{key}": spec["flow"][key] for key in ("blocks", "width", *RESIDUAL_BUILT)}
    wrong = [
        f"{key}: released {found.get(key)!r}, run {value!r}"
        for key, value in expected.items()
        if plain(found.get(key)) != value
    ]
    if spec["score"]["normalise_input"] != "none":
        wrong.append(f"train.score.normalise_input: released 'none', run {spec['score']['normalise_input']!r}")
    if spec["sde"].get("learned_range"):
        wrong.append("train.sde.vp.learned_range: released False, run True")
    if "affine" in spec["flow"]:
        wrong.append("train.latent: released standardise false and scale 1, run another")
    if has_flow != (spec["flow"]["name"] != "identity"):
        wrong.append(f"--flow: {'given' if has_flow else 'not given'}, the run's flow is {spec['flow']['name']}")
    if wrong:
        raise ArtifactError(f"run {name}: the released configuration differs from the run's: {'; '.join(wrong)}")


def named(kind: str, place: str, module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module, in their own shapes, by their names in a checkpoint, such as ``ema.flow.…``."""
    return {f"{kind}.{place}.{key}": value for key, value in module.state_dict().items()}


def check_weights(spec: dict[str, Any], weights: dict[str, Tensor], name: str) -> dict[str, int]:
    """Load the weights into the run's model.

    Arguments:
        spec: the description of the run's model.
        weights: raw and averaged weights by the names of :func:`named`; each must have the shape of its parameter.
        name: the run, named in error messages.

    Returns:
        The numbers of parameters in its score network and its flow, counted as in a training.

    Raises:
        ArtifactError: if the weights do not fit the model, or are not finite.
    """
    if wrong := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ArtifactError(
            f"run {name}: {len(wrong)} of the released weights are not finite, among them {wrong[0]}, expected finite ones; "
            "take the released files"
        )
    model = build_model(spec)
    for kind in ("raw", "ema"):
        state = {key.removeprefix(f"{kind}."): value for key, value in weights.items() if key.startswith(f"{kind}.")}
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(
                f"run {name}: the released weights do not fit the run's model: {' '.join(str(error).split())}"
            ) from None
    return {
        "score_parameters": sum(p.numel() for p in model.noise.parameters()),
        "flow_parameters": sum(p.numel() for p in model.flow.parameters()),
    }
