"""The records: accepted entries in ``docs/records``, and the best confirmed one of a track."""

from dataclasses import dataclass
from pathlib import Path

from indm.bench.entries.entry import Entry, read_entry
from indm.bench.entries.folder import CONFIRMED, SOURCE, Folder, read_folder
from indm.bench.entries.tracks import LoadedTrack
from indm.report.entries import DDPMPP, RECORD
from indm.report.grades import BETTER

RECORDS = Path("docs/records")


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
    return [each for each in found if each.claim.about["track_sha256"] == track.sha256]


def _confirmed(folder: Path) -> Folder | None:
    """Read the maintainers' run of an entry; one without a nonce or of another file confirms nothing."""
    if not (folder / CONFIRMED / "entry.json").is_file():
        return None
    claim, found = read_folder(folder), read_folder(folder / CONFIRMED)
    same = all(found.about[key] == claim.about[key] for key in ("sha256", "track_sha256"))
    return found if same and found.about["nonce"] else None


def record_of(found: list[Accepted]) -> Accepted | None:
    """Find the record: from DDPM++ on, the confirmed entry that was better than the record of its time by most, and so on."""
    record: Accepted | None = None
    while better := [each for each in found if _beats(each, record)]:
        record = max(better, key=_effect)
    return record


def _beats(each: Accepted, record: Accepted | None) -> bool:
    if each.confirmed is None or each.confirmed.about["record_sha256"] != (record.claim.about["sha256"] if record else None):
        return False
    return bool(_row(each)["verdict"] == BETTER)


def _effect(each: Accepted) -> float:
    return float(_row(each)["effect"])


def _row(each: Accepted) -> "dict[str, object]":
    """Return the verdict against the record of its time, or DDPM++ if there was none."""
    folder = each.judged
    against = RECORD if folder.about["record_sha256"] else DDPMPP
    rows = folder.verdicts().set_index("against")
    return dict(rows.loc[against])


def current_record(track: LoadedTrack, records: Path = RECORDS) -> Entry | None:
    """Read the file of the record of a track; None if it is DDPM++."""
    record = record_of(accepted(track, records))
    return None if record is None else read_entry(record.claim.path / SOURCE)
