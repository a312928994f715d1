"""Stage ``fid``: all metrics of a run's images against the reference of its dataset."""

from typing import TYPE_CHECKING

from indm.arrays import read_array
from indm.metrics.compare import NO_CLEAN, compare, compare_clean, protocol
from indm.metrics.features import features
from indm.metrics.infinity import fid_infinity
from indm.metrics.references import load_extractors, load_references
from indm.process import set_up
from indm.seeding import derive_seed
from indm.store.files import read_json, write_json
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``fid.json``."""
    device = set_up(suite.device, suite.threads)
    run, folder = suite.runs[name], layout.run(name)
    data = layout.data(run.dataset)
    extractor, clean, identity = load_extractors(data / "extractor.safetensors")
    references, source = load_references(data)
    levels, images = read_json(data / "dataset.json")["levels"], read_array(folder / "samples.npy")
    settings, seed = suite.fid.model_dump(), derive_seed(run.dataset, run.seed, "fid")
    generated, logits = features(extractor, images, levels, device=device)
    values = compare(generated, logits, references[""], **settings, seed=seed) | NO_CLEAN
    values |= fid_infinity(generated, references[""], values["fid"], values["fid_se"])
    for mode, resized in clean.items():
        (generated,) = features(resized, images, levels, device=device)
        values |= compare_clean(mode, generated, references[mode], bootstrap=settings["bootstrap"], seed=seed)
    known = references[""].features
    result = {
        "run": name,
        "weights": suite.weights_of(name),
        "implementation": "torch-fidelity",
        **identity,
        "features": "float32 network, float64 statistics",
        "reference": source["reference"],
        "reference_sha256": source["reference_sha256"],
        "num_reference": None if known is None else len(known),
        "num_samples": len(images),
        "protocol": protocol(**settings),
        **values,
    }
    write_json(folder / "fid.json", result)
    return Finished(folder)
