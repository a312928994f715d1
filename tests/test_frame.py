"""The files around the package say the same as it does: environment, lock file, README, Makefile."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indm import __version__
from indm.suite.expand import suite_files
from indm.suite.load import load_suite
from indm.suite.strict_yaml import parse_yaml
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
README = (REPOSITORY / "README.md").read_text()


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def test_conda_environment_is_python_and_this_package() -> None:
    environment = parse_yaml((REPOSITORY / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]
    assert {"pip": ["-e .[dev]"]} in environment["dependencies"]


def test_lock_file_holds_every_requirement_at_a_version_it_allows() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    locked = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    for requirement in requirements():
        pin = locked[canonicalize_name(requirement.name)]
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version), f"{pin} against {requirement}"


def test_requirements_give_ranges_and_not_one_version() -> None:
    for requirement in requirements():
        assert requirement.specifier, f"{requirement}: no lower bound"
        assert all(specifier.operator != "==" for specifier in requirement.specifier), str(requirement)


def test_readme_names_targets_suites_and_files_that_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for suite in re.findall(r"--config suite=([\w-]+)", README):
        assert (REPOSITORY / "params" / f"{suite}.yaml").is_file(), suite
    for suite in re.findall(r"workflow/dvc/([\w-]+)/dvc\.yaml", README):
        assert (REPOSITORY / "params" / f"{suite}.yaml").is_file(), suite
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (REPOSITORY / path.partition("#")[0]).exists(), path


def test_readme_has_a_row_for_every_suite() -> None:
    rows = set(re.findall(r"^\| `([\w-]+)`(?: \(default\))? \|", README, flags=re.MULTILINE))
    assert rows >= {path.stem for path in suite_files(REPOSITORY / "params")}


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
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    patterns = SETUPTOOLS["package-data"].items()
    assert files == {
        path
        for name, globs in patterns
        for glob in globs
        for path in REPOSITORY.joinpath(*name.split(".")).glob(glob)
        if path.is_file()
    }
    assert files


def test_readme_has_no_gaps() -> None:
    assert "@" not in re.sub(r"`[^`]*`|```.*?```", "", README, flags=re.DOTALL)


def test_snakefile_asks_for_the_oldest_snakemake_that_the_project_allows() -> None:
    (found,) = re.findall(r'^min_version\("(.+)"\)$', (REPOSITORY / "Snakefile").read_text(), flags=re.MULTILINE)
    (snakemake,) = (requirement for requirement in requirements() if requirement.name == "snakemake")
    assert f">={found}" in map(str, snakemake.specifier)


def test_the_version_is_one_and_the_changelog_has_it() -> None:
    citation = parse_yaml((REPOSITORY / "CITATION.cff").read_text())
    (newest, date) = re.findall(
        r"^## \[?([\d.]+)\]? - (\S+)$", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )[0]
    assert __version__ == citation["version"] == newest
    assert str(citation["date-released"]) == date


def test_jobs_of_the_ci_are_parts_of_its_script() -> None:
    jobs = parse_yaml((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    script = (REPOSITORY / ".ci/run").read_text()
    assert f"set -- {' '.join(jobs)}\n" in script
    for name, job in jobs.items():
        assert job["steps"][-1] == {"run": f".ci/run {name}"}
        assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
