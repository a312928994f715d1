"""The pages of docs/extending, and docs/tutorial.md: each is followed to the letter in a copy of the checkout.

A page, or a section of it, is a program. A fenced block whose fence names a path becomes that file; ``sh`` is run, and must
end well; ``diff`` is a part of the program's patch, which its commands apply; ``text`` is printed by the command before it.
"""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names, lasting_inputs
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.report.numbers import FILES, IMAGE_COLUMNS, OF_IMAGES, VALUE_COLUMNS
from indm.report.rows import KINDS, Kind
from indm.report.tables import FID_COLUMNS, NLL_COLUMNS
from indm.store.files import CHECKPOINT_FORMAT, read_json, read_weights, write_json, write_table
from indm.store.layout import Layout
from indm.store.manifest import content_sha256
from tests.checkout import REPOSITORY, copy_checkout, run

pytestmark = pytest.mark.long

PAGES = sorted(path.stem for path in (REPOSITORY / "docs/extending").glob("*.md") if path.stem != "README")
# By name, the page and the headings of its sections.
PROGRAMS = {
    "parts": ("README", "A network, SDE, flow or sampler"),
    "dataset": ("dataset", "Add a dataset", "A folder of PNG files"),
    "family": ("family", "Bring your own forward process"),
    "suite": ("suite", "Add a suite"),
    "claim": ("suite", "Add a claim"),
    "metric": ("README", "Add a metric"),
    "table": ("README", "Add a table"),
    "stage": ("README", "Add a stage"),
}
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<path>\S+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    """Return the parts of a page, each from a heading of the first or the second level to the next, by their headings."""
    text = page.read_text()
    # In blocks, comments look like headings.
    found = re.finditer(r"^```.*?^```$|^##? ([^\n]+)$", text, flags=re.MULTILINE | re.DOTALL)
    headings = [heading for heading in found if heading[1]]
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {heading[1]: text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}


def follow(checkout: Path, text: str, patch: Path) -> None:
    """Do what a text says, block by block."""
    printed = ""
    for block in BLOCK.finditer(text):
        if block["path"]:
            (checkout / block["path"]).write_text(block["body"])
        elif block["kind"] == "diff":
            assert block["body"] in patch.read_text()
        elif block["kind"] == "sh":
            done = run(checkout, "bash", "-euo", "pipefail", "-c", block["body"])
            assert done.returncode == 0, f"{block['body']}{done.stdout}{done.stderr}"
            printed = done.stdout
        elif block["kind"] == "text":
            assert exact_lines(block["body"]) <= exact_lines(printed)
        else:
            raise ValueError(f"found a block of kind {block['kind']}; expected diff, sh, text, or a file's path")


def exact_lines(output: str) -> set[str]:
    """Return the lines of an output which are the same on every machine: those without a decimal."""
    return {" ".join(line.split()) for line in output.splitlines() if not re.search(r"\d\.\d", line)}


def make_up_values(checkout: Path) -> None:
    """Write the tables that stage claims reads, of made-up numbers: a gap that INDM halves, on five seeds."""
    # Both spreads, because equal differences of all seeds would be refused.
    cells = [("indm", 0.1, 0.0005), ("ddpmpp", 0.2, 0.0015)]
    same = {"suite": "smoke", "dataset": "digits", "sde": "vp", "variant": "", "objective": "nll"}
    same |= {"stage": "nll", "metric": "gap", "source": "made up"}
    rows = [
        same | {"model": model, "seed": seed, "value": gap + spread * seed**2}
        for model, gap, spread in cells
        for seed in range(5)
    ]
    numbers = {"nll": 1.0, "nll_uncorrected": 1.0, "nelbo": 1.0}
    images = [row | numbers | {"gap": row["value"], "image": image} for row in rows for image in range(3)]
    columns = {"values": VALUE_COLUMNS, "images": IMAGE_COLUMNS, "fid": FID_COLUMNS, "nll": NLL_COLUMNS}
    for pattern in STAGES["table"].written:
        path = checkout / pattern.format(suite="smoke")
        found = {"values": rows, "images": images}.get(path.stem, [])
        write_table(path, pd.DataFrame(found, columns=columns.get(path.stem, ["suite"])))
    suite = load_suite(REPOSITORY / "params/smoke.yaml")
    job = Job("table", "")
    made = {
        path: "0" * 64 if maker else content_sha256(checkout / path)
        for path, maker in lasting_inputs(suite, job).items()
    }
    InputCheck(suite, checkout / "results", checkout / "reports").record(job, made)


def make_up_results(checkout: Path) -> None:
    """Write the files of all jobs that the tables of a suite are made of, each number in them 1."""
    suite = load_suite(REPOSITORY / "params/smoke.yaml")
    checks = InputCheck(suite, checkout / "results", checkout / "reports")
    for job in (Job(name, subject) for name, stage in STAGES.items() for subject in stage.subjects(suite) if subject):
        for pattern in STAGES[job.stage].written:
            make_up_result(checkout / pattern.format(**job_names(suite, job)), job)
        checks.record(job, checks.check(job))


def make_up_result(path: Path, job: Job) -> None:
    """Write what a reader of the file requires; a file that no table is made of holds its name."""
    collected = {Path(file.format(job.subject)).name: stage for stage, file in FILES.items()} | dict(OF_IMAGES.values())
    if job.stage in FILES:
        # Files of two stages may have the same name.
        collected[Path(FILES[job.stage].format(job.subject)).name] = job.stage
    kind = KINDS.get(collected.get(path.name, ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind is None:
        path.write_text(path.name)
        return
    row: dict[str, Any] = {k: "complete" if v is Kind.TEXT else 1.0 for k, v in kind.items()}
    # One image has no standard error.
    row |= dict.fromkeys(key for key in row if key.endswith("_se") and kind[key] is not Kind.NUMBER)
    if path.suffix == ".json":
        write_json(path, row | {"run": job.subject, "floors": {}})
    else:
        write_table(path, pd.DataFrame([row]))


def claim_is_graded(checkout: Path) -> None:
    table = pd.read_csv(checkout / "results/smoke/tables/claims.csv").query("id == 'half-the-gap' and n > 0")
    assert list(table["verdict"]) == ["better"]


# Of a suite of the page, the class of what its first run is built of.
MODEL = """
import sys
from pathlib import Path
from typing import Any
from indm.diffusion.model import build_model
from indm.bench.suite.load import load_suite
from indm.bench.models.spec import model_spec
suite = load_suite(Path(f"params/{sys.argv[1]}.yaml"))
model = build_model(model_spec(suite, sys.argv[2], [1, 8, 8]))
print(*(type(part).__name__ for part in (model.sde, model.noise.network, model.flow)))
"""
RUN = "digits-vp-fading-nll-s0"
SAMPLER = """
from indm.report.names import name
from typing import get_args
from indm.fields import SamplerName, SweptName
print(name("ode_midpoint"), all("ode_midpoint" in get_args(names) for names in (SamplerName, SweptName)), sep="\\n")
"""
STAMPS = """
import json
from pathlib import Path
from typing import Any
from indm.bench.pipeline.stamps import suite_stamps
from indm.bench.suite.load import load_suite
print(json.dumps(dict(suite_stamps(load_suite(Path("params/digits.yaml"))))))
"""


def builds(suite: str, name: str, *classes: str) -> Callable[[Path], None]:
    """Check of which classes of SDE, network and flow the model of a run is."""

    def check(checkout: Path) -> None:
        done = run(checkout, "python", "-c", MODEL, suite, name)
        assert done.stdout.split() == [*classes], done.stderr

    return check


def family_is_trained(checkout: Path) -> None:
    """Its pixels have moved, its bound is a number, its NLL has a reason, readers see its label, and it took few lines."""
    builds("fading", RUN, "VP", "ScoreUNet", "Identity")(checkout)
    folder = Layout(checkout / "results", "fading").run(RUN)
    weights, _ = read_weights(folder / "checkpoint.safetensors", CHECKPOINT_FORMAT)
    assert weights["ema.flow.depths"].shape == (1, 8, 8)
    assert weights["ema.flow.depths"].any()
    numbers = read_json(folder / "nll.json")
    assert math.isfinite(numbers["nelbo"])
    assert (numbers["nll"], numbers["gap"]) == (None, None)
    assert numbers["no_ode"].startswith("its network predicts the drift")
    done = run(checkout, "python", "-c", "from indm.report.names import name; print(name('fading'))")
    assert done.stdout == "fading\n", done.stderr
    written = ("indm/diffusion/families/registered/fading.py", "tests/test_fading.py", "params/fading.yaml")
    lines = [line for path in written for line in (checkout / path).read_text().splitlines()]
    assert len([line for line in lines if line.strip()]) < 60


def table_is_shown(checkout: Path) -> None:
    done = run(checkout, "python", "-m", "indm", "show", "fid_range", "--suite", "params/smoke.yaml")
    assert done.stdout.startswith("fid_range: lowest and highest FID of the seeds\n\ndigits, VE, fid\n"), done.stderr
    table = pd.read_csv(checkout / "results/smoke/tables/fid_range.csv")
    assert table[["seeds", "lowest", "highest"]].to_numpy().tolist() == [[1, 1, 1]] * 7
    assert "results/${suite}/tables/fid_range.csv" in (checkout / "dvc.yaml").read_text()


def stage_is_a_stage(checkout: Path) -> None:
    """Its table has the distances of the suite's one cell, and the default suite's pipeline has the stage."""
    table = pd.read_csv(checkout / "results/near/tables/nearest.csv")
    assert table[["suite", "model", "seeds"]].to_numpy().tolist() == [["near", "ddpmpp", 1]]
    assert (table[["nearest", "nearest_test"]] > 0).all(axis=None)
    command = "python -m indm nearest --suite params/${suite}.yaml --out results"
    assert yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]["nearest"]["cmd"].endswith(command)


def suite_is_a_suite(checkout: Path) -> None:
    expanded = yaml.safe_load((checkout / "params/expanded/two-seeds.json").read_text())
    assert [*expanded["runs"]] == ["digits-vp-indm-fid-s0", "digits-vp-indm-fid-s1"]
    assert (checkout / "workflow/dvc/two-seeds/dvc.yaml").is_file()


def parts_are_used(checkout: Path) -> None:
    """The model is built of them, readers see the sampler's label, and claims can name it."""
    builds("parts", "digits-subvp-indm-nll-s0", "SubVP", "MirrorUNet", "ScaledResidualFlow")(checkout)
    done = run(checkout, "python", "-c", SAMPLER)
    assert done.stdout.split("\n") == ["ODE, midpoint", "True", ""], done.stderr


def stamps(checkout: Path) -> set[tuple[str, str]]:
    """Return the stamps of the code of every job of the default suite, each with its job's stage."""
    done = run(checkout, "python", "-c", STAMPS)
    assert done.returncode == 0, done.stderr
    return {(job.partition("/")[0], stamp) for job, stamp in json.loads(done.stdout).items()}


BEFORE: dict[str, Callable[[Path], None]] = {"claim": make_up_values, "table": make_up_results}
AFTER: dict[str, Callable[[Path], None]] = {
    "claim": claim_is_graded,
    "family": family_is_trained,
    "parts": parts_are_used,
    "stage": stage_is_a_stage,
    "suite": suite_is_a_suite,
    "table": table_is_shown,
}
# The stages that import the module of the tables, and the stages of other suites whose jobs run again after a program's edit.
GATHER = {"claims", "figure", "report", "table"}
RUN_AGAIN = {
    # A new member has facts and a name, which tables and the page read.
    "family": {"compute", *GATHER},
    "parts": {"compute", *GATHER},
    "metric": {"compute", "fid", "reference", "sweep", *GATHER},
    "stage": {"compute", "nearest", *GATHER},
    "table": {"compute", *GATHER},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_page_does_what_it_says(tmp_path: Path, name: str) -> None:
    checkout = copy_checkout(tmp_path)
    for folder in ("benchmarks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "e2e")
        shutil.copytree(REPOSITORY / folder, checkout / folder, ignore=ignored)
    BEFORE.get(name, lambda _: None)(checkout)
    code = stamps(checkout)
    page, *headings = PROGRAMS[name]
    found = sections(checkout / f"docs/extending/{page}.md")
    text = "".join(found[heading] for heading in headings)
    follow(checkout, text, checkout / f"docs/extending/code/{name}.patch")
    for command in (["ruff", "check", "--quiet"], ["ruff", "format", "--check", "--quiet", "--diff"]):
        done = run(checkout, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    AFTER.get(name, lambda _: None)(checkout)
    assert {stage for stage, _ in stamps(checkout) ^ code} == RUN_AGAIN.get(name, set())


# What makes the tutorial's suite shorter: its decimals are not compared.
SHORTER = {
    "steps: 200": "steps: 20",
    "steps: 504": "steps: 50",
    "protocol: {}\n": """protocol: {}
sample: {steps: 5, num_samples: 80, batch_size: 80}
fid: {kid_subsets: 5, kid_subset_size: 40, is_splits: 2, prc_images: 40, bootstrap: 5}
nll: {images: 16, batch_size: 16, time_draws: 5, ode_steps: 4}
""",
}


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text = (copy_checkout(tmp_path) / "docs/tutorial.md").read_text()
    for old, new in SHORTER.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    follow(tmp_path, text, tmp_path / "none.patch")


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs/extending/README.md").read_text()
    assert set(re.findall(r"\]\(([\w-]+)\.md[)#]", index)) == set(PAGES)


def test_every_block_of_a_page_is_in_a_program() -> None:
    """Else nothing would follow it."""
    for page in {page for page, *_ in PROGRAMS.values()}:
        followed = {heading for other, *headings in PROGRAMS.values() if other == page for heading in headings}
        found = sections(REPOSITORY / f"docs/extending/{page}.md")
        assert {heading for heading, text in found.items() if BLOCK.search(text)} == followed, page


@pytest.mark.parametrize("patch", sorted(path.name for path in (REPOSITORY / "docs/extending/code").glob("*.patch")))
def test_every_patch_fits_the_files_that_it_edits(patch: str) -> None:
    """In a second, where the pages themselves take minutes."""
    command = ["git", "apply", "--recount", "--check", f"docs/extending/code/{patch}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
