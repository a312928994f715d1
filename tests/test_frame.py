"""The files around the package say the same as it does: environment, lock file, README, Makefile."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indm.suite.expand import suite_files
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
README = (REPOSITORY / "README.md").read_text()


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def test_conda_environment_is_python_and_this_package() -> None:
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
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
        assert (REPOSITORY / path).exists(), path


def test_readme_has_a_row_for_every_suite() -> None:
    rows = set(re.findall(r"^\| `([\w-]+)`(?: \(default\))? \|", README, flags=re.MULTILINE))
    assert rows >= {path.stem for path in suite_files(REPOSITORY / "params")}


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
