"""Tables from result files: columns, aggregation over seeds, floors, published numbers, absent values, exports."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from indm.bench.pipeline.stages import STAGES
from indm.errors import ArtifactError, ParamsError
from indm.measured import BAND_METRICS, FLOW_METRICS, LIKELIHOODS
from indm.report.catalogue import CATALOGUE, CELL, SHOWN
from indm.report.comparison import COMPARISON_COLUMNS, comparison_table
from indm.report.compute import COMPUTE_COLUMNS, compute_table
from indm.report.export import write_published
from indm.report.figures import FIGURES
from indm.report.literature import PUBLISHED_COLUMNS
from indm.report.numbers import IMAGE_COLUMNS, RUN_KEY, VALUE_COLUMNS, Results, collect, decoders
from indm.report.page.render import SECTIONS
from indm.report.published import read_published
from indm.report.rows import NUMBERS, read_texts, records
from indm.report.tables import (
    ablation_table,
    discretization_table,
    fid_table,
    flow_table,
    learning_curve_table,
    nll_table,
    suite_tables,
    toy2d_table,
)
from indm.report.verdicts import CLAIM_COLUMNS, DIFFERENCE_COLUMNS
from indm.store.files import write_json, write_table
from indm.store.layout import Layout
from tests.conftest import REPOSITORY

PUBLISHED = read_published(REPOSITORY / "params" / "published.csv")
INCEPTION = "inception-v3-compat"
EXTRACTORS = {"fashion-mnist": "fashion-cnn", "digits": "digits-cnn", "cifar10": INCEPTION, "celeba64": INCEPTION}
FIDS = {"fid_se": 0.5, "kid": 0.1, "kid_se": 0.01}
MEASURED = (*NUMBERS, "nll_uncorrected")
CELL_OF_DDPMPP = {"dataset": "digits", "sde": "vp", "model": "ddpmpp", "variant": "", "objective": "fid"}
FLOORS = {
    "test": {"num_samples": 360, "fid": 2.0, "fid_se": 0.1, "kid": 0.0, "kid_se": 0.01},
    "train-halves": {"num_samples": 628, "fid": 1.0, "fid_se": 0.1, "kid": 0.0, "kid_se": 0.01},
}


def suite_of(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A suite's content, as far as its numbers depend on it; alpha at eps of results that do not hold it is 0.5."""
    vp = dict.fromkeys(("beta_min", "beta_max"), 2 * math.log(2))
    datasets = {"moons": {"density": "moons", "length": "long"}}
    return {
        "suite": "s",
        "train": {"sde": {"vp": vp, "eps": 1.0}},
        "runs": {name: keys | {"train": {}} for name, keys in runs.items()},
        "toy2d": {"datasets": datasets, "grid": "uniform"},
    }


def collected(folder: Path, runs: dict[str, dict[str, Any]], **further: list[str]) -> Results:
    """Collect what the runs of a suite have measured, and the subjects of ``further`` stages."""
    jobs = {stage: [*runs] for stage in ("train", "sample", "nll")} | further
    return collect(folder / "s", suite_of(runs), jobs)


def first(results: Results) -> str:
    """Name the first run."""
    return str(results.rows["train"]["run"].iloc[0])


def written(folder: Path, runs: list[dict[str, Any]], **texts: str) -> Results:
    """Write the required files of runs, and the tables in ``texts`` (``curve``, ...) of the first; read them again.

    A run holds what differs from a plain one: ``fid``, ``nll``, ``extractor``, or a key of its identity.
    """
    layout = Layout(folder, "s")
    named: dict[str, dict[str, Any]] = {}
    for run in runs:
        keys: dict[str, Any] = {**CELL_OF_DDPMPP, "seed": 0, **run}
        identity = {key: keys[key] for key in RUN_KEY}
        name = "-".join(map(str, identity.values())).replace("--", "-")
        named[name] = identity
        sampler = {"run": name, "sampler": keys.get("sampler", "ancestral"), "nfe": 100.0, "steps": 100}
        write_json(layout.run(name) / "samples.json", sampler | {"num_samples": keys.get("num_samples", 1000)})
        extractor = keys.get("extractor", EXTRACTORS[keys["dataset"]])
        write_json(
            layout.run(name) / "fid.json", {"run": name, "extractor": extractor, "fid": keys.get("fid", 10.0), **FIDS}
        )
        numbers = {key: keys.get(key, 1.0) for key in MEASURED}
        errors = {f"{key}_se": 0.5 for key in MEASURED}
        protocol = {"images": 2, "log_det_bound": 0.0} | {key: keys[key] for key in ["alpha_eps"] if key in keys}
        write_json(layout.run(name) / "nll.json", {"run": name, **protocol, **numbers, **errors})
        of_images = {key: [value - 0.5, value + 0.5] for key, value in numbers.items()}
        write_table(layout.run(name) / "nll.csv", pd.DataFrame({"image": [0, 1], **of_images}))
        size = {"run": name, "score_parameters": keys.get("parameters", 1000), "flow_parameters": 0, "steps": 100}
        write_json(layout.run(name) / "train.json", size)
        if "log_det" in run:
            flow = dict.fromkeys(FLOW_METRICS, 1.5) | {"images": 64, "log_det": run["log_det"], "log_det_se": 0.25}
            write_json(layout.run(name) / "flow.json", {"run": name, **flow})
    for kind, text in texts.items():
        path = layout.suite_folder / kind / "moons.csv"
        path = path if kind == "toy2d" else layout.run(next(iter(named))) / f"{kind}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if kind == "curve":
            path.with_name("curve_images.csv").write_text(BOTH_IMAGES if text.startswith(BOTH[:50]) else CURVE_IMAGES)
    datasets = sorted({identity["dataset"] for identity in named.values()})
    for dataset in datasets:
        write_json(layout.data(dataset) / "reference.json", {"extractor": EXTRACTORS[dataset], "floors": FLOORS})
    jobs = {kind: ["moons"] if kind == "toy2d" else [next(iter(named))] for kind in texts}
    jobs["flow"] = [name for name, run in zip(named, runs, strict=True) if "log_det" in run]
    return collected(folder, named, fid=[*named], reference=datasets, **jobs)


def test_each_table_is_declared_once_for_all_who_read_it(tmp_path: Path) -> None:
    made = suite_tables(written(tmp_path, [{}]), PUBLISHED, "learned")
    columns = {name: {*map(str, table)} for name, table in made.items()} | {
        "compute": {*COMPUTE_COLUMNS},
        "claims": {*CLAIM_COLUMNS},
        "differences": {*DIFFERENCE_COLUMNS},
        "comparison": {*COMPARISON_COLUMNS},
    }
    assert columns.keys() == CATALOGUE.keys()
    for stage in ("table", "compute", "claims"):
        declared = {name for name, table in CATALOGUE.items() if table.stage == stage}
        assert {Path(path).stem for path in STAGES[stage].written} == declared
    assert made.keys() == {name for name, table in CATALOGUE.items() if table.stage == "table"}
    assert (list(made["values"]), list(made["images"])) == (VALUE_COLUMNS, IMAGE_COLUMNS)
    # What a suite does not have gives no rows.
    assert {name for name, table in made.items() if table.empty} >= {"discretization", "learning_curve", "toy2d"}
    assert {plot.table for plot in FIGURES.values()} <= set(SHOWN)
    template = (REPOSITORY / "indm/report/page/templates/index.html.jinja").read_text()
    sections = {table.section for table in CATALOGUE.values() if table.section}
    called = {*re.findall(r'call section\("(\w+)"', template)}
    assert sections <= called <= {*SECTIONS}
    # The numbers of a study of known densities have columns where the suite has a study.
    columns["toy2d"] |= {"nelbo_excess", "nll_excess", "true_gap", "energy_16", "path_ratio", "midpoint", "moved"}
    columns["toy2d"].add("step_flops")
    # And the bound by frequency band where it asks for that.
    columns["flow"] |= {*BAND_METRICS}
    for name, table in CATALOGUE.items():
        named = {*table.key}
        if view := table.view:
            named |= {*view.columns, *view.label, *view.group, view.across, view.dropped}
        assert named <= columns[name] | {""}, name


def test_errors_over_seeds_and_over_images_are_apart(tmp_path: Path) -> None:
    one = fid_table(written(tmp_path / "1", [{}]), PUBLISHED).iloc[0]
    assert (one["seeds"], one["fid"], one["fid_image_se"]) == (1, 10.0, 0.5)
    assert np.isnan(one["fid_se"])
    two = fid_table(written(tmp_path / "2", [{}, {"seed": 1, "fid": 14.0}]), PUBLISHED).iloc[0]
    assert (two["seeds"], two["fid"], two["fid_image_se"]) == (2, 12.0, 0.5)
    assert two["fid_se"] == pytest.approx(np.std([10, 14], ddof=1) / np.sqrt(2))


def test_a_variant_is_a_row_of_its_own(tmp_path: Path) -> None:
    table = nll_table(written(tmp_path, [{}, {"variant": "scale-3", "nll": 0.5}]), PUBLISHED, {})
    assert table[["variant", "seeds", "nll"]].to_numpy().tolist() == [["", 1, 1.0], ["scale-3", 1, 0.5]]


def test_a_flow_has_a_row_over_its_seeds_and_its_numbers_are_in_the_tidy_table(tmp_path: Path) -> None:
    flows = [{"model": "indm", "seed": seed, "log_det": log_det} for seed, log_det in ((0, 0.2), (1, 0.4))]
    results = written(tmp_path, [{}, *flows])
    (row,) = records(flow_table(results))
    assert (row["model"], row["seeds"], row["images"]) == ("indm", 2, 64)
    assert (row["log_det"], row["log_det_se"], row["log_det_image_se"]) == pytest.approx((0.3, 0.1, 0.25))
    assert (row["gain_6"], row["gain_6_se"]) == (1.5, 0.0)
    values = results.values
    found = values[(values["stage"] == "flow") & (values["seed"] == 1)]
    assert found["metric"].tolist() == FLOW_METRICS
    assert records(found)[0] | {"value": 0.4, "se": 0.25} == records(found)[0]


def test_floors_are_rows_of_their_own(tmp_path: Path) -> None:
    table = fid_table(written(tmp_path, [{}]), PUBLISHED)
    floors = table[table["model"].str.startswith("real")]
    assert floors["model"].tolist() == ["real (test split)", "real (two halves of train)"]
    assert floors[["fid", "fid_image_se"]].to_numpy().tolist() == [[2.0, 0.1], [1.0, 0.1]]
    assert floors[["sampler", "fid_se"]].isna().all(axis=None)


def test_a_published_number_stands_beside_its_own_dataset_sde_and_extractor_alone(tmp_path: Path) -> None:
    """The published FID of CelebA is of clean-FID, edited, and INDM's of CIFAR-10 of no named SDE."""
    celeba = {"dataset": "celeba64", "sde": "ve", "model": "indm"}
    assert [row["extractor"] for row in published(**celeba, objective="fid")] == ["clean-fid-edited"]
    cifar = {"dataset": "cifar10"}
    for number, (run, expected) in enumerate(
        [
            (cifar, 2.55),
            *((cifar | {"sampler": sampler}, 3.93) for sampler in ("ode", "ode_heun", "dpm_solver_pp_2m")),
            *((run, None) for run in ({}, celeba, cifar | {"model": "indm"})),
            *((cifar | {"extractor": extractor}, None) for extractor in ("inception-v3-random", "cifar10-cnn")),
        ]
    ):
        row = fid_table(written(tmp_path / str(number), [run]), PUBLISHED).iloc[0]
        found = None if pd.isna(row["published_fid"]) else row["published_fid"]
        assert (found, pd.isna(row["published_source"])) == (expected, expected is None), run


def test_seeds_of_one_cell_must_share_a_protocol(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="different protocols"):
        fid_table(written(tmp_path, [{}, {"seed": 1, "num_samples": 500}]), PUBLISHED)


SWEEP = """sampler,grid,steps,nfe,num_samples,fid,fid_se,kid,kid_se,skip
ode_heun,uniform,4,7,500,20.0,1.0,0.2,0.02,
euler_maruyama,uniform,4,,,,,,,beta / N > 1
"""
CURVE = """step,flops,images,nelbo,nelbo_se,nll,nll_se,gap,gap_se,log_det_bound,split
10,1e9,2,3.0,0.1,2.5,0.1,0.5,0.01,0,valid
20,2e9,2,2.5,0.1,2.4,0.1,0.1,0.01,0,valid
"""
CURVE_IMAGES = """step,image,nelbo,nll,gap
10,0,2.9,2.4,0.49
10,1,3.1,2.6,0.51
20,0,2.4,2.3,0.09
20,1,2.6,2.5,0.11
"""
# With the bound without the reconstruction: the fixed decoder is better at the end, on validation images.
BOTH = """step,flops,images,nelbo,nelbo_se,bare,bare_se,nll,nll_se,gap,gap_se,log_det_bound,split,alpha_eps
10,1e9,2,3.0,0.1,3.2,0.1,2.5,0.1,0.5,0.01,0,valid,1.0
20,2e9,2,2.5,0.1,1.3,0.1,2.4,0.1,0.1,0.01,0,valid,0.5
""".replace("bare", "nelbo_no_reconstruction")
BOTH_IMAGES = """step,image,nelbo,nelbo_no_reconstruction,nll,gap
10,0,2.9,3.1,2.4,0.49
10,1,3.1,3.3,2.6,0.51
20,0,2.4,1.2,2.3,0.09
20,1,2.6,1.4,2.5,0.11
"""
TOY2D = """model,variant,seed,parameters,train_flops,nelbo_excess,nll_excess,gap,energy_8,path_ratio
indm,,0,100,1e6,0.5,0.6,-0.1,40,1.1
indm,,1,100,1e6,0.7,0.4,0.3,60,1.3
"""


def test_impossible_cells_of_a_sweep_stay_with_their_reason(tmp_path: Path) -> None:
    table = discretization_table(written(tmp_path, [{}], sweep=SWEEP))
    assert table["fid"].tolist()[0] == 20.0
    assert table["fid_image_se"].tolist()[0] == 1.0
    assert np.isnan(table["fid"].iloc[1])
    assert table["skip"].tolist() == ["", "beta / N > 1"]


def test_a_sampler_with_fewer_points_than_it_needs_is_not_sound(tmp_path: Path) -> None:
    """By its own statement for the SDE and the grid; pc by its predictor's, and the 2-D studies by that of DDIM under VP."""
    cells = [("ddim", 8), ("ddim", 9), ("ode_euler", 8), ("reverse_diffusion", 12), ("pc", 11), ("pc", 12)]
    sweep = "".join(f"{sampler},uniform,{steps},7,500,20.0,1.0,0.2,0.02,\n" for sampler, steps in cells)
    results = written(tmp_path, [{"sde": "vp"}], sweep=SWEEP.splitlines(keepends=True)[0] + sweep, toy2d=TOY2D)
    assert discretization_table(results)["sound"].tolist() == [0, 1, 1, 1, 0, 1]
    values = results.values
    assert values.query("stage == 'sweep' and metric == 'kid'")["sound"].tolist() == [0, 1, 1, 1, 0, 1]
    assert values.query("metric == 'energy'")["sound"].tolist() == [0, 0]
    under_ve = written(tmp_path, [{"sde": "ve"}], sweep=SWEEP.splitlines(keepends=True)[0] + sweep)
    assert discretization_table(under_ve)["sound"].tolist() == [1, 1, 0, 0, 0, 0]
    of_no_grid = written(tmp_path, [{}], sweep=(SWEEP + sweep).replace("grid,", "").replace("uniform,", ""))
    assert set(discretization_table(of_no_grid)["sound"]) == {0}


def test_a_run_that_failed_is_a_row_of_its_own(tmp_path: Path) -> None:
    """By which claims know that it was planned; no other table has it."""
    found = written(tmp_path, [{"seed": 0}])
    values = replace(found, failed=[CELL_OF_DDPMPP | {"seed": 1}]).values
    (row,) = records(values[values["seed"] == 1])
    assert (row["stage"], row["metric"], row["value"], row["source"]) == ("train", "failed", 1, "params/s.yaml")


def swept(results: Results, rows: pd.DataFrame) -> Results:
    """The results with another sweep."""
    return replace(results, rows={**results.rows, "sweep": rows})


def test_a_cell_that_some_seeds_lack_says_of_how_many_it_is(tmp_path: Path) -> None:
    """Whichever seed comes first."""
    run = written(tmp_path, [{}], sweep=SWEEP)
    there = run.rows["sweep"].iloc[:1]
    lacking = there.assign(seed=1, fid=np.nan, num_samples=np.nan, skip="diverged")
    for rows in ([there, lacking], [lacking, there]):
        (found,) = records(discretization_table(swept(run, pd.concat(rows))))
        assert (found["fid"], found["seeds"], found["num_samples"]) == (20.0, 1, 500)
        assert found["skip"] == "1 of 2 seeds: diverged"


def test_intervals_of_fid_over_seeds_are_those_of_its_logarithm(tmp_path: Path) -> None:
    """Of FIDs that differ by a factor, an interval of their mean would begin below 0."""
    run = written(tmp_path, [{}], sweep=SWEEP)
    there = run.rows["sweep"].iloc[:1]
    fids = [1.0, 2.0, 10.0]
    rows = pd.concat([there.assign(seed=seed, fid=fid) for seed, fid in enumerate(fids)])
    (found,) = records(discretization_table(swept(run, rows)))
    mean, half = np.mean(np.log(fids)), 4.302652729911275 * np.std(np.log(fids), ddof=1) / 3**0.5
    assert (found["fid_low"], found["fid_high"]) == pytest.approx((np.exp(mean - half), np.exp(mean + half)))
    (single,) = records(discretization_table(swept(run, there)))
    assert np.isnan([single["fid_low"], single["fid_high"]]).all()


def test_learning_curve_has_steps_and_flops(tmp_path: Path) -> None:
    table = learning_curve_table(written(tmp_path, [{}], curve=CURVE))
    assert table[["step", "flops", "gap", "gap_image_se"]].to_numpy().tolist() == [
        [10, 1e9, 0.5, 0.01],
        [20, 2e9, 0.1, 0.01],
    ]


def test_both_decoders_are_in_every_table_and_validation_images_choose_one(tmp_path: Path) -> None:
    """By closed form from each image: without the learned decoder's cost, and with -log2 alpha of the run or the snapshot."""
    numbers = {"nll": 2.0, "nelbo": 2.5, "nelbo_no_reconstruction": 1.25, "gap": 0.5}
    results = written(tmp_path, [{"seed": 3, "alpha_eps": 0.25, **numbers}, {"seed": 4, **numbers}], curve=BOTH)
    (row,) = records(nll_table(results, PUBLISHED, decoders(results.values, "validation")))
    # The second run's file holds no alpha: half of -log2 0.25 and half of -log2 0.5.
    assert (row["nelbo_fixed"], row["nll_fixed"]) == pytest.approx((1.25 + 1.5, 2.0 - 1.25 + 1.5))
    assert (row["nelbo_fixed_se"], row["nll_fixed_image_se"]) == pytest.approx((0.5, 0.5))
    assert row["decoder"] == "fixed"
    curve = learning_curve_table(results)
    assert curve["nelbo_fixed"].tolist() == pytest.approx([3.2, 2.3])
    assert curve["nll_fixed"].tolist() == pytest.approx([2.7, 2.2])
    values = results.values
    assert values.query("metric == 'nll_fixed' and stage == 'curve'")["value"].tolist() == pytest.approx([2.7, 2.2])
    assert values.query("metric == 'nelbo_fixed' and seed == 3 and stage == 'nll'")["se"].tolist() == [0.5]
    images = results.images
    assert images["nelbo_fixed"].tolist()[:2] == pytest.approx([2.75, 3.75])
    assert images["nll_fixed"].tolist()[-2:] == pytest.approx([2.1, 2.3])
    for table in (values["metric"], nll_table(results, PUBLISHED, {}), images, curve):
        assert "nelbo_no_reconstruction" not in str([*table])


def test_the_last_snapshots_of_all_seeds_or_test_images_choose_a_decoder() -> None:
    rows = [
        {"stage": "curve", "seed": seed, "x": step, "metric": metric, "value": value} | CELL_OF_DDPMPP
        for seed, step, *numbers in ((0, 1, 9.0, 1.0), (0, 2, 2.0, 2.2), (1, 1, 9.0, 1.0), (1, 4, 3.0, 2.9))
        for metric, value in zip(("nelbo", "nelbo_fixed"), numbers, strict=True)
    ]
    values, cell = pd.DataFrame(rows), tuple(CELL_OF_DDPMPP.values())
    assert decoders(values, "validation") == {cell: "learned"}
    for part in (values[values["seed"] == 1], values[values["x"] < 2]):
        assert decoders(part, "validation") == {cell: "fixed"}
    assert decoders(values[values["metric"] == "nelbo"], "validation") == {}
    assert decoders(values.assign(stage="nll"), "test") == {cell: "learned"}
    assert decoders(values[values["seed"] == 1], "learned") == {cell: "learned"}


def test_a_curve_of_an_earlier_version_has_no_number_of_the_fixed_decoder(tmp_path: Path) -> None:
    results = written(tmp_path, [{}], curve=CURVE)
    assert learning_curve_table(results)["nelbo_fixed"].isna().all()
    assert "nelbo_fixed" not in set(results.values.query("stage == 'curve'")["metric"])
    assert decoders(results.values, "validation") == {}


def test_tails_of_likelihoods_are_left_out_and_counted(tmp_path: Path) -> None:
    """One image in ten has an NLL far beyond its NELBO: it moves the mean, but neither the median nor the trimmed mean."""
    results = written(tmp_path, [{}, {"seed": 1}])
    nll = np.array([2.0] * 8 + [1.9, 50.0])
    image = pd.DataFrame({"nll": nll, "nll_fixed": nll + 0.5, "nelbo": 2.0}).assign(
        stage="nll", seed=0, **CELL_OF_DDPMPP
    )
    images = pd.concat([image, image.assign(seed=1, nelbo=60.0)])
    (row,) = records(nll_table(replace(results, images=images), PUBLISHED, {}))
    assert (row["nll_median"], row["nll_trimmed"], row["nll_fixed_median"]) == pytest.approx((2.0, 2.0, 2.5))
    assert row["nll_beyond"] == pytest.approx(0.5)


def test_known_densities_have_means_by_density_and_length(tmp_path: Path) -> None:
    (row,) = records(toy2d_table(written(tmp_path, [{}], toy2d=TOY2D + "indm,,2,100,1e6,,,,,\n")))
    assert (row["dataset"], row["model"], row["seeds"]) == ("moons-long", "indm", 3)
    assert (row["gap"], row["nelbo_excess"], row["energy_8"]) == pytest.approx((0.1, 0.6, 50))


def test_every_number_is_a_value_with_its_source(tmp_path: Path) -> None:
    results = written(tmp_path, [{"seed": 3}], sweep=SWEEP, curve=CURVE, toy2d=TOY2D)
    values = results.values
    name = first(results)
    assert not values.duplicated([*RUN_KEY, "stage", "metric", "sampler", "x"]).any()
    assert values["value"].notna().all()
    (swept,) = records(values.query("stage == 'sweep' and metric == 'fid'"))
    assert (swept["x"], swept["value"], swept["se"], swept["sampler"]) == (4.0, 20.0, 1.0, "ode_heun")
    assert values["sound"].notna().tolist() == [
        row["stage"] == "sweep" or row["metric"] == "energy" for row in records(values)
    ]
    assert swept["source"] == f"runs/{name}/sweep.csv"
    assert values.query("stage == 'curve' and metric == 'gap' and x == 20")["value"].tolist() == [0.1]
    assert values.query("stage == 'toy2d' and metric == 'energy' and x == 8")["value"].tolist() == [40.0, 60.0]
    (drawn,) = records(values.query("stage == 'fid' and metric == 'kid'"))
    assert (drawn["sampler"], drawn["x"], drawn["value"], drawn["se"]) == ("ancestral", 100, 0.1, 0.01)
    assert set(values.loc[values["stage"] == "nll", "metric"]) == set(LIKELIHOODS)
    assert set(values.loc[values["stage"] == "train", "metric"]) == {"score_parameters", "flow_parameters", "steps"}


@pytest.mark.parametrize("row", [SWEEP.splitlines()[1], SWEEP.splitlines()[1].replace("20.0", "30.0")])
def test_a_row_that_stands_twice_is_refused(tmp_path: Path, row: str) -> None:
    results = written(tmp_path, [{}], sweep=f"{SWEEP}{row}\n")
    with pytest.raises(ArtifactError, match=r"sweep\.csv.*ode_heun, 4\.0"):
        records(results.values)


def test_likelihoods_of_each_image_are_collected(tmp_path: Path) -> None:
    """Those of the runs and of their snapshots; of a run that has a likelihood they must be there."""
    name = first(written(tmp_path, [{"seed": 3, "nll": 2.0}], curve=CURVE))
    file = Layout(tmp_path, "s").run(name) / "curve_images.csv"
    identity = CELL_OF_DDPMPP | {"seed": 3}
    file.unlink()
    with pytest.raises(ArtifactError, match=r"curve_images\.csv"):
        collected(tmp_path, {name: identity}, curve=[name])
    file.write_text(CURVE_IMAGES)
    table = collected(tmp_path, {name: identity}, curve=[name]).images
    assert (table[list(identity)] == pd.Series(identity)).all(axis=None)
    assert table["stage"].tolist() == ["nll"] * 2 + ["curve"] * 4
    assert table["image"].tolist() == [0, 1] * 3
    assert table["x"].fillna(0).tolist() == [0, 0, 10, 10, 20, 20]
    assert table["nll"].tolist() == [1.5, 2.5, 2.4, 2.6, 2.3, 2.5]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("nll.json", '"nll": 2.0', '"nll": 1.9', r"nll\.json: found nll 1\.9, expected 2 from the images in nll\.csv"),
        ("nll.json", '"gap_se": 0.5', '"gap_se": 0.4', r"nll\.json: found gap_se 0\.4, expected 0\.5 from the images"),
        ("nll.json", '"images": 2', '"images": 3', r"nll\.json: found images 3, expected 2 from the images in nll"),
        ("curve.csv", ",0.5,0.01,", ",0.4,0.01,", r"curve\.csv: found gap 0\.4, expected 0\.5 from the images in"),
        ("curve_images.csv", "20,", "30,", r"curve\.csv: found images 2, expected 0 from the images in curve_images"),
    ],
)
def test_means_that_are_not_those_of_the_images_are_refused(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    """Else the tables, which show means, and the verdicts, which are of images, would contradict each other."""
    run = first(written(tmp_path, [{"nll": 2.0}], curve=CURVE))
    path = Layout(tmp_path, "s").run(run) / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        collected(tmp_path, {run: CELL_OF_DDPMPP | {"seed": 0}}, curve=[run])


def ablation(folder: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return records(ablation_table(written(folder, runs)))


def test_ablation_is_paired_by_seed(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [{"seed": seed, "nelbo": 1.0 + seed} for seed in range(3)]
    runs += [{"model": "indm", "seed": seed, "nelbo": 0.8 + seed} for seed in (1, 2, 5)]
    baseline, indm = ablation(tmp_path, runs)
    assert np.isnan(baseline["nelbo_difference"])
    # Seed 5 has no partner.
    assert (indm["seeds"], indm["nelbo_difference"]) == (3, pytest.approx(-0.2))
    assert indm["nelbo_difference_se"] == pytest.approx(0.0)


def test_fids_of_other_numbers_of_images_are_not_subtracted(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [{"seed": seed} for seed in range(2)]
    runs += [{"model": "indm", "seed": seed, "fid": 8.0, "nll": 0.9} for seed in range(2)]
    runs += [{"model": "indm", "variant": "few", "seed": seed, "num_samples": 500, "nll": 0.9} for seed in range(2)]
    baseline, indm, few = ablation(tmp_path, runs)
    assert (baseline["skip"], indm["skip"]) == ("", "")
    assert indm["log_fid_difference"] == pytest.approx(np.log(8.0 / 10.0))
    assert few["skip"] == "log_fid_difference: FID is of 500 images, ddpmpp's of 1000"
    assert np.isnan([few["log_fid_difference"], few["log_fid_difference_se"]]).all()
    assert (few["pairs"], few["fid"], few["nll_difference"]) == (2, 10.0, pytest.approx(-0.1))


def test_costs_are_absent_where_no_execution_is_known() -> None:
    cell = dict.fromkeys(CELL, "") | {"dataset": "digits"}
    train = {"steps": 100, "score_parameters": 10, "flow_parameters": 0}
    samples = {"nfe": 50, "num_samples": 500}
    known = {"processor_seconds": 2.0, "seconds": 9.0, "peak_memory_mib": 300.0, "machine": "m"}
    (row,) = records(
        compute_table("s", {"a": cell}, {"a": train}, {"a": samples}, {"a": {"train": known, "sample": {}}})
    )
    assert (row["ms_per_step"], row["train_peak_memory_mib"], row["machine"]) == (20.0, 300.0, "m")
    assert (row["score_parameters"], row["flow_parameters"], row["nfe"]) == (10, 0, 50)
    assert np.isnan([row["seconds_per_1000_samples"], row["train_flops_per_step"]]).all()


@pytest.mark.parametrize(
    ("records_of_jobs", "expected"),
    [
        # A training whose machine was suspended for hours, and one that was continued.
        ([{"processor_seconds": value, "seconds": 9.0} for value in (2.0, 2.2, 2.4, None)], 22.0),
        ([{"processor_seconds": 2.0, "seconds": value} for value in (2.0, 9000.0, 3.0)], 20.0),
        ([{"processor_seconds": 1.0, "seconds": value, "device": "cuda (GPU)"} for value in (2.0, 3.0, 70.0)], 30.0),
        # A record of an earlier version: its wall time may be the cost of other work.
        ([{"seconds": 2.0}], np.nan),
    ],
)
def test_times_are_medians_of_processor_time(records_of_jobs: list[dict[str, Any]], expected: float) -> None:
    names = [str(seed) for seed in range(len(records_of_jobs))]
    cell = dict.fromkeys(CELL, "") | {"dataset": "digits"}
    train = {"steps": 100, "score_parameters": 10, "flow_parameters": 0}
    jobs = {name: {"train": record, "sample": record} for name, record in zip(names, records_of_jobs, strict=True)}
    runs, samples = dict.fromkeys(names, cell), {name: {"nfe": 50, "num_samples": 1000} for name in names}
    (row,) = records(compute_table("s", runs, dict.fromkeys(names, train), samples, jobs))
    assert row["ms_per_step"] == pytest.approx(expected, nan_ok=True)
    assert row["seconds_per_1000_samples"] == pytest.approx(expected / 10, nan_ok=True)


def compared(folder: Path, runs: list[dict[str, Any]]) -> pd.DataFrame:
    results = written(folder, runs)
    fid, nll = fid_table(results, PUBLISHED), nll_table(results, PUBLISHED, {})
    return comparison_table("s", fid, nll, results.values, PUBLISHED)


def test_every_published_number_is_compared_or_shown_absent(tmp_path: Path) -> None:
    table = compared(tmp_path, [{}])
    assert list(table) == COMPARISON_COLUMNS
    ours = PUBLISHED[PUBLISHED["model"].isin(["ddpmpp", "indm"])]
    assert table["published"].tolist() == ours["value"].astype(float).tolist()
    assert table[["ours", "difference"]].isna().all(axis=None)
    assert set(table["verdict"]) == {"not comparable"}
    assert table["protocol_differences"].iloc[2] == "dataset: ours digits, published cifar10"


def test_numbers_of_other_models_stand_beside_our_lowest_on_the_same_dataset(tmp_path: Path) -> None:
    runs = [{"dataset": "fashion-mnist", "nll": nll, "model": model} for model, nll in (("ddpmpp", 3.4), ("indm", 3.3))]
    table = compared(tmp_path, runs)
    rows = table[table["verdict"] == "context"]
    assert set(rows["dataset"]) == {"fashion-mnist"}
    hclt = rows[rows["model"] == "hclt"].iloc[0]
    assert (hclt["published"], hclt["ours"]) == (3.34, 3.3)
    assert hclt["difference"] == pytest.approx(-0.04)
    assert hclt["protocol_differences"].startswith("model: ours INDM, VP, fid, the lowest; images: ours ")
    assert hclt["protocol_differences"].endswith("likelihood: ours of dequantised images, published by its note")


@pytest.mark.parametrize("empty", ["fid", "nll"])
def test_a_suite_without_one_kind_of_number_is_compared(tmp_path: Path, empty: str) -> None:
    """An empty table has no types, so no number is asked of its columns."""
    results = written(tmp_path, [{"dataset": "fashion-mnist", "nll": 3.4}])
    tables = {"fid": fid_table(results, PUBLISHED), "nll": nll_table(results, PUBLISHED, {})}
    tables[empty] = pd.DataFrame(columns=tables[empty].columns)
    table = comparison_table("s", tables["fid"], tables["nll"], results.values, PUBLISHED)
    assert (table.loc[table["ours"].notna(), "metric"] == "nll").all()


VP = {"dataset": "cifar10", "parameters": 61_804_419, "num_samples": 50_000}


@pytest.mark.parametrize(
    ("run", "verdict", "words"),
    [
        (VP | {"fid": 2.6}, "agrees (95 % over images)", "implementation: ours torch-fidelity, published TF-GAN"),
        (VP | {"fid": 2.55 + 0.97}, "agrees (95 % over images)", ""),
        (VP | {"fid": 2.55 + 0.99}, "worse (95 % over images)", ""),
        (VP | {"fid": 2.55 - 0.99}, "better (95 % over images)", ""),
        (VP | {"parameters": 1000}, "not comparable", "parameters: ours 1000, published 61804419"),
        (VP | {"num_samples": 1000}, "not comparable", "images: ours 1000, published 50000"),
    ],
)
def test_a_comparison_needs_the_published_protocol(
    tmp_path: Path, run: dict[str, Any], verdict: str, words: str
) -> None:
    table = compared(tmp_path, [run])
    keys = {"model": "ddpmpp", "sde": "vp", "metric": "fid", "published": 2.55}
    (row,) = records(table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])])
    assert row["verdict"] == verdict
    assert words in row["protocol_differences"]
    assert row["difference"] == pytest.approx(run.get("fid", 10.0) - 2.55)


def test_a_fid_from_another_extractor_is_never_set_against_a_published_one(tmp_path: Path) -> None:
    """They share no scale: there is no difference, and our number is no context for other models."""
    table = compared(tmp_path, [VP | {"extractor": "cifar10-cnn"}])
    images = table[(table["metric"] != "nll") & table["ours"].notna()]
    assert len(images)
    assert set(images["model"]) == {"ddpmpp"}
    assert set(images["verdict"]) == {"not comparable"}
    assert images["protocol_differences"].str.contains("extractor: ours cifar10-cnn, published").all()
    assert images["difference"].isna().all()


@pytest.mark.parametrize(
    ("seeds", "errors", "verdict"),
    [
        (2, 12.6, "agrees (95 % over seeds)"),
        (2, 12.8, "worse (95 % over seeds)"),
        (3, 4.29, "agrees (95 % over seeds)"),
        (3, -4.31, "better (95 % over seeds)"),
        (11, 2.22, "agrees (95 % over seeds)"),
        (11, 2.24, "worse (95 % over seeds)"),
    ],
)
def test_a_comparison_over_seeds_has_students_interval(tmp_path: Path, seeds: int, errors: float, verdict: str) -> None:
    """So many standard errors from the published number; the quantiles are 12.71, 4.30 and 2.23."""
    fids = np.arange(seeds) * 0.1
    mean = 2.55 + errors * fids.std(ddof=1) / seeds**0.5
    runs = [VP | {"seed": seed, "fid": mean + fid - fids.mean()} for seed, fid in enumerate(fids)]
    table = compared(tmp_path, runs)
    (row,) = records(table[(table["published"] == 2.55) & (table["sde"] == "vp") & (table["metric"] == "fid")])
    assert (row["seeds"], row["verdict"]) == (seeds, verdict)


def test_other_models_are_context_and_stand_last(tmp_path: Path) -> None:
    """They are what a reader wants to know beside the comparison; that we did not measure them goes without saying."""
    table = compared(tmp_path, [VP])
    context = table["verdict"] == "context"
    assert set(table["model"][context]) >= {"vdm", "mulan", "flow-matching", "scoreflow", "lsgm"}
    assert set(table["model"][~context]) == {"indm", "ddpmpp"}
    assert table["note"][context].str.startswith("context: ").all()
    assert not table["note"][~context].str.startswith("context").any()
    assert table["protocol_differences"][context].str.startswith("model: ours DDPM++").all()
    assert context.is_monotonic_increasing


def published(**keys: str) -> list[dict[str, Any]]:
    return records(PUBLISHED[np.logical_and.reduce([PUBLISHED[key] == value for key, value in keys.items()])])


def test_published_numbers_are_those_of_their_sources() -> None:
    """DiffiT's table 2 has INDM's bits/dim among its FIDs, and another FID of LSGM than LSGM's own abstract."""
    assert not re.search("diffit|2312.02139", PUBLISHED.to_csv(), flags=re.IGNORECASE)
    assert [row["value"] for row in published(model="lsgm", metric="fid")] == ["2.10"]
    assert "3.09" not in {row["value"] for row in published(model="indm", metric="fid")}
    assert [row["value"] for row in published(model="ddpmpp", variant="soft-truncation", dataset="cifar10")] == ["3.03"]


def test_a_number_of_no_named_sde_is_set_beside_each(tmp_path: Path) -> None:
    cell = VP | {"model": "indm"}
    table = compared(tmp_path, [cell, cell | {"sde": "ve"}])
    rows = table[table["published"] == 2.28]
    assert rows["sde"].tolist() == ["vp", "ve"]
    assert rows["protocol_differences"].str.contains("sde: ours v., published not stated").all()
    assert (rows["verdict"] == "not comparable").all()


def test_foreign_published_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with pytest.raises(ParamsError, match=r"published\.csv"):
        read_published(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ParamsError, match="columns"):
        read_published(path)


ROW = ["cifar10", "indm", "vp", "nll", "", "nll", "", "2.97", "a paper", "table 1", "", "", "", "10000", "", "260000"]


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("metric", "kid"),
        ("value", "nan"),
        ("value", "about 3"),
        ("num_samples", "0"),
        ("steps", "1e5"),
        ("sampler", "ODE"),
    ],
)
def test_a_published_number_that_is_none_is_refused(tmp_path: Path, column: str, found: str) -> None:
    path = write_published_numbers(tmp_path, [dict(zip(PUBLISHED_COLUMNS, ROW, strict=True)) | {column: found}])
    with pytest.raises(ParamsError, match=rf"^{path}: line 2, column {column}: found '{found}'[^\n]*$"):
        read_published(path)


def test_a_number_published_twice_and_a_row_of_too_few_cells_are_refused(tmp_path: Path) -> None:
    row = dict(zip(PUBLISHED_COLUMNS, ROW, strict=True))
    path = write_published_numbers(
        tmp_path, [row, row | {"sampler": "ode"}, row | {"value": "3.0", "source": "another"}]
    )
    path.write_text(path.read_text() + "cifar10,indm\n")
    with pytest.raises(ParamsError) as caught:
        read_published(path)
    assert str(caught.value).splitlines() == [
        f"{path}: line 4: found the number of line 2 again (cifar10, indm, vp, nll, nll), expected it once",
        f"{path}: line 5: found 2 cells, expected 16, one per column",
    ]


def write_published_numbers(folder: Path, rows: list[dict[str, str]]) -> Path:
    pd.DataFrame(rows, columns=PUBLISHED_COLUMNS).to_csv(folder / "published.csv", index=False)
    return folder / "published.csv"


def test_a_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(tmp_path: Path) -> None:
    texts = ["=1+1", "+cmd", "-cmd", "@SUM(1)", "\tx", "-1.5", "+2e3", "a = b", ""]
    write_published(tmp_path / "claims.csv", pd.DataFrame({"statement": texts, "effect": [-1.5] * len(texts)}))
    table = read_texts(tmp_path / "claims.csv", "statement")
    assert list(table["statement"]) == ["'=1+1", "'+cmd", "'-cmd", "'@SUM(1)", "'\tx", "-1.5", "+2e3", "a = b", ""]
    assert set(table["effect"]) == {"-1.5"}
    with pytest.raises(ArtifactError, match=r"claims\.csv.*column grade"):
        read_texts(tmp_path / "claims.csv", "grade")
