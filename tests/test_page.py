"""The page: every number from a file, every absence named, and what a reader does with it in a browser."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from docutils.core import publish_parts  # type: ignore[import-untyped]
from jinja2 import Environment
from playwright.sync_api import sync_playwright

from indm.bench.stages.report import contents
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite, suite_sha256
from indm.errors import ArtifactError
from indm.metrics.weights import TORCH_FIDELITY
from indm.registry import DATASETS
from indm.report.answers import OPENINGS, SUBJECT, conclusion, counted, elsewhere, kinds_of, read_answers, tally
from indm.report.differences import CONTROL
from indm.report.figures import FIGURES, plot_figures
from indm.report.grades import MEANINGS
from indm.report.matrix import InFile
from indm.report.multiples import read_multiples
from indm.report.page import contents as page_contents
from indm.report.page.caveats import caveats
from indm.report.page.contents import missing, read_records
from indm.report.page.document import arms_of, rows_of
from indm.report.page.entries import set_numbers
from indm.report.page.means import ARMS, FEW, OF_IMAGES, read_means
from indm.report.page.pictures import read_figures
from indm.report.page.render import render, render_headline
from indm.report.page.tables import Table, read_table
from indm.report.plotting import DARK, INK, PAPER
from indm.report.published import PAPER_BATCH, PAPER_DATASETS, PAPER_IMAGES, PAPER_STEPS, PUBLISHED_WEIGHTS
from indm.store.files import write_json
from indm.store.layout import TRAINING_PICTURES
from tests.conftest import REPOSITORY
from tests.made_up import CONTENTS, RUNS, SUITE, made_up_record, numbers, write_made_up_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
# As root in a container, and without a word to the network.
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


class Reader(HTMLParser):
    """Collects what the tests look at: the elements, and the numbers of ``data-value`` with their texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.numbers: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self._value: str | None = None
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.elements.append((tag, attributes))
        self._value = attributes.get("data-value")
        if tag in ("td", "th"):
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")
        self._value = None

    def handle_data(self, data: str) -> None:
        if self._value is not None:
            self.numbers.append((self._value, data))
        elif self._in_cell:
            self.cells[-1] += data


def make_page(root: Path) -> str:
    """Draw the figures of the results below ``root`` and render the page."""
    results, figures = root / "results" / SUITE, root / "figures"
    figures.mkdir(exist_ok=True)
    for figure, svg in plot_figures(results / "tables").items():
        (figures / f"{figure}.svg").write_bytes(svg)
    return render(CONTENTS, results, figures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    write_made_up_results(root / "results")
    (root / "index.html").write_text(make_page(root))
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> Reader:
    return Reader((folder / "index.html").read_text())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Made-up results that a test changes."""
    return write_made_up_results(tmp_path / "results")


def rendered(results: Path) -> str:
    """The page of results, without figures but for those that a test draws."""
    return render(CONTENTS, results, results.parents[1] / "figures")


def test_every_number_is_in_a_file_of_results_and_rounded_from_it(folder: Path, page: Reader) -> None:
    known = numbers(folder / "results")
    assert len(page.numbers) > 500
    for value, text in page.numbers:
        assert float(value) in known, value
        shown = text.replace("−", "-").replace(",", "")
        digits = len(shown.partition(".")[2]) if "e" not in shown else 0
        tolerance = 0.5 * 10.0**-digits if "e" not in shown else 0.005 * abs(float(value))
        assert abs(float(shown) - float(value)) <= tolerance * 1.0001, (value, text)


def test_no_cell_holds_a_number_without_its_file(page: Reader) -> None:
    """Whatever of a cell is not marked is text; digits are the made-up commit, and a setting of the protocol by its name."""
    bare = {
        text.strip() for text in page.cells if text.replace("±", "").strip().lstrip("-−").replace(".", "").isdigit()
    }
    assert {text for text in bare if len(text) != 10} <= {"250"}


def test_the_page_asks_nothing_of_the_network(page: Reader) -> None:
    for tag, attributes in page.elements:
        for key in ("src", "srcset", "poster", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes[key][:80])
        if tag == "link":
            assert attributes["href"] == "data:,"
        assert tag not in ("iframe", "object", "embed", "base")
        assert "url(" not in attributes.get("style", "") or "url(#" in attributes["style"]


def test_headings_are_in_order_and_identifiers_unique(page: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = [
        attributes["href"][1:] for tag, attributes in page.elements if attributes.get("href", "").startswith("#")
    ]
    assert set(targets) <= set(identifiers)


def test_tables_have_captions_and_scopes_and_pictures_have_texts(page: Reader) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") == 19
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.elements if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert tags.count("img") == 3 * len(RUNS) + len(FIGURES)


def claims_of(folder: Path) -> Path:
    return folder / "results" / SUITE / "tables/claims.csv"


def test_each_verdict_has_its_interval_once(folder: Path) -> None:
    """In the table of main claims, with comparisons as columns; further controls have a table of their own."""
    html = (folder / "index.html").read_text()
    main = [answer for answer in read_answers(claims_of(folder)) if answer.is_primary]
    shown = [one for answer in main for (one,) in answer.cells.values()]
    for name, are_controls in (("answers", False), ("controls", True)):
        table = html.split(f'<table id="table-{name}"')[1].split("</table>")[0]
        found = [one for one in shown if (one.kind == CONTROL) == are_controls]
        words = [one.verdict.replace(" ", "-") for one in found if one.planned]
        assert re.findall(r"grade grade-([a-z-]+)", table) == words
        ends = [end for one in found for end in (one.effect, one.low, one.high) if one.measured]
        assert [float(value) for value, _ in Reader(table).numbers] == ends
        assert re.findall('<th scope="col">([^<]+)', table) == [
            "claim",
            "where",
            *kinds_of(main, are_controls).values(),
        ]
    assert kinds_of(main, controls=True) == {"ddpmpp learned-scale": "learned scale"}
    assert html.count("</span>: not run</td>") == 1
    assert "failed seeds: 0, of the other model 1" in html


def test_densities_of_a_claim_and_length_are_counted_by_verdict(folder: Path, tmp_path: Path) -> None:
    claims = pd.read_csv(claims_of(folder), dtype=str)
    known = claims[claims["sde"].isna()]
    others = [
        known.assign(dataset="rings-long", verdict="undecided"),
        known.assign(dataset="steep-long", effect=None),
        known.assign(dataset="moons-short"),
    ]
    pd.concat([known, *others]).to_csv(tmp_path / "claims.csv", index=False)
    long, short = counted(read_answers(tmp_path / "claims.csv"))
    assert [len(long.cells["equal steps"]), len(short.cells["equal steps"])] == [3, 1]
    # One was not measured.
    assert tally(long.cells["equal steps"]) == {known["verdict"].iloc[0]: 1, "undecided": 1}


def test_the_headline_counts_the_verdicts_of_indm_over_each_kind_of_model(folder: Path) -> None:
    claims = pd.read_csv(claims_of(folder), dtype=str)
    claims = claims[(claims["family"] == "primary") & claims["comparison"].isin(OPENINGS)]
    ours = claims[claims["effect"].notna() & claims["treatment"].eq("indm")]
    sentences = conclusion(read_answers(claims_of(folder)))
    asked = [ours[ours["comparison"] == kind] for kind in OPENINGS]
    assert [sentence.partition(",")[0] for sentence in sentences] == [
        opening for opening, part in zip(OPENINGS.values(), asked, strict=True) if len(part)
    ]
    for sentence, part in zip(sentences, filter(len, asked), strict=True):
        undecided = int((part["verdict"] == "undecided").sum())
        assert (SUBJECT in sentence) == (undecided < len(part))
        assert f"{len(part)} main questions" in sentence or len(part) <= 2


def test_the_headline_tells_main_claims_about_other_models_too() -> None:
    published = REPOSITORY / "docs/results"
    ours, others = conclusion(read_answers(published / "cifar10-maps/tables/claims.csv"))[2:]
    assert SUBJECT in ours
    assert others.endswith("fixed filter over DDPM++, better; fixed filter over learned curve and filter, undecided.")
    claims = pd.read_csv(published / "rivals/tables/claims.csv")
    mulan = claims[(claims["treatment"] == "mulan") & (claims["family"] == "primary") & claims["effect"].notna()]
    worse, undecided = ((mulan["verdict"] == word).sum() for word in ("worse", "undecided"))
    last = conclusion(read_answers(published / "rivals/tables/claims.csv"))[-1]
    assert f"MuLAN over DDPM++, worse in {worse}, " in last
    assert f"undecided in {undecided}; " in last


def test_a_longer_published_suite_stands_beside_the_claim_and_a_shorter_one_does_not(
    folder: Path, tmp_path: Path
) -> None:
    claims = pd.read_csv(claims_of(folder), dtype=str)
    first = claims[claims["family"] == "primary"].iloc[:1]
    suites = [
        first.assign(suite="longer", n="60", effect="-0.125"),
        first.assign(suite="shorter", n="1"),
        first.assign(suite="elsewhere", n="60", sde="ve"),
    ]
    pd.concat(suites).to_csv(tmp_path / "evidence.csv", index=False)
    answers = read_answers(claims_of(folder), tmp_path / "evidence.csv")
    assert [[*answer.evidence] for answer in answers] == [["longer"], *[[]] * (len(answers) - 1)]
    assert answers[0].evidence["longer"]["equal steps"][0].effect == -0.125
    assert [*elsewhere(answers)] == ["longer"]
    html = render(CONTENTS, folder / "results" / SUITE, folder / "figures", tmp_path / "evidence.csv")
    assert "<strong>longer</strong>" in html.split("<main")[0]
    assert "-0.125" in [value for value, _ in Reader(html).numbers]


def test_controls_that_were_not_run_have_no_column(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(claims_of(folder), dtype=str)
    rows.assign(planned=rows["planned"].mask(rows["comparison"] == CONTROL, "0")).to_csv(tmp_path / "claims.csv")
    answers = read_answers(tmp_path / "claims.csv")
    assert [*kinds_of(answers)] == ["equal steps", "equal compute", "simple control"]
    assert not kinds_of(answers, controls=True)


def test_means_are_those_of_the_tables_in_the_claims_decoder(folder: Path, tmp_path: Path) -> None:
    tables = folder / "results" / SUITE / "tables"
    means = read_means(tables)
    assert [*means] == ["digits, VE", "digits, VP"]
    assert [row.label for row in means["digits, VP"]] == [*OF_IMAGES, FEW]
    shutil.copytree(tables, tmp_path / "tables")
    nll = pd.read_csv(tables / "nll.csv")
    nll.assign(decoder="fixed", nelbo_fixed=1.25, nelbo_fixed_se=0.5).to_csv(tmp_path / "tables/nll.csv", index=False)
    nelbo, *_ = read_means(tmp_path / "tables")["digits, VP"]
    assert {cell: entry.value for cell, entry in zip(ARMS, nelbo.entries, strict=True)} == {
        ("ddpmpp", ""): 1.25,
        ("ddpmpp", "fixed-filter"): None,
        ("ddpmpp", "learned-curve-filter"): None,
        ("indm", ""): 1.25,
        ("ddpmpp", "same-compute"): 1.25,
    }
    assert arms_of([nelbo]) == ["DDPM++", "INDM", "DDPM++ at INDM’s compute"]
    assert [len(row) for row in rows_of([nelbo], InFile())] == [4]
    at = (nll["sde"] == "vp") & (nll["objective"] == "nll") & (nll["model"] == "indm")
    assert means["digits, VP"][0].entries[[*ARMS].index(("indm", ""))].value == nll[at]["nelbo"].iloc[0]


def test_without_images_the_lowest_means_on_densities_are_counted(tmp_path: Path) -> None:
    cells = [("ddpmpp", ""), ("indm", ""), ("ddpmpp", "same-compute"), ("ddpmpp", "best-scale")]
    excess = {"moons-long": (3, 2, 1, 0), "rings-long": (3, 1, 2, 0), "steep-long": (1, None, None, 0)}
    rows = [
        {"dataset": dataset, "sde": "", "model": model, "variant": variant, "nelbo_excess": number}
        for dataset, numbers in excess.items()
        for (model, variant), number in zip(cells, numbers, strict=True)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "toy2d.csv", index=False)
    ((bound,),) = read_means(tmp_path).values()
    assert [entry.text for entry in bound.entries if entry.text] == ["0 of 2", "1 of 2", "1 of 2"]


def test_the_description_of_snakemakes_report_has_the_answer_too(folder: Path) -> None:
    """Set as Snakemake sets it: workflow/report/workflow.rst, by Jinja and docutils."""
    tables = folder / "results" / SUITE / "tables"
    config = {"suite": SUITE, "headline": lambda: render_headline(tables)}
    rst = (REPOSITORY / "workflow/report/workflow.rst").read_text()
    text = Environment().from_string(rst).render(snakemake=SimpleNamespace(config=config))
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    answer = (folder / "index.html").read_text().partition('<div class="lead">')[2].partition("</div>")[0].strip()
    assert "better in" in answer
    assert answer in html


def test_downloads_hold_the_files_and_the_tables(folder: Path, page: Reader) -> None:
    links = {attributes["download"]: attributes["href"] for _, attributes in page.elements if "download" in attributes}
    for name in ("fid.csv", "claims.csv", "values.csv"):
        assert read_data(links[name]) == (folder / "results" / SUITE / "tables" / name).read_bytes()
    assert "| DDPM++" in read_data(links["fid.md"]).decode()
    latex = read_data(links["fid.tex"]).decode()
    assert r"\toprule" in latex
    assert r"$\pm$" in latex


def test_a_page_of_many_runs_leaves_single_runs_to_files(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows for each job and pictures of each seed would make it as large as the suite; each cell keeps its first seed."""
    monkeypatch.setattr(page_contents, "MOST_RUNS", len(RUNS))
    few = rendered(results)
    monkeypatch.setattr(page_contents, "MOST_RUNS", len(RUNS) - 1)
    many = rendered(results)
    assert "seed 1</figcaption>" in few
    assert many.count("seed 0</figcaption>") == few.count("seed 0</figcaption>")
    assert "seed 1</figcaption>" not in many
    assert 'id="table-provenance"' in few
    assert 'id="table-provenance"' not in many
    for html in (few, many):
        links = {found["download"]: found["href"] for _, found in Reader(html).elements if "download" in found}
        rows = list(csv.DictReader(io.StringIO(read_data(links["executions.csv"]).decode())))
        assert len(rows) == 4 * len(RUNS)
        assert {(row["subject"], row["stage"]) for row in rows} == {
            (f"runs/{run}", stage) for run in RUNS for stage in ("train", "sample", "fid", "nll")
        }
        assert {float(row["seconds"]) for row in rows} <= numbers(results)
    assert all(run in many for run in RUNS)


def test_multiples_stand_on_the_page_where_a_longer_training_gives_them(results: Path) -> None:
    html = rendered(results)
    assert ("Multiples of training" in html) == bool(read_multiples(results / "tables"))


def read_data(address: str) -> bytes:
    kind, _, content = address.partition(",")
    if kind.endswith(";base64"):
        return base64.b64decode(content)
    return unquote_to_bytes(content)


@pytest.mark.parametrize(
    "names", [["claims"], ["comparison", "fid", "nll", "discretization", "learning_curve", "values"]]
)
def test_a_missing_table_is_named_with_what_makes_it(folder: Path, tmp_path: Path, names: list[str]) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    tables = tmp_path / "copy/results" / SUITE / "tables"
    for name in names:
        (tables / f"{name}.csv").unlink()
    html = render(CONTENTS, tables.parent, tmp_path / "copy" / "figures")
    for path in (tables / f"{name}.csv" for name in names):
        assert f"{path}</code>: missing." in html
        assert f"indm run {SUITE}</code>" in html
        assert f'id="table-{path.stem}"' not in html
    assert {float(value) for value, _ in Reader(html).numbers} <= numbers(tmp_path / "copy" / "results")


def test_missing_figures_pictures_and_provenance_are_named(results: Path, tmp_path: Path) -> None:
    for path in [*results.glob("runs/*/*.png"), *results.glob("**/provenance/*.json")]:
        path.unlink()
    html = rendered(results)
    assert f"{tmp_path}/figures/discretization.svg</code>: not drawn yet" in html
    assert f"indm run {SUITE}</code>" in html
    for run in RUNS:
        assert f"{results}/runs/{run}/neighbours.png" in html
    assert "no stage has left a record" in html


def test_pictures_that_are_not_drawn_leave_no_gap(results: Path) -> None:
    """An empty file stands for one: of a dataset that forbids pictures, or in results that are older than the picture."""
    for kind in TRAINING_PICTURES:
        for run in RUNS:
            (results / f"runs/{run}/{kind}.png").write_bytes(b"")
    html = rendered(results)
    section = html.partition('id="samples"')[2].partition('class="section"')[0]
    tags = [tag for tag, _ in Reader(section).elements]
    # Three stand on the first screen.
    rest = len(RUNS) - 3
    assert (tags.count("figure"), tags.count("img"), tags.count("p")) == (rest, rest, 1 + rest)
    assert not [word for word in ("missing", "neighbour", "training") if word in section]


def test_a_section_that_the_suite_asks_nothing_of_is_left_out_and_named(results: Path) -> None:
    header = (results / "tables/protocol.csv").read_text().splitlines()[0]
    (results / "tables/protocol.csv").write_text(f"{header}\n")
    html = rendered(results)
    assert 'id="protocol"' not in html
    assert 'href="#protocol"' not in html
    assert f"The suite {SUITE} does not ask for: Protocol." in html


def test_what_a_suite_no_longer_has_is_not_on_its_page(results: Path, tmp_path: Path) -> None:
    """Runs and 2-D datasets of an earlier version of a suite leave their folders, figures and records behind."""
    kept = next(iter(RUNS))
    for stale in ("runs/old-run-s0", "data/old-data", "protocol/old-data", "toy2d/old-toy"):
        shutil.copytree(results / "runs" / kept, results / stale)
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("toy2d-old-toy", "toy2d-moons-long", "old-figure"):
        (figures / f"{name}.svg").write_text(f'<svg width="1pt" id="{name}"></svg>')
    html = render(CONTENTS, results, figures)
    assert "toy2d-moons-long" in html
    assert kept in html
    assert "old-" not in html


# What the pages of suites must say; without an entry, that trainings are short and digits are no dataset of the paper.
OTHER_DATA, OWN_CIFAR = "not one of the paper’s datasets", "FID and KID of cifar10 use features of cifar10-cnn"
OF_DIGITS = ["Trainings are short: ", OTHER_DATA, "use features of digits-cnn"]
NOTHING = "its numbers mean nothing: models were trained for "
OF_FASHION = [
    OF_DIGITS[0],
    f"fashion-mnist is {OTHER_DATA} (28 × 28 pixels",
    "FID and KID of fashion-mnist use features",
]
NO_FID = "there is no FID"
CAVEATS = {
    "smoke": [NOTHING + "20 steps of 16 images", *OF_DIGITS[1:]],
    "smoke-images": [
        NOTHING + "3 steps of 4 images",
        *(
            caveat
            for size in (32, 64)
            for caveat in (
                f"standin{size} is {OTHER_DATA} ({size} × {size} pixels of 256 levels; synthetic stand-in",
                f"all other image scores of standin{size} are meaningless: Inception does not have the published weights",
            )
        ),
    ],
    **{f"fashion-{name}": OF_FASHION for name in ("full", "long", "search")},
    "cifar10": OF_DIGITS[:1],
    "cifar10-check": OF_DIGITS[:1],
    "cifar10-small": [NOTHING + "20 steps of 32 images", OWN_CIFAR],
    "cifar10-rungs": [NOTHING + "300 steps of 32 images", OWN_CIFAR],
    **{
        f"cifar10-{name}": [OF_DIGITS[0], OWN_CIFAR]
        for name in (
            1000,
            3000,
            9000,
            "exponents",
            "fid",
            "maps",
            "maps-search",
            "precondition-search",
            "search",
            "wide",
        )
    },
    **{f"cifar10-{name}": [OF_DIGITS[0], NO_FID] for name in ("exponents-v", "length", "precondition")},
    "digits-filters": [*OF_DIGITS[:2], NO_FID],
    "fashion-filters": [OF_FASHION[0], f"fashion-mnist is {OTHER_DATA} ", NO_FID],
    "celeba64-6000": [OF_DIGITS[0], f"celeba64-6000 is {OTHER_DATA} ", NO_FID],
    "paper": [],
    "paper-seeds": [],
}


@pytest.mark.parametrize("path", suite_files(REPOSITORY / "params"), ids=lambda path: path.stem)
def test_every_suite_says_what_its_numbers_cannot_be_taken_for(tmp_path: Path, path: Path) -> None:
    suite = load_suite(path)
    for name, reference in suite.reference.items():
        write_data(tmp_path / "data" / name, name, reference.extractor)
    lacking = missing(suite.suite, tmp_path)
    absent = {name: Table(name, tmp_path, missing=lacking) for name in ("fid", "nll", "toy2d")}
    found = caveats(contents(suite), absent, [], tmp_path)
    expected = CAVEATS.get(path.stem, OF_DIGITS)
    assert len(found) == len(expected), found
    for caveat, words in zip(found, expected, strict=True):
        assert words in caveat


def write_data(folder: Path, name: str, extractor: str) -> None:
    """Write what the page reads of a dataset, as the stages prepare and reference do."""
    dataset = DATASETS[name].holding_out(None)
    # Of archives that are not here, more than any suite's batch.
    count = 50_000 if dataset.archives else dataset.load(0)["train"].count
    description = {"levels": dataset.levels, "shape": dataset.shape, "counts": {"train": count}}
    write_json(folder / "dataset.json", description | {"source": dataset.source})
    weights = {"inception-v3-compat": TORCH_FIDELITY.sha256 + "0" * 56, "inception-v3-random": "ab" * 32}
    write_json(folder / "reference.json", {"extractor": extractor, "weights_sha256": weights.get(extractor)})


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"extractor": "digits-cnn", "test_accuracy": 0.9072}, "an accuracy of 90.7% on the test images"),
        # The weights decide, not the extractor's name.
        ({"extractor": "inception-v3-compat", "weights_sha256": "12" * 32}, "(inception-v3-compat, sha256 12121212…"),
        (None, "The feature extractor of the FIDs of digits is unknown: "),
    ],
)
def test_what_a_reference_is_and_that_there_is_none_is_said(
    results: Path, reference: dict[str, Any] | None, words: str
) -> None:
    path = results / "data/digits/reference.json"
    path.unlink() if reference is None else write_json(path, reference)
    assert words in rendered(results)


def test_the_page_knows_the_published_weights_and_the_length_of_the_papers_trainings() -> None:
    paper = load_suite(REPOSITORY / "params/paper.yaml")
    assert TORCH_FIDELITY.sha256 == PUBLISHED_WEIGHTS
    assert (paper.train.steps, paper.train.batch_size) == (PAPER_STEPS, PAPER_BATCH)
    assert paper.sample.num_samples == PAPER_IMAGES
    assert list(PAPER_DATASETS) == list(paper.datasets)


def test_the_page_has_the_paper_and_the_inks_of_its_figures() -> None:
    style = (REPOSITORY / "indm/report/page/templates/style.css").read_text()
    light, dark = (part.partition("}")[0] for part in style.split(":root {")[1:3])
    for name, colour in {"paper": PAPER, "ink": INK}.items():
        assert f"--{name}: {colour};" in light
        assert f"--{name}: {DARK[colour]};" in dark


def test_the_page_has_the_checksum_that_provenance_has(tmp_path: Path) -> None:
    """Of the suite in full: a suite that builds on another changes with it."""
    suite = load_suite(REPOSITORY / "params/digits-seeds.yaml")
    write_json(
        tmp_path / "tables/provenance/table.json", made_up_record(np.random.default_rng(0), suite.suite, "table", "")
    )
    html = render(contents(suite), tmp_path, tmp_path)
    assert f"SHA-256 <code>{suite_sha256(suite)}</code>" in html
    assert "<code>params/expanded/digits-seeds.json</code>" in html


def test_every_verdict_is_explained_in_its_colour(folder: Path, page: Reader) -> None:
    style = (REPOSITORY / "indm/report/page/templates/style.css").read_text()
    found = {text for _, attributes in page.elements if "grade-" in (text := attributes.get("class", ""))}
    assert found == {f"grade grade-{word.replace(' ', '-')}" for word in MEANINGS}
    assert {*re.findall(r"^\.(grade-[a-z-]+)", style, flags=re.MULTILINE)} == {text.split()[1] for text in found}


def test_text_of_results_cannot_become_markup(results: Path) -> None:
    path = results / "tables" / "protocol.csv"
    path.write_text(path.read_text().replace("clean-fid", "<script>alert(1)</script>"))
    html = rendered(results)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_what_a_stage_said_that_the_suite_no_longer_has_is_not_told(results: Path) -> None:
    record = next(results.glob("runs/*/provenance/train.json"))
    old = json.loads(record.read_text()) | {"stage": "sweep", "commit": "5" * 40}
    record.with_name("sweep.json").write_text(json.dumps(old))
    assert "5" * 40 not in rendered(results)
    imported = json.loads(record.read_text()) | {"stage": "import_checkpoint", "commit": "6" * 40}
    record.with_name("import_checkpoint.json").write_text(json.dumps(imported))
    assert "6" * 40 in rendered(results)


@pytest.mark.parametrize(("name", "text"), [("fid", ""), ("claims", "\x00\xff")])
def test_a_table_that_is_none_is_refused(results: Path, name: str, text: str) -> None:
    (results / f"tables/{name}.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=rf"{name}\.csv: "):
        rendered(results)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, r"found the record of another job \({'suite': None,"),
        ({"subject": "another"}, "found the record of another job "),
        ({"peak_memory_mib": 1.0}, "found no commit, uncommitted_changes, machine, device, threads, versions, seconds"),
        ({"commit": 1}, "key commit: found 1, expected the name of a commit, or null"),
    ],
)
def test_provenance_that_says_nothing_is_refused(results: Path, content: dict[str, Any], words: str) -> None:
    path = next(results.glob("runs/*/provenance/train.json"))
    known = json.loads(path.read_text())
    write_json(path, content and {key: known[key] for key in ("suite", "stage", "subject")} | content)
    with pytest.raises(ArtifactError, match=f"train.json: {words}"):
        rendered(results)


def test_a_table_of_claims_without_rows_has_no_answers(tmp_path: Path) -> None:
    path = REPOSITORY / "docs/results/digits/tables/claims.csv"
    (tmp_path / "claims.csv").write_text(path.read_text().splitlines()[0] + "\n")
    assert read_answers(tmp_path / "claims.csv", REPOSITORY / "params/evidence.csv") == []


@pytest.mark.parametrize("text", ["", "<svg>", "<p>no drawing</p>"])
def test_what_is_no_drawing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fid.svg").write_text(text)
    with pytest.raises(ArtifactError, match=r"fid\.svg: "):
        read_figures(tmp_path)


def test_several_versions_of_a_package_are_a_limitation(results: Path, tmp_path: Path) -> None:
    tables = dict.fromkeys(("fid", "nll", "toy2d"), Table("fid", tmp_path, missing=missing("smoke", tmp_path)))
    records = read_records(CONTENTS, results)
    before = caveats(CONTENTS, tables, records, results)
    records[0]["versions"]["torch"] = "1.13"
    (new,) = set(caveats(CONTENTS, tables, records, results)) - set(before)
    assert re.findall(r"torch|\d+\.\d+", new) == ["torch", "1.13", "2.13"]


@pytest.mark.parametrize(("count", "is_few"), [(80, True), (PAPER_IMAGES, False)])
def test_scores_of_fewer_images_than_the_papers_are_a_limitation(results: Path, count: int, is_few: bool) -> None:
    """The rows of real images, which are fewer, do not count."""
    path = results / "tables/fid.csv"
    table = pd.read_csv(path)
    table.loc[table["sde"].notna(), "num_samples"] = count
    table.to_csv(path, index=False)
    assert (f"of {count:,} generated images" in rendered(results)) == is_few


def test_one_seed_and_uncommitted_changes_are_said(results: Path) -> None:
    path = results / "tables" / "fid.csv"
    path.write_text(path.read_text().replace(",3,ancestral", ",1,ancestral", 1))
    record = next(results.glob("**/provenance/train.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"uncommitted_changes": True}))
    html = rendered(results)
    assert "trained with one seed" in html
    assert "on a checkout with uncommitted changes" in html


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        ([0.245316, 0.3], [0.065, 0.0712], [("0.245", "0.065"), ("0.300", "0.071")]),
        ([-0.00812, None], [0.0071, None], [("−0.0081", "0.0071"), ("", "")]),
        ([1000, -20], [None, None], [("1,000", ""), ("−20", "")]),
        ([2.5e12], [None], [("2.5e+12", "")]),
        ([312.44], [12.3], [("312", "12")]),
        ([0.0], [0.0], [("0", "0")]),
    ],
)
def test_numbers_of_a_column_are_rounded_alike(
    values: list[float | None], errors: list[float | None], expected: list[tuple[str, str]]
) -> None:
    assert set_numbers(values, errors) == expected


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield started
        started.close()


@pytest.fixture
def view(browser: Any, folder: Path) -> Iterator[Any]:
    """The page in a window, from its file; an error in a script or a request for anything else fails the test."""
    context = browser.new_context(viewport=DESK, accept_downloads=True)
    context.set_default_timeout(20_000)
    window = context.new_page()
    troubles: list[str] = []
    window.on("pageerror", lambda error: troubles.append(str(error)))
    window.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    window.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url)
    )
    window.goto((folder / "index.html").as_uri())
    yield window
    context.close()
    assert troubles == []


def column(view: Any, table: str, index: int) -> list[str]:
    return view.locator(f"#table-{table} tbody tr > :nth-child({index})").all_inner_texts()


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_tables_sort_by_click_and_by_keyboard(view: Any) -> None:
    heading = view.locator("#table-fid thead th", has_text="FID")
    index = 1 + int(heading.evaluate("cell => cell.cellIndex"))
    values = "rows => rows.map(row => Number(row.dataset.value))"
    numbers_shown = view.locator(f"#table-fid tbody td:nth-child({index}) > [data-value]")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    ascending = numbers_shown.evaluate_all(values)
    assert ascending == sorted(ascending)
    view.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert numbers_shown.evaluate_all(values) == sorted(ascending, reverse=True)
    assert "descending" in view.locator("#announcement").inner_text()
    # By another column, the first is no longer marked; absent values are last both ways.
    other = view.locator("#table-fid thead th", has_text="SDE")
    for order in ("ascending", "descending"):
        other.locator("button").focus()
        view.keyboard.press("Space")
        assert other.get_attribute("aria-sort") == order
        assert "absent" in column(view, "fid", 1)[-1]
    assert heading.get_attribute("aria-sort") is None


@NEEDS_CHROMIUM
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways(view: Any, scheme: str) -> None:
    view.set_viewport_size(PHONE)
    view.emulate_media(color_scheme=scheme)
    view.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert view.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_a_phone_shows_the_answer_first_and_its_tables_whole(view: Any) -> None:
    """Neither the means nor the main claims scroll sideways, and no value breaks."""
    view.set_viewport_size(PHONE)
    low = "item => item.getBoundingClientRect().bottom"
    assert view.locator(".lead").evaluate(low) < PHONE["height"] / 2
    assert view.locator("#table-means").evaluate(low) < 1.5 * PHONE["height"]
    right = "items => Math.max(...items.map(item => item.getBoundingClientRect().right))"
    for table in ("means", "answers"):
        assert view.locator(f"#table-{table} :is(th, td)").evaluate_all(right) <= PHONE["width"]
    view.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    lines = "items => Math.max(...items.map(item => new Set([...item.getClientRects()].map(box => box.top)).size))"
    for whole in (".value", ".means .error"):
        assert view.locator(whole).evaluate_all(lines) == 1


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_likelihood_and_quality_are_open_and_a_link_unfolds_another_section(view: Any) -> None:
    assert view.locator("#table-nll").is_visible()
    assert view.locator("#table-fid").is_visible()
    assert not view.locator("#table-compute").is_visible()
    view.locator("nav a[href='#cost']").click()
    assert view.locator("#table-compute").is_visible()


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_the_first_tab_skips_to_the_results(view: Any) -> None:
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.className") == "skip"
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.id") == "main"


@NEEDS_CHROMIUM
@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "dark"), *(pytest.param(width, "light", marks=pytest.mark.long) for width in (390, 1600))],
)
def test_axe_finds_nothing(view: Any, width: int, scheme: str) -> None:
    """No fault of accessibility that axe-core knows: contrast, headings, names, roles, tables."""
    view.set_viewport_size({"width": width, "height": 900})
    view.emulate_media(color_scheme=scheme)
    view.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    found = Axe().run(view)
    assert found.violations_count == 0, found.generate_report()


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_a_download_from_disk_is_the_file(view: Any, folder: Path) -> None:
    with view.expect_download() as waiting:
        view.locator("a[download='nll.csv']").click()
    assert Path(waiting.value.path()).read_bytes() == (folder / "results" / SUITE / "tables" / "nll.csv").read_bytes()


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_print_leaves_out_what_paper_cannot_do(view: Any) -> None:
    view.emulate_media(media="print", color_scheme="dark")
    assert not view.locator("nav").is_visible()
    assert not view.locator(".downloads").first.is_visible()
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert view.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_print_has_open_sections_and_tables_of_ten_points(view: Any) -> None:
    view.emulate_media(media="print")
    folded = view.locator(".section:not([open]) > div").first
    assert folded.evaluate("section => section.getBoundingClientRect().height") > 0
    sizes = view.evaluate("[...document.querySelectorAll('table')].map(it => getComputedStyle(it).fontSize)")
    points = {round(float(size.removesuffix("px")) * 72 / 96, 1) for size in sizes}
    assert points <= {10.0, 8.0}
    assert 10.0 in points


def test_markdown_escapes_bars_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "fid.csv"
    path.write_text('suite,id,effect,reason\nmade-up,a,1,"|x| < 1 <script>alert(1)</script>"\n')
    name, address = read_table("made-up", path).downloads["Markdown"]
    assert name == "fid.md"
    encoded = address.partition(",")[2]
    text = base64.b64decode(encoded).decode() if ";base64," in address else unquote_to_bytes(encoded).decode()
    assert "\\|x\\| &lt; 1 &lt;script>" in text
