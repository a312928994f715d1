"""The Containerfile, read: there may be no engine to build it. `make lint` has hadolint look at it, too."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from indm import __version__
from indm.strict_yaml import parse_yaml
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PROFILE = parse_yaml((REPOSITORY / "workflow/profiles/kubernetes/config.yaml").read_text())
SCRIPT = REPOSITORY / "workflow/requirements.py"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile: the word, and what follows it on one line."""
    text = re.sub(r"^#.*\n", "", (REPOSITORY / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def arguments(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def copied() -> list[str]:
    """What of the checkout the image gets."""
    return [source for rest in arguments("COPY") for source in rest.split()[:-1]]


def test_the_base_is_one_release_of_a_python_that_the_project_allows() -> None:
    (base,) = arguments("FROM")
    (version,) = re.findall(r"^python:(\d+\.\d+\.\d+)-slim-\w+$", base)
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (REPOSITORY / ".containerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[1] == "*"
    for source in copied():
        assert (REPOSITORY / source).exists(), source
        assert any(Path(source).is_relative_to(path) for path in allowed), source
    for path in allowed:
        assert any(Path(source).is_relative_to(path) for source in copied()), path
    assert (REPOSITORY / ".dockerignore").read_text().splitlines() == ignored


def test_links_of_the_package_lead_to_what_is_copied() -> None:
    links = [path for path in (REPOSITORY / "indm").rglob("*") if path.is_symlink()]
    if not links:
        pytest.skip("found files in place of links: this is the sdist")
    for link in links:
        target = link.resolve().relative_to(REPOSITORY)
        assert any(target.is_relative_to(source) for source in copied()), link


def test_dependencies_are_installed_before_code_comes() -> None:
    """Else an edited line would install all of them again."""
    order = [f"{word} {rest}" for word, rest in instructions()]
    (project,) = [line for line in order if line.startswith("COPY pyproject.toml")]
    (install,) = [line for line in order if "--requirement requirements.txt" in line]
    assert order.index(project) < order.index(install) < order.index("COPY indm indm")


def test_the_user_is_a_number_and_not_root() -> None:
    *_, user = arguments("USER")
    assert int(user) > 0
    assert f"--uid {user} " in " ".join(arguments("RUN"))
    assert instructions().index(("USER", user)) > max(instructions().index(("RUN", rest)) for rest in arguments("RUN"))


def test_the_entry_is_the_command_of_the_package() -> None:
    (entry,) = arguments("ENTRYPOINT")
    assert json.loads(entry)[0] in PROJECT["scripts"]


def test_requirements_are_those_of_the_project_and_of_the_extra() -> None:
    (command,) = re.findall(r"python requirements.py (\w+) >", " ".join(arguments("RUN")))
    printed = subprocess.run(
        [sys.executable, str(SCRIPT), command], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    extras = PROJECT["optional-dependencies"]
    assert extras[command][0] == "indm[bench]"
    assert printed.stdout.splitlines() == PROJECT["dependencies"] + extras["bench"] + extras[command][1:]


def test_an_unknown_extra_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "gpu"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("found no extra gpu in pyproject.toml; there are: bench, slurm, kubernetes, ")


@pytest.mark.parametrize("page", ["docs/install.md", "docs/cluster.md"])
def test_pages_name_arguments_that_the_containerfile_has(page: str) -> None:
    named = re.findall(r"--build-arg (\w+)=", (REPOSITORY / page).read_text())
    assert named
    assert set(named) <= {rest.partition("=")[0] for rest in arguments("ARG")}


def test_the_kubernetes_profile_names_the_image_that_the_page_builds_and_pushes() -> None:
    (image,) = re.findall(r"^IMAGE=(\S+)", (REPOSITORY / "docs/cluster.md").read_text(), flags=re.MULTILINE)
    assert PROFILE["container-image"] == image
    assert image.rpartition(":")[2].startswith(f"{__version__}-")


def test_the_development_container_is_this_image_with_the_tools_for_tests() -> None:
    folder = REPOSITORY / ".devcontainer"
    settings = json.loads((folder / "devcontainer.json").read_text())
    assert (folder / settings["build"]["dockerfile"]).resolve() == REPOSITORY / "Containerfile"
    # The instructions copy from the top of the checkout.
    assert (folder / settings["build"]["context"]).resolve() == REPOSITORY
    (made,) = [rest for rest in arguments("RUN") if "useradd" in rest]
    assert f" {settings['remoteUser']} " in made
    ((lock, extra),) = re.findall(r"--constraint (\S+) --editable '\.\[(\w+)\]'", settings["postCreateCommand"])
    assert (REPOSITORY / lock).is_file()
    assert extra in PROJECT["optional-dependencies"]
