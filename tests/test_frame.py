"""The files around the package say the same as it does: environment, lock file, README, Makefile."""

import glob
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from indm import __version__
from indm.bench.cli import main
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite
from indm.strict_yaml import parse_yaml
from tests.conftest import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
(BACKEND,) = PYPROJECT["build-system"]["requires"]
# Of requirements.hashes.lock.
HASHED_EXTRAS = ["kubernetes", "s3", "slurm", "ssh"]
README = (REPOSITORY / "README.md").read_text()


def requirements(*names: str) -> list[Requirement]:
    """What the package needs with these extras, each of which has the extra `bench`."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["bench"], *(line for name in names for line in extras[name])]
    return [Requirement(line) for line in lines if line != "indm[bench]"]


def test_conda_environment_is_python_and_this_package() -> None:
    environment = parse_yaml((REPOSITORY / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]
    assert {"pip": ["-e .[dev]"]} in environment["dependencies"]


def locked(file: str) -> dict[str, Requirement]:
    """What a lock file pins, by name."""
    text = (REPOSITORY / file).read_text().replace("\\\n", "")
    lines = [line.partition(" --hash")[0] for line in map(str.strip, text.splitlines()) if not line.startswith("#")]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def test_lock_file_holds_every_requirement_at_a_version_it_allows() -> None:
    pins = locked("requirements.lock")
    for requirement in requirements("dev", "storages"):
        pin = pins[canonicalize_name(requirement.name)]
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version), f"{pin} against {requirement}"


def test_lock_file_with_hashes_holds_what_runs_a_suite_somewhere() -> None:
    pins = locked("requirements.hashes.lock")
    for requirement in requirements(*HASHED_EXTRAS):
        (specifier,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(specifier.version), str(requirement)
    assert {canonicalize_name(requirement.name) for requirement in requirements("dev")} - pins.keys() >= {
        "mypy",
        "pytest",
    }


def test_lock_files_agree() -> None:
    """What one alone has is a tool for tests, or of some systems alone. pip does not list setuptools."""
    plain, hashed = locked("requirements.lock"), locked("requirements.hashes.lock")
    assert Requirement(BACKEND).specifier.contains(str(hashed.pop("setuptools").specifier).removeprefix("=="))
    for name, pin in hashed.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert plain[name].specifier.contains(specifier.version) if name in plain else pin.marker, str(pin)


def test_every_package_of_the_lock_file_with_hashes_has_one_and_no_index() -> None:
    entries = re.split(r"\n(?=\S)", (REPOSITORY / "requirements.hashes.lock").read_text().rstrip("\n"))
    entries = [entry for entry in entries if not entry.startswith("#")]
    for entry in entries:
        _, *hashes = entry.replace("\\", "").splitlines()
        assert hashes
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} ?", line) for line in hashes), entry
    assert len(entries) == len(locked("requirements.hashes.lock"))


def test_make_lock_has_the_extras_that_are_documented() -> None:
    makefile, page = (REPOSITORY / "Makefile").read_text(), (REPOSITORY / "docs/install.md").read_text()
    assert f"$(addprefix --extra ,{' '.join(HASHED_EXTRAS)})" in makefile
    assert "has the extras `{}`, `{}`, `{}` and `{}`.".format(*HASHED_EXTRAS) in page


def test_requirements_give_ranges_and_not_one_version() -> None:
    for requirement in requirements("dev", "storages"):
        assert requirement.specifier, f"{requirement}: no lower bound"
        assert all(specifier.operator != "==" for specifier in requirement.specifier), str(requirement)


def test_every_suite_has_a_purpose_and_a_cost() -> None:
    page = (REPOSITORY / "docs/reference/suites.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| \S[^|]* \| .* \| \S[^|]* \| [^|]* \|$", page, flags=re.MULTILINE)
    assert set(rows) == {path.stem for path in suite_files(REPOSITORY / "params")}


def test_the_reference_has_every_command_stage_and_key() -> None:
    folder = REPOSITORY / "docs/reference"
    schema = json.loads((REPOSITORY / "params/schema.json").read_text())
    sections = [schema, *(section for name, section in schema["$defs"].items() if not name.endswith("Override"))]
    pages = {
        "command-line.md": {
            *(f"`indm {command}" for command in main.commands),
            *(f"\n| `{stage}` |" for stage in STAGES),
        },
        "suite-file.md": {f"\n| `{key}` |" for section in sections for key in section.get("properties", ())},
    }
    for page, expected in pages.items():
        text = (folder / page).read_text()
        assert {line for line in expected if line not in text} == set()


# Commands that name runs of a suite: the suite, none for the default one, and the runs.
COMMANDS = [
    r"--suite params/([\w-]+)\.yaml --run ([\w-]+)",
    r"SUITE=([\w-]+) WEIGHTS=\"([\w -]+)\"",
    r"workflow/dvc/([\w-]+)/dvc\.yaml:\w+@([\w-]+)",
    r"()[`\s]\w+@([\w-]+-s\d+)",
    r"results/([\w-]+)/runs/([\w-]+)/",
]


@pytest.mark.parametrize("pattern", COMMANDS)
def test_commands_of_the_docs_name_runs_that_their_suites_have(pattern: str) -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    found = {match for page in pages for match in re.findall(pattern, page.read_text())}
    assert found
    for suite, runs in found:
        known = load_suite(REPOSITORY / f"params/{suite or 'digits'}.yaml").runs.keys()
        assert set(runs.split()) <= known, (suite, runs)


def test_every_file_of_the_package_that_is_no_module_is_its_data() -> None:
    """Else an installation without the checkout would lack it."""
    package = REPOSITORY / "indm"
    files = {
        path
        # Links too are packed as what they lead to.
        for path in map(Path, glob.glob(f"{package}/**", recursive=True))
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    patterns = SETUPTOOLS["package-data"].items()
    assert files == {
        path
        for name, wanted in patterns
        for pattern in wanted
        for path in REPOSITORY.joinpath(*name.split(".")).glob(pattern)
        if path.is_file()
    }
    assert files


def test_readme_has_no_gaps() -> None:
    assert "@" not in re.sub(r"`[^`]*`|```.*?```", "", README, flags=re.DOTALL)


def test_snakefile_asks_for_the_oldest_snakemake_that_the_project_allows() -> None:
    (found,) = re.findall(r'^min_version\("(.+)"\)$', (REPOSITORY / "Snakefile").read_text(), flags=re.MULTILINE)
    (snakemake,) = (requirement for requirement in requirements() if requirement.name == "snakemake")
    assert f">={found}" in map(str, snakemake.specifier)


def releases() -> list[tuple[str, str]]:
    """Version and date of each release in the changelog, the newest first."""
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    return re.findall(r"^## \[?([\d.]+)\]? - (\S+)$", changelog, flags=re.MULTILINE)


def tags(*options: str) -> list[str]:
    """The releases that git has tags of; none outside a checkout."""
    command = ["git", "tag", "--list", "v*", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return [tag.removeprefix("v") for tag in done.stdout.split()]


def test_the_newest_release_is_the_one_to_cite() -> None:
    citation = parse_yaml((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == releases()[0]


def test_what_is_not_released_has_the_version_of_the_next_release() -> None:
    newest, unreleased = releases()[0][0], "\n## Unreleased\n" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "indm.__version__"}
    assert Version(__version__).is_devrelease == unreleased
    assert Version(__version__) > Version(newest) if unreleased else __version__ == newest


def test_tags_are_releases_of_the_changelog() -> None:
    assert set(tags()) <= {version for version, _ in releases()}
    assert set(tags("--points-at", "HEAD")) <= {__version__}


def test_jobs_of_the_ci_are_parts_of_its_script() -> None:
    jobs = parse_yaml((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    script = (REPOSITORY / ".ci/run").read_text()
    assert f"set -- {' '.join(jobs)}\n" in script
    for name, job in jobs.items():
        assert job["steps"][-1] == {"run": f".ci/run {name}"}
        assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
