"""A small suite in shards, by both engines: the bytes of the same suite without them, and what is left to do then."""

import re
import shutil
from pathlib import Path

import pytest

from indm.strict_yaml import parse_yaml, yaml_text
from tests.checkout import add_dvc_file, copy_checkout, finish, run, start

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RUN = "digits-vp-indm-fid-s0"
STAGES = ("sample", "nll", "sweep")
COUNTS = {"sample": 2, "nll": 2, "sweep": 3}
WRITTEN = [
    *(f"{name}" for name in ("samples.npy", "samples.json", "samples.png", "neighbours.png", "diffusion.png")),
    *("nll.csv", "nll.json", "sweep.csv"),
    *(f"manifest/{stage}.json" for stage in STAGES),
]
TARGETS = [f"results/smoke/runs/{RUN}/manifest/{stage}.json" for stage in STAGES]
SNAKEMAKE = ["snakemake", "--cores", "1", "--config", "suite=smoke", "--", *TARGETS]
DVC = ["dvc", "repro", *(f"workflow/dvc/smoke/dvc.yaml:{stage}@{RUN}" for stage in STAGES)]


def write_suite(checkout: Path, **changes: object) -> None:
    """Cut the smoke suite down to one run, with changes."""
    path = checkout / "params/smoke.yaml"
    suite = parse_yaml(path.read_text())
    suite["sweep"] |= {"samplers": ["ancestral", "ode_euler"], "batch_size": 20}
    suite["grading"] |= {"samplers": None, "images": {"simple": None, "scale": None}}
    suite |= {"runs": {RUN: suite["runs"][RUN]}, "tune": {}}
    path.write_text(yaml_text(suite | changes))


def outputs(checkout: Path) -> dict[str, bytes]:
    return {name: (checkout / "results/smoke/runs" / RUN / name).read_bytes() for name in WRITTEN}


def left(checkout: Path) -> set[str]:
    """Name the stages that Snakemake would run now."""
    done = run(checkout, *SNAKEMAKE[:-4], "--dry-run", "--", *TARGETS)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^Job \d+: (\w+) ", done.stdout + done.stderr, flags=re.MULTILINE))


def test_both_engines_make_the_bytes_of_a_suite_without_shards(smoke: Path, tmp_path: Path) -> None:
    """Snakemake goes on from a training that is finished, DVC begins with nothing."""
    whole, snakemake = (Path(shutil.copytree(smoke, tmp_path / name, symlinks=True)) for name in ("whole", "snakemake"))
    dvc = copy_checkout(tmp_path / "dvc")
    for name in WRITTEN:
        (snakemake / "results/smoke/runs" / RUN / name).unlink()
    write_suite(whole)
    for checkout in (snakemake, dvc):
        write_suite(checkout, shards=COUNTS)
    add_dvc_file(dvc, "smoke")
    for checkout, command in ((whole, SNAKEMAKE), (snakemake, SNAKEMAKE), (dvc, DVC)):
        done = finish(start(checkout, command))
        assert done.returncode == 0, done.stdout + done.stderr
    assert outputs(snakemake) == outputs(dvc) == outputs(whole)
    # Snakemake removes shards once they are gathered; DVC keeps what it tracks.
    found = {
        checkout: len(list(checkout.glob("results/smoke/runs/*/shards/*/*.safetensors")))
        for checkout in (snakemake, dvc)
    }
    assert found == {snakemake: 0, dvc: sum(COUNTS.values())}
    assert left(snakemake) == left(whole) == set()
    again = run(dvc, *DVC)
    assert "Running stage" not in again.stdout
    # What is finished stays finished with another number of shards, if Snakemake is told so.
    for counts in (COUNTS, dict.fromkeys(COUNTS, 2)):
        for checkout in (whole, snakemake):
            write_suite(checkout, shards=counts)
            touched = run(checkout, *SNAKEMAKE[:-4], "--touch", "--", *TARGETS)
            assert touched.returncode == 0, touched.stderr
            assert left(checkout) == set()
    assert outputs(whole) == outputs(snakemake) == outputs(dvc)
