"""The tables of README.md, docs/results and docs/weights.md, generated from the published results."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indm.errors import ArtifactError
from indm.report.differences import PLACE
from indm.report.export import effect_with_ends, present
from indm.report.grades import IN_WORDS, INCONCLUSIVE, NAMES_CONTROL, NO_DATA, OPEN, SINGLE, starred, with_control
from indm.report.names import comparator, names
from indm.report.power import BASELINE, MORE_IMAGES, MOST_SEEDS, WITHOUT
from indm.report.results import CELL, read_rows, records
from indm.shipped import DEFAULT_SUITE
from indm.store.files import read_json

# The suites whose verdicts are listed side by side, with descriptions; for the default suite, numbers are listed too.
SUITES = {"digits": "a first look", "digits-seeds": "longer trainings, more seeds", "fashion-full": "Fashion-MNIST"}
# The suites whose verdicts README.md shows, with their datasets; they were registered before their runs.
EVIDENCE = {"digits-seeds": "8×8 digits", "fashion-full": "Fashion-MNIST"}
# The places that the overview lists side by side: the ending of the claims' names, and the columns that choose the rows.
PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "two dimensions": ("-2d", {"suite": "digits-full"}),
    "8×8 digits, VP": ("", {"suite": "digits-seeds", "dataset": "digits", "sde": "vp"}),
    "8×8 digits, VE": ("", {"suite": "digits-ve", "dataset": "digits", "sde": "ve"}),
    "Fashion-MNIST, VP": ("", {"suite": "fashion-full", "dataset": "fashion-mnist", "sde": "vp"}),
}
NOT_ASKED = "not asked"
# The spread of one seed is not known.
UNKNOWN = "unknown"
NUMBERS = ("fid", "nll", "nelbo", "gap")
WEIGHTS_METRICS = ("score_parameters", "flow_parameters", "nll", "fid")
PAGE = "docs/results/README.md"
# The last marker of a generated block in a file that people write.
END = "<!-- end of {name} -->"


def with_answers(readme: str, published: Path) -> str:
    """Return README.md with the answers of the published suites; unchanged if the default suite is not published.

    Arguments:
        readme: its text.
        published: the folder with one folder per published suite, which has ``tables/`` and ``provenance.json``.

    Raises:
        ArtifactError: if a file is missing or damaged, or README.md has no place for a table.
    """
    tables = _published_claims(published)
    evidence = {suite: tables[suite] for suite in EVIDENCE if suite in tables}
    return replace_block(readme, "answers", answers(evidence), "README.md") if evidence else readme


def with_verdicts(page: str, published: Path) -> str:
    """Return the page of all verdicts with its tables; see :func:`with_answers`."""
    claims = _published_claims(published)
    if not claims:
        return page
    page = replace_block(page, "overview", overview(claims), PAGE)
    primary = {suite: table[table["family"] == "primary"] for suite, table in claims.items() if suite in SUITES}
    page = replace_block(page, "primary", verdicts(primary), PAGE)
    folder = published / DEFAULT_SUITE
    fid, nll = (read_rows(folder / f"tables/{name}.csv") for name in ("fid", "nll"))
    executions = read_json(folder / "provenance.json")["executions"]
    machines = list(dict.fromkeys(execution["machine"] for execution in executions))
    return replace_block(page, "numbers", numbers(fid, nll, machines), PAGE)


def with_weights(page: str, published: Path) -> str:
    """Return the page of weights with a row for each run whose weights are published; see :func:`with_answers`."""
    return replace_block(page, "weights", weights(published), "docs/weights.md")


def _published_claims(published: Path) -> dict[str, pd.DataFrame]:
    """Read the verdicts of each published suite that a table shows; empty if the default suite is not published."""
    shown = dict.fromkeys([*SUITES, *(where["suite"] for _, where in PLACES.values())])
    folders = {suite: published / suite for suite in shown if (published / suite / "provenance.json").is_file()}
    tables = {suite: read_rows(folder / "tables/claims.csv") for suite, folder in folders.items()}
    # Tables of an earlier version have one grade for both questions.
    tables = {suite: table for suite, table in tables.items() if "holds" in table}
    return tables if DEFAULT_SUITE in tables else {}


def answers(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write one row per primary claim and objective, with both verdicts of each suite and their effects, and count the verdicts.

    Arguments:
        tables: the table of claims of each suite of :data:`EVIDENCE`.
    """
    lines = [f"| question (objective) | {' | '.join(f'{EVIDENCE[suite]}: holds? | the flow?' for suite in tables)} |"]
    lines.append("|---" * (2 * len(tables) + 1) + "|")
    table = pd.concat(tables.values(), ignore_index=True)
    table = table[(table["family"] == "primary") & (table["holds"] != NO_DATA)]
    for (_, objective), part in table.groupby(["id", "objective"], sort=False):
        found = [records(part[part["suite"] == suite]) for suite in tables]
        cells = [
            "<br>".join(map(write, rows)) or NO_DATA for rows in found for write in (_first_answer, _second_answer)
        ]
        lines.append(f"| {part['question'].iloc[0]} (`{objective}`) | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _counts(table)])


def _counts(table: pd.DataFrame) -> str:
    """Write how often each answer to both questions is given."""
    flow = [IN_WORDS[word].partition(":")[0] for word in table["flow"].dropna()]
    holds, flows = (
        f"{len(found)} answers: " + ", ".join(f"{count} {word}" for word, count in Counter(found).most_common())
        for found in (table["holds"], flow)
    )
    return f"*Does it hold?* has {holds}.\n*Is it the flow?* has {flows}."


def overview(claims: Mapping[str, pd.DataFrame]) -> str:
    """Write one row per primary claim and one column per place that has a verdict, with both verdicts in words; empty without.

    Arguments:
        claims: the table of claims of each suite.
    """
    table = pd.concat(claims.values(), ignore_index=True)
    primary = records(table[table["family"] == "primary"].drop_duplicates("id"))
    columns = {
        place: [_overview_cell(table[table["id"] == f"{row['id']}{ending}"], where) for row in primary]
        for place, (ending, where) in PLACES.items()
    }
    shown = {place: cells for place, cells in columns.items() if set(cells) - {NO_DATA, NOT_ASKED}}
    lines = [f"| the paper's claim | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    rows = zip((row["question"] for row in primary), *shown.values(), strict=True)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) if shown else ""


def _overview_cell(rows: pd.DataFrame, where: Mapping[str, str]) -> str:
    """Write both verdicts of a claim at each objective or 2-D dataset of a place."""
    if not len(rows) or where.get("dataset") not in {None, *rows["dataset"]}:
        return NOT_ASKED
    found = rows[(rows[list(where)] == pd.Series(where)).all(axis=1) & (rows["holds"] != NO_DATA)]
    return "<br>".join(map(_both_answers, records(found))) or NO_DATA


def _both_answers(row: Mapping[str, Any]) -> str:
    place = f"`{row['objective']}`" if row["objective"] else str(row["dataset"])
    return f"{place}: {starred(row['holds'], row['repeatability'])}; {_second_answer(row)}"


def _first_answer(row: Mapping[str, Any]) -> str:
    return f"{starred(row['holds'], row['repeatability'])}, {_without_ends(row)}"


def _second_answer(row: Mapping[str, Any]) -> str:
    if pd.isna(row["flow"]) or pd.isna(row["control"]):
        return IN_WORDS.get(row["flow"], NOT_ASKED)
    control, effect = comparator(row["control"]), _without_ends(row, "control_")
    if row["flow"] in NAMES_CONTROL:
        return f"no: {with_control(row['flow'], control)}, {effect}"
    return f"{IN_WORDS[row['flow']]}, {effect} against {control}"


def _without_ends(row: Mapping[str, Any], of: str = "") -> str:
    return effect_with_ends(row, of).partition(" [")[0]


def verdicts(claims: Mapping[str, pd.DataFrame]) -> str:
    """Write one row per claim and one column per suite: the claim, and both verdicts at each place, with their effects.

    A star marks a borderline verdict. Places are named by the keys in which they differ.

    Arguments:
        claims: the table of claims of each suite.
    """
    heads = [f"`{suite}`: {SUITES[suite]}" for suite in claims]
    lines = [f"| question | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    table = pd.concat(claims.values(), ignore_index=True)
    for _, part in table.groupby("id", sort=False):
        seen = [row for row in records(part) if row["holds"] != NO_DATA]
        found = [[row for row in seen if row["suite"] == suite] for suite in claims]
        cells = [_cell(rows, _varying(found)) for rows in found]
        question = str(part["question"].iloc[0]).replace("|", "\\|")
        worth = f"{part['unit'].iloc[0]}; smallest effect {part['smallest_effect'].iloc[0]:g}"
        lines.append(f"| {question} ({worth}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def every_verdict(published: Path) -> str:
    """Write, as CSV, a row for each verdict of each published suite.

    Raises:
        ArtifactError: if a table is damaged.
    """
    tables = [read_rows(path) for path in sorted(published.glob("*/tables/claims.csv"))]
    # An earlier version gave one grade to two questions.
    rows = [_verdict(row) for table in tables if "holds" in table for row in records(table) if row["holds"] != NO_DATA]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _verdict(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "claim": row["question"],
        "suite": row["suite"],
        "where": _place(row, PLACE),
        "does it hold?": starred(row["holds"], row["repeatability"]),
        "advantage": f"{_unbroken(row)} {row['unit']}",
        "is it the flow?": _flow(row) or NOT_ASKED,
    }


def of_suite(claims: pd.DataFrame, power: pd.DataFrame) -> str:
    """Write the primary claims of one suite, one row each; empty without data.

    A row has both verdicts with their effects, the seeds that were run and that would decide open answers, and the repeatability.

    Arguments:
        claims: its table of claims.
        power: its table of seeds needed (:func:`indm.report.power.power_table`).
    """
    rows = [row for row in records(claims) if row["family"] == "primary" and row["holds"] != NO_DATA]
    if not rows:
        return ""
    needed = power[["id", *PLACE, "seeds_baseline", "control", "seeds_control", "note"]]
    needed = needed.rename(columns={"control": "hardest"})
    lines = [
        f"| {row['question']} | {_place(row, PLACE)} | {_holds(row)} {row['unit']} | {_flow(row) or NOT_ASKED} "
        f"| {_seeds(row)} | {_needed(row)} | {_repeatability(row)} |"
        for row in records(pd.DataFrame(rows).merge(needed, on=["id", *PLACE], how="left"))
    ]
    head = "| claim | | [does it hold?](../../claims.md) | is it the flow? | seeds | to decide | repeatability |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *lines])


def _repeatability(row: Mapping[str, Any]) -> str:
    return "–" if pd.isna(row["repeatability"]) else f"{row['repeatability']:.2f}"


def _seeds(row: Mapping[str, Any]) -> str:
    """Write the number of seeds, of how many if some failed, and the number of those with the control."""
    seeds = f"{row['n']:.0f}" if row["n"] == row["planned"] else f"{row['n']:.0f} of {row['planned']:.0f}"
    return seeds if pd.isna(row["control"]) else f"{seeds} / {row['control_n']:.0f}"


def _needed(row: Mapping[str, Any]) -> str:
    """Write the seeds, images or controls that would decide the claim and the flow, each only if it is open."""
    note = str(row["note"])
    claim = _number(row["seeds_baseline"], BASELINE, note)
    if row["low"] > row["smallest_effect"] and row["failed_treatment"] > row["failed_baseline"]:
        claim = "withheld: INDM fails more often"
    flow = [] if pd.isna(row["hardest"]) else [_number(row["seeds_control"], row["hardest"], note)]
    flow += ["more controls"] if WITHOUT in note else []
    is_open = ((claim, row["holds"] in (INCONCLUSIVE, SINGLE)), (", ".join(flow) or UNKNOWN, row["flow"] == OPEN))
    return " / ".join(words if undecided else "–" for words, undecided in is_open)


def _number(seeds: float, against: str, note: str) -> str:
    """Write how many seeds are needed against a model; ``note`` explains why there is no number."""
    if seeds > 0:
        return f"{seeds:.0f}"
    if f"{against} ({MORE_IMAGES})" in note:
        return MORE_IMAGES
    return f"over {MOST_SEEDS}" if f"{against} (more than" in note else UNKNOWN


def _varying(suites: Iterable[list[dict[str, Any]]]) -> list[str]:
    """Name the columns in which the rows of any suite differ."""
    found = [{key: {str(row[key]) for row in rows} for key in PLACE} for rows in suites]
    return [key for key in PLACE if any(len(values[key]) > 1 for values in found)]


def _cell(rows: list[dict[str, Any]], varying: list[str]) -> str:
    """Write the verdicts of a suite, one line per place."""
    lines = []
    for row in rows:
        place = _place(row, varying)
        flow = f"; the flow: {_flow(row)}" if _flow(row) else ""
        lines.append((f"{place}: " if place else "") + _holds(row) + flow)
    return "<br>".join(lines) or NO_DATA


def _place(row: Mapping[str, Any], keys: Iterable[str]) -> str:
    return names(*(str(row[key]) for key in keys if not pd.isna(row[key])))


def _holds(row: Mapping[str, Any]) -> str:
    return f"{starred(row['holds'], row['repeatability'])}, {_unbroken(row)}"


def _flow(row: Mapping[str, Any]) -> str:
    """Write the second verdict, with the effect against the control that matches or comes closest; empty if it was not asked."""
    if pd.isna(row["flow"]):
        return ""
    if pd.isna(row["control"]):
        return str(row["flow"])
    control = comparator(row["control"])
    against = "" if row["flow"] in NAMES_CONTROL else f"against {control} "
    return f"{with_control(row['flow'], control)}, {against}{_unbroken(row, 'control_')}"


def _unbroken(row: Mapping[str, Any], of: str = "") -> str:
    """Write an effect and its interval with non-breaking spaces."""
    return effect_with_ends(row, of).replace(" ", "\u00a0")


def numbers(fid: pd.DataFrame, nll: pd.DataFrame, machines: list[str]) -> str:
    """Write FID and likelihoods of each cell, their source, and the scores of real images.

    Raises:
        ArtifactError: if a cell is in only one table, or has other seeds there, because it would be left out.
    """
    real = fid["model"].str.startswith("real")
    shown = [f"{name}{end}" for name in NUMBERS for end in ("", "_se", "_image_se")]
    table = fid[~real].merge(nll, on=[*CELL, "seeds"], validate="one_to_one", suffixes=("", "_nll"))
    if not len(table) == len(nll) == len(fid[~real]):
        raise ArtifactError(
            f"{DEFAULT_SUITE}: found {len(fid[~real])} cells in fid.csv, {len(nll)} in nll.csv, and {len(table)} of the same "
            "seeds in both, expected equal numbers; publish it again"
        )
    columns = [column for column in CELL if column != "dataset" or table["dataset"].nunique() > 1]
    images, test_images = (_only(part[column]) for part, column in ((fid[~real], "num_samples"), (nll, "images")))
    floors = ", ".join(
        f"{row['model'].removeprefix('real (').removesuffix(')')} {row['fid']:.3f} ({row['fid_image_se']:.3f})"
        for row in records(fid[real])
    )
    place = f"{DEFAULT_SUITE}/tables"
    return f"""```
{present(table[[*columns, "seeds", *shown]])}
```

From `{place}/fid.csv` and `nll.csv` (FID of {images} images; bits/dim of {test_images} test images), on
{"; ".join(machines)}. ± is one standard error over seeds, in brackets one over images.
Real images score an FID of: {floors}."""


def _only(column: "pd.Series[Any]") -> str:
    """Write the values of a column, each once."""
    return " or ".join(f"{value:g}" for value in sorted(set(column)))


def weights(published: Path) -> str:
    """Write one row per run whose weights are published: size, likelihood and FID, from its suite's ``values.csv``.

    Raises:
        ArtifactError: if a table is missing or damaged, or lacks a run.
    """
    lines = ["| run | suite | parameters | NLL, bits/dim | FID |", "|---|---|--:|--:|--:|"]
    for folder in sorted(published.glob("*/weights")):
        path = folder.parent / "tables/values.csv"
        values = read_rows(path)
        lines += [_weights_row(values, path, file) for file in sorted(folder.glob("*.safetensors"))]
    return "\n".join(lines)


def _weights_row(values: pd.DataFrame, path: Path, file: Path) -> str:
    suite, run = path.parent.parent.name, file.stem
    sources = [f"runs/{run}/{stage}.json" for stage in ("train", "nll", "fid")]
    found = values[values["source"].isin(sources)].set_index("metric")
    if missing := ", ".join(metric for metric in WEIGHTS_METRICS if metric not in found.index):
        raise ArtifactError(f"{path}: found no {missing} of {run}, expected the run of {file}; publish the suite again")
    score, flow, *scores = (found.loc[metric] for metric in WEIGHTS_METRICS)
    cells = [f"[`{run}`](results/{suite}/weights/{file.name})", f"[`{suite}`](results/{suite}/README.md)"]
    cells += [f"{score['value'] + flow['value']:,.0f}", *(f"{it['value']:.3f} ± {it['se']:.3f}" for it in scores)]
    return f"| {' | '.join(cells)} |"


def replace_block(text: str, name: str, content: str, place: str) -> str:
    """Put new content between the markers of a block.

    Arguments:
        text: the file's text.
        name: the name of the block; its first marker is ``<!-- name: ... -->``, its last ``<!-- end of name -->``.
        content: the lines between them.
        place: the path of the file, for the message.

    Raises:
        ArtifactError: if the file does not have both markers once, in this order.
    """
    end = re.escape(END.format(name=name))
    pattern = re.compile(rf"(<!-- {re.escape(name)}: [^\n]* -->\n)(.*?)({end})", flags=re.DOTALL)
    if (found := len(pattern.findall(text))) != 1 or text.count(END.format(name=name)) != 1:
        raise ArtifactError(
            f"{place}: found {found} blocks <!-- {name}: ... --> to {END.format(name=name)}, expected one; "
            "put the two lines where the block should stand"
        )
    return pattern.sub(lambda match: f"{match[1]}\n{content.strip()}\n\n{match[3]}", text)
