"""Results in storages that are no folder: what S3 and ssh give back is what they were given, and nothing is computed again."""

import getpass
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from indm.strict_yaml import parse_yaml
from tests import kill, servers
from tests.checkout import REPOSITORY, commands, commit, run

MISSING = [
    name for name in ("moto", "flask_cors", "dvc_s3", "dvc_ssh", "snakemake_storage_plugin_s3") if not find_spec(name)
]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.storage,
    pytest.mark.skipif(
        bool(MISSING), reason=f"found no {', '.join(MISSING)}; pip install -e '.[storages]' installs what is missing"
    ),
]

LIMIT = 600
SNAKEMAKE, DVC = commands("smoke").values()
FILE = DVC[-1]
BUCKET = "bucket"
# Folders of what is no output of a stage that computes.
NO_OUTPUT = {"scratch", "provenance", "logs", "benchmarks", "code", "watch"}
# What holds times and machines, and manifests with the checksums of that.
TIMED = {"compute.csv", "compute.json", "table_compute.csv", "figure.json", "index.html", "report.json"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no key of the developer's go to a test's server, and no proxy stand between."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": servers.KEYS["access"],
        "AWS_SECRET_ACCESS_KEY": servers.KEYS["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": servers.KEYS["access"],
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY": servers.KEYS["secret"],
        "NO_PROXY": servers.HOST,
        "no_proxy": servers.HOST,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which Snakemake has run the suite, of one run, and DVC has adopted its results."""
    checkout = kill.copy_small(tmp_path_factory.mktemp("local"), "local")
    do(checkout, *SNAKEMAKE)
    do(checkout, "dvc", "repro", f"{FILE}:validate")
    do(checkout, "dvc", "commit", "--force", FILE)
    return checkout


def do(checkout: Path, *command: str) -> str:
    """Run a command that must succeed before its time is up; with it ends what it has started."""
    done = run(checkout, "timeout", "--kill-after=10", str(LIMIT), *command)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def profile() -> dict[str, Any]:
    found: dict[str, Any] = parse_yaml((REPOSITORY / "workflow/profiles/kubernetes/config.yaml").read_text())
    return found


def results(checkout: Path) -> dict[str, str]:
    """The SHA-256 of all that is an output of a stage."""
    return {
        str(path.relative_to(checkout)): sha256(path.read_bytes())
        for top in ("results", "reports")
        for path in (checkout / top).rglob("*")
        if path.is_file() and path.name != "README.md" and not NO_OUTPUT & set(path.relative_to(checkout).parts)
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def untimed(hashes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in hashes.items() if Path(name).name not in TIMED}


def push_and_pull(local: Path, folder: Path, url: str, options: dict[str, str], own: dict[str, str]) -> None:
    """Do what docs/share.md says, in two clones of a checkout, one of which has its cache.

    Arguments:
        local: the checkout.
        folder: where the clones go.
        url: of the remote.
        options: of the remote, for git.
        own: of the remote, for `.dvc/config.local`, which git ignores.
    """
    first, second = folder / "first", folder / "second"
    shutil.copytree(local, first, symlinks=True)
    do(first, "dvc", "remote", "add", "--default", "store", url)
    for name, value in options.items():
        do(first, "dvc", "remote", "modify", "store", name, value)
    commit(first, "Results")
    do(folder, "git", "clone", "--quiet", str(first), str(second))
    for checkout in (first, second):
        for name, value in own.items():
            do(checkout, "dvc", "remote", "modify", "--local", "store", name, value)
    do(first, "dvc", "push", FILE)
    # Nothing can come from where it was made.
    shutil.rmtree(first)
    do(second, "dvc", "pull", FILE)
    do(second, "dvc", "repro", f"{FILE}:validate")
    assert "Running stage" not in do(second, "dvc", "repro", "--dry", FILE)
    pulled = results(second)
    assert f"results/smoke/runs/{kill.RUN}/checkpoint.safetensors" in pulled
    # Copies of the tables, which only the default suite's dvc.yaml makes.
    made = {name: value for name, value in results(local).items() if not name.startswith("results/table_")}
    assert pulled == made


def test_a_clone_pulls_from_s3_and_computes_nothing(local: Path, tmp_path: Path) -> None:
    # Of its own: servers of one process have the same buckets.
    with servers.s3("remote") as url:
        push_and_pull(local, tmp_path, "s3://remote/indm", {"endpointurl": url}, {})
        assert len(servers.s3_objects(url, "remote")) > 20


@pytest.mark.parametrize("server", [servers.openssh, servers.asyncssh], ids=["openssh", "asyncssh"])
def test_a_clone_pulls_by_ssh_and_computes_nothing(
    local: Path, tmp_path: Path, server: Callable[[Path], AbstractContextManager[servers.Ssh]]
) -> None:
    for name in ("server", "store"):
        (tmp_path / name).mkdir()
    with server(tmp_path / "server") as ssh:
        url = f"ssh://{getpass.getuser()}@{servers.HOST}:{ssh.port}{tmp_path}/store"
        push_and_pull(local, tmp_path, url, {}, {"keyfile": str(ssh.key), "allow_agent": "false"})
    assert len(list((tmp_path / "store").rglob("*"))) > 20


@pytest.fixture
def in_s3(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A checkout as a pod of the Kubernetes profile makes it, and the S3 where its results lie."""
    # First the links, then the files that git knows, some of which lie below them.
    (tmp_path / "pod").mkdir()
    do(tmp_path / "pod", "bash", "-c", profile()["precommand"])
    with servers.s3(BUCKET) as url:
        yield kill.copy_small(tmp_path, "pod"), url


def test_snakemake_with_its_results_in_s3_makes_the_same_bytes(local: Path, in_s3: tuple[Path, str]) -> None:
    """All that the Kubernetes profile does with a storage, on one machine."""
    checkout, url = in_s3
    options = [f"--{name}={profile()[name]}" for name in ("default-storage-provider", "default-storage-prefix")]
    command = [*SNAKEMAKE, *options, f"--storage-s3-endpoint-url={url}"]
    do(checkout, *command)
    found = {name.removeprefix("indm/"): content for name, content in servers.s3_objects(url, BUCKET).items()}
    # Logs and benchmarks lie there too.
    stored = {name: sha256(content) for name, content in found.items() if not NO_OUTPUT & set(Path(name).parts)}
    expected = results(local)
    assert set(stored) == set(expected)
    assert untimed(stored) == untimed(expected)
    assert "Nothing to be done" in do(checkout, *command)
