"""Stage ``protocol``: the effect of each part of its protocol on FID, for one run of a dataset."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from indm.arrays import read_array
from indm.data.levels import Rounding, quantise, to_pixels, to_uint8
from indm.diffusion.generate import draw_images, draw_levels, prior_mean
from indm.diffusion.model import load_model
from indm.errors import ConvergenceError, DivergenceError
from indm.metrics.clean import MODES
from indm.metrics.deviations import extrapolate, fid_by_size, fid_draws, jpeg, pixel_features
from indm.metrics.features import features
from indm.metrics.frechet import Reference
from indm.metrics.references import load_extractors, load_references
from indm.process import set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.files import read_json, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


# Pillow's default.
JPEG_QUALITY = 75
COLUMNS = ["factor", "setting", "fid", "fid_se", "difference", "difference_se", "note"]
Row = dict[str, Any]


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``protocol/<dataset>.csv``, whose first row is the suite's protocol and whose others are deviations from it."""
    study = Deviations(suite, layout, name)
    rows = [
        study.base(),
        *study.sizes(),
        *study.references(),
        *study.implementations(),
        *study.roundings(),
        *study.draws(),
    ]
    folder = layout.suite_folder / "protocol"
    write_table(folder / f"{name}.csv", pd.DataFrame(rows, columns=COLUMNS))
    # Not the folder itself, because datasets share it and each leaves its provenance.
    return Finished(folder / name)


class Deviations:
    """A run's images under the suite's protocol, with a method for the rows of each kind of deviation.

    Arguments:
        suite: the suite.
        layout: the paths of its files.
        name: the dataset.
    """

    def __init__(self, suite: "Suite", layout: Layout, name: str) -> None:
        self.device = set_up(suite.device, suite.threads)
        self.parameters, self.bootstrap = suite.protocol[name], suite.fid.bootstrap
        self.run, self.sample = suite.runs[self.parameters.run], suite.sample_params(self.parameters.run)
        self.data = layout.data(name)
        self.checkpoint, self.weights = (
            layout.run(self.parameters.run) / "checkpoint.safetensors",
            suite.weights.model_dump(),
        )
        self.levels: int = read_json(self.data / "dataset.json")["levels"]
        self.extractor, self.clean, self.identity = load_extractors(self.data / "extractor.safetensors")
        self.known, self.source = load_references(self.data)
        self.model = load_model(self.checkpoint, self.device, self.weights)
        self.has_flow = any(True for _ in self.model.flow.parameters())
        # The same images as in the `sample` stage.
        self.images = torch.cat([x.cpu() for x, _ in draw_images(**self.drawing())])
        self.rounded = quantise(self.images, self.levels, self.model.centered, self.sample.rounding).numpy()
        self.features = self.extract(self.rounded, self.levels)
        self.fids = self.measure(self.features, self.known[""])

    def drawing(self, *seed: str, weights: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """Return arguments of :func:`indm.diffusion.generate.draw_images`, the suite's settings with ``changes``."""
        model = self.model if weights is None else load_model(self.checkpoint, self.device, weights)
        return {
            "model": model,
            "seed": (self.run.dataset, self.run.seed, "sample", *seed),
            "device": self.device,
            "mean": prior_mean(
                model, self.data, self.device, **self.sample.model_dump(include={"centre_prior", "batch_size"})
            ),
            "progress": bar(
                " ".join((self.parameters.run, *seed, self.said(weights or self.weights), *map(str, changes.values())))
            ),
            **self.sample.model_dump(exclude={"centre_prior", "rounding"}),
            **changes,
        }

    def drawn(self, *seed: str, **changes: Any) -> Tensor:
        """Return the features (N, F) of images sampled with ``changes``."""
        images, _ = draw_levels(levels=self.levels, rounding=self.sample.rounding, **self.drawing(*seed, **changes))
        return self.extract(images, self.levels)

    def extract(self, images: NDArray[np.uint8], levels: int = 256) -> Tensor:
        """Return the features (N, F) of images (N, C, H, W)."""
        return features(self.extractor, images, levels, device=self.device)[0]

    def measure(self, generated: Tensor, reference: Reference) -> NDArray[np.float64]:
        """Return FID and its bootstrap draws, which are the same as in the ``fid`` stage: (1 + draws,)."""
        return fid_draws(generated, reference, self.bootstrap, derive_seed(self.run.dataset, self.run.seed, "fid"))

    def row(self, factor: str, setting: str, fids: NDArray[np.float64], note: str = "") -> Row:
        """Compare FID and draws of a deviation, (1 + draws,), pair by pair with FID and draws under the suite's protocol."""
        difference = fids - self.fids
        return {
            "factor": factor,
            "setting": setting,
            "fid": fids[0],
            "fid_se": np.std(fids[1:], ddof=1),
            "difference": difference[0],
            "difference_se": np.std(difference[1:], ddof=1),
            "note": note,
        }

    def base(self) -> Row:
        """Return the row for the suite's protocol."""
        note = (
            f"{self.parameters.run}: {len(self.features)} images; reference {self.source['reference']}; torch-fidelity, "
            f"{self.identity['extractor']}; rounded to {self.levels} levels, {self.sample.rounding}; "
            f"denoise {self.sample.denoise}; weights {self.said(self.weights)}"
        )
        return self.row("base", "suite", self.fids, note)

    def sizes(self) -> Iterator[Row]:
        """Yield rows for other numbers of images, sampled separately from the base, and for infinitely many."""
        sizes, repeats = self.parameters.sizes, self.parameters.repeats
        drawn = self.drawn("sizes", num_samples=repeats * max(sizes))
        fids = fid_by_size(drawn, self.known[""], sizes, repeats)
        note = f"mean over {repeats} disjoint groups of {max(sizes)} images"
        columns = {str(size): fids[:, i] for i, size in enumerate(sizes)} | {"infinite": extrapolate(sizes, fids)}
        base_se = np.std(self.fids[1:], ddof=1)
        for setting, values in columns.items():
            se = np.std(values, ddof=1) / np.sqrt(repeats)
            yield {
                "factor": "num_samples",
                "setting": setting,
                "fid": values.mean(),
                "fid_se": se,
                "difference": values.mean() - self.fids[0],
                "difference_se": np.hypot(se, base_se),
                "note": note + (", linear in 1/N" if setting == "infinite" else ""),
            }

    def references(self) -> Iterator[Row]:
        """Yield rows for other splits as reference."""
        for split in ("test", "valid"):
            images = read_array(self.data / f"{split}.npy")
            if len(images) < 2:
                yield {"factor": "reference", "setting": split, "note": f"the split has {len(images)} images"}
                continue
            reference = Reference.of(self.extract(images, self.levels))
            yield self.row("reference", split, self.measure(self.features, reference), f"{len(images)} images")

    def implementations(self) -> Iterator[Row]:
        """Yield rows for clean-fid's modes, if the extractor is Inception; their reference is the training split."""
        for mode, resized in self.clean.items():
            (generated,) = features(resized, self.rounded, self.levels, device=self.device)
            yield self.row("implementation", MODES[mode], self.measure(generated, self.known[mode]), "reference train")

    def roundings(self) -> Iterator[Row]:
        """Yield rows for the same images with different rounding before their features are extracted."""
        centered = self.model.centered
        pixels = to_pixels(self.images, self.levels, centered)
        other: Rounding = "nearest" if self.sample.rounding == "floor" else "floor"
        found = {
            other: self.extract(quantise(self.images, self.levels, centered, other).numpy(), self.levels),
            "uint8": self.extract(pixels.round().to(torch.uint8).numpy()),
            "float": pixel_features(self.extractor, pixels, self.device),
            f"jpeg-{JPEG_QUALITY}": self.extract(jpeg(to_uint8(self.rounded, self.levels), JPEG_QUALITY)),
        }
        for setting, generated in found.items():
            yield self.row("rounding", setting, self.measure(generated, self.known[""]))

    def draws(self) -> Iterator[Row]:
        """Yield rows for images sampled with other settings from the same noise."""
        changes: list[tuple[str, str, Row]] = [
            ("denoise", name, {"denoise": name}) for name in ("tweedie", "none") if name != self.sample.denoise
        ]
        changes += [("weights", self.said(weights), {"weights": weights}) for weights in self.other_weights()]
        for factor, setting, change in changes:
            try:
                yield self.row(factor, setting, self.measure(self.drawn(**change), self.known[""]))
            except (ConvergenceError, DivergenceError) as error:
                yield {"factor": factor, "setting": setting, "note": str(error)}

    def other_weights(self) -> list[dict[str, str]]:
        """List the choices of weights that the suite does not use; without a flow, only the score's weights vary."""
        flows = ("ema", "raw") if self.has_flow else (self.weights["flow"],)
        pairs = [{"score": score, "flow": flow} for score, flow in product(("ema", "raw"), flows)]
        return [weights for weights in pairs if weights != self.weights]

    def said(self, weights: dict[str, str]) -> str:
        """Name weights, such as "score ema, flow raw"."""
        networks = ("score", "flow") if self.has_flow else ("score",)
        return ", ".join(f"{network} {weights[network]}" for network in networks)
