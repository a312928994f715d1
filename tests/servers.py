"""Servers of the tests' own, on loopback alone: one that speaks S3, and two that speak ssh, with keys that are made up."""

import asyncio
import getpass
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HOST = "127.0.0.1"
# moto looks at neither; libraries want both.
KEYS = {"access": "made-up", "secret": "made-up-too"}
START_SECONDS = 60.0


class Ssh(NamedTuple):
    """Where an ssh server listens, and the private key that it lets in."""

    port: int
    key: Path


@contextmanager
def s3(bucket: str) -> Iterator[str]:
    """Serve S3 with one empty bucket, out of memory; yields the server's URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        s3_client(url).create_bucket(Bucket=bucket)
        yield url
    finally:
        server.stop()


def s3_client(url: str) -> Any:
    """Return what talks to a server of :func:`s3`; boto3 makes its class when it is asked for one."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1",
        aws_access_key_id=KEYS["access"], aws_secret_access_key=KEYS["secret"],
    )  # fmt: skip


def s3_objects(url: str, bucket: str) -> dict[str, bytes]:
    """Read all that lies in a bucket."""
    client = s3_client(url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    names = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}


@contextmanager
def openssh(folder: Path) -> Iterator[Ssh]:
    """Run OpenSSH's server as this user, for this user, with all its files in a folder; skip the test where it cannot run."""
    # It lies where users' paths do not lead.
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if sshd is None:
        pytest.skip("no sshd on this machine; OpenSSH's package of it is openssh-server")
    key = _key(folder / "user")
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress {HOST}\nPort {port}\nHostKey {_key(folder / 'host')}\nAuthorizedKeysFile {key}.pub\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    checked = subprocess.run([sshd, "-t", *command[2:]], capture_output=True, text=True, check=False)
    if "privilege separation directory" in checked.stderr:
        pytest.skip(f"sshd, run by root, asks for a folder that its service makes: {checked.stderr.strip()}")
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_for(port, folder / "log")
            yield Ssh(port, key)
        finally:
            process.terminate()


@contextmanager
def asyncssh(folder: Path) -> Iterator[Ssh]:
    """Serve files over ssh from a thread of this process, by the library that DVC's remote uses as a client."""
    import asyncssh as library

    key = _key(folder / "user")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> Any:
        keys = {"server_host_keys": [str(_key(folder / "host"))], "authorized_client_keys": f"{key}.pub"}
        return await library.listen(HOST, 0, sftp_factory=True, **keys)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(START_SECONDS)
    try:
        yield Ssh(server.get_port(), key)
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS)


def _key(path: Path) -> Path:
    """Make a pair of keys; the public one lies beside it."""
    from asyncssh import generate_private_key

    key = generate_private_key("ssh-ed25519", comment=getpass.getuser())
    path.touch(mode=0o600)
    key.write_private_key(path)
    key.write_public_key(f"{path}.pub")
    return path


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, log: Path) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return
