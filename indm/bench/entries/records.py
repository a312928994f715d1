"""The records: accepted entries in ``docs/records``, and the best confirmed one of a track."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indm.bench.entries.entry import Entry, read_entry
from indm.bench.entries.folder import CONFIRMED, SOURCE, Folder, read_folder
from indm.bench.entries.tracks import FOLDER, LoadedTrack, load_track, read_content
from indm.report.entries import BEST, CHECKED, CLAIM, DDPMPP, ENTRY, RECORD, records_figure, records_table
from indm.report.grades import BETTER
from indm.report.plotting import to_svg

RECORDS = Path("docs/records")
BLOCK = re.compile(r"(<!-- records: .*? -->\n)(.*?)(<!-- end of records -->)", re.DOTALL)


@dataclass(frozen=True)
class Accepted:
    """An accepted entry: its folder, and the maintainers' folder with a nonce, if there is one."""

    claim: Folder
    confirmed: Folder | None

    @property
    def judged(self) -> Folder:
        """The folder whose numbers count."""
        return self.confirmed or self.claim


def accepted(track: LoadedTrack, records: Path = RECORDS) -> list[Accepted]:
    """Read the accepted entries of this version of a track, by their names."""
    folders = sorted(path.parent for path in (records / track.name).glob("*/entry.json"))
    found = [Accepted(read_folder(folder), _confirmed(folder)) for folder in folders]
    return [each for each in found if each.claim.about.track_sha256 == track.sha256]


def _confirmed(folder: Path) -> Folder | None:
    """Read the maintainers' run of an entry; one without a nonce or of another file confirms nothing."""
    if not (folder / CONFIRMED / "entry.json").is_file():
        return None
    claim, found = read_folder(folder), read_folder(folder / CONFIRMED)
    # Compared by their bytes, because a hash of the earlier format does not count everything.
    same = len({(each.path / SOURCE).read_bytes() for each in (claim, found)}) == 1
    same = same and found.about.track_sha256 == claim.about.track_sha256
    return found if same and found.about.nonce else None


def record_of(found: list[Accepted]) -> Accepted | None:
    """Find the record: from DDPM++ on, the confirmed entry that was better than the record of its time by most, and so on."""
    record, left = None, list(found)
    while better := [each for each in left if _beats(each, record)]:
        record = max(better, key=_effect)
        left.remove(record)
    return record


def _beats(each: Accepted, record: Accepted | None) -> bool:
    if each.confirmed is None:
        return False
    about = each.confirmed.about
    expected = read_entry(record.claim.path / SOURCE).hash_by(about.format) if record else None
    if about.record_sha256 != expected:
        return False
    return bool(_row(each)["verdict"] == BETTER)


def _effect(each: Accepted) -> float:
    return float(_row(each)["effect"])


def _row(each: Accepted) -> dict[str, Any]:
    """Return the verdict against the record of its time, or DDPM++ if there was none."""
    return _verdict(each.judged, RECORD if each.judged.about.record_sha256 else DDPMPP)


def _verdict(folder: Folder, against: str) -> dict[str, Any]:
    return dict(folder.verdicts().set_index("against").loc[against])


def current_record(track: LoadedTrack, records: Path = RECORDS) -> Entry | None:
    """Read the file of the record of a track; None if it is DDPM++."""
    record = record_of(accepted(track, records))
    return None if record is None else read_entry(record.claim.path / SOURCE)


def record_texts(root: Path) -> dict[Path, str]:
    """Return the page of the records with a table for each track, and a figure for each track with entries.

    Arguments:
        root: the checkout.

    Raises:
        ArtifactError: if the folder of an entry is damaged.
    """
    page, parts, texts = root / RECORDS / "README.md", [], {}
    for file in sorted((root / FOLDER).glob("*.yaml")):
        content = read_content(file)
        if not content.ranked:
            continue
        rows = _rows(file, root / RECORDS)
        parts.append(f"## Track {content.track}, version {content.version}\n\n{_track_text(content.track, rows)}\n")
        if rows:
            texts[root / RECORDS / f"{content.track}.svg"] = to_svg(records_figure(rows, content.track)).decode()
    block = "\n".join(["", *parts, ""])
    return texts | {page: BLOCK.sub(lambda found: found[1] + block + found[3], page.read_text(encoding="utf-8"))}


def _track_text(track: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No entries yet; the record is DDPM++."
    return f"{records_table(rows)}\n\n![Bounds of the entries against the operations of a step]({track}.svg)"


def _rows(file: Path, records: Path) -> list[dict[str, Any]]:
    # A track without entries needs no suite: whoever edits that suite for himself is not stopped.
    if not (records / file.stem).is_dir():
        return []
    found = accepted(load_track(str(file)), records)
    best = record_of(found)
    return [_row_of(each, best, records) for each in found]


def _row_of(each: Accepted, best: Accepted | None, records: Path) -> dict[str, Any]:
    models, path = each.judged.about.models, each.claim.path.relative_to(records)
    status = BEST if each is best else CLAIM if each.confirmed is None else CHECKED
    return {
        "label": each.claim.about.label,
        "link": f"{path.as_posix()}/README.md",
        "status": status,
        "cost": models[ENTRY].step_flops / models[DDPMPP].step_flops,
        "ddpmpp": _verdict(each.judged, DDPMPP),
        "record": _verdict(each.judged, RECORD) if RECORD in models else None,
    }
