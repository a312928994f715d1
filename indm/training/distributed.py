"""Several processes that train one model: each takes its part of every batch, and their gradients are added up.

Without a group, each function here is what it is for one process alone. Processes are started by :func:`launch`, or by
``torchrun``; they find each other by the variables that ``torchrun`` sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT).
"""

import contextlib
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, spawn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from indm.errors import IndmError, StoppedError

# Of the other processes, after one has ended in an error: they may wait for it for ever.
GRACE_SECONDS = 30


def rank() -> int:
    """Return the number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def add_up(value: Tensor) -> Tensor:
    """Replace a tensor by its sum over the processes."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of parameters by their sums over the processes, in one message."""
    if dist.is_initialized():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        vector_to_parameters(add_up(parameters_to_vector(gradients)), gradients)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    r"""Batch norm, in training, by the mean and the variance over the parts of all processes: those of one process's batch.

    .. math:: y = \gamma \frac{x - \bar x}{\sqrt{\overline{(x - \bar x)^2} + \epsilon}} + \beta

    PyTorch's ``SyncBatchNorm`` does the same on GPUs, and refuses CPUs.

    References:
        | Batch Normalization (Ioffe & Szegedy, 2015), algorithm 1
        | https://arxiv.org/abs/1502.03167
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return y, with the shape of x, (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        count = add_up(x.new_tensor(x.numel() / x.shape[1]))
        mean = _sum_over_processes(x) / count
        centred = x - mean[:, None, None]
        variance = _sum_over_processes(centred.square()) / count
        with torch.no_grad():
            self._follow(mean, variance * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch, as batch norm does unless told otherwise."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def _sum_over_processes(x: Tensor) -> Tensor:
    """Sum x, with shape (B, C, H, W), over all but its channels and over the processes; its gradient is passed to all."""
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x.sum((0, 2, 3)))


def synchronise_batch_norms(module: nn.Module) -> None:
    """Let the batch norms within a module, if several processes train it, see what all of them see."""
    if not dist.is_initialized():
        return
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            # The same module with the same tensors, whoever else refers to them.
            child.__class__ = SynchronisedBatchNorm2d


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process: what all of them then know at the same step."""
    return bool(add_up(torch.tensor(float(flag), device=device)).item())


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first process."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait_for_all(device: torch.device) -> None:
    """Wait until every process is here."""
    any_process(False, device)


def started_by_torchrun() -> bool:
    """Return whether this is one of several processes that something else has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the group of the processes, and return this one's device: a GPU of its own, or the CPU."""
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def launch(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in several new processes; SIGTERM is passed on to them.

    Returns:
        What it returns in the first of them.

    Raises:
        IndmError: the first that a process raised.
        StoppedError: if a process was ended from outside.
    """
    # Of this process, so that the port is one that is free.
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with TemporaryDirectory() as folder:
        context = spawn(_work, (count, store.port, Path(folder), function, arguments), count, join=False)
        assert context is not None
        before = signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in context.processes])
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            # What is wrong with one process makes others fail too, in words that are no one's.
            for path in sorted(Path(folder).glob("error-*")):
                raise pickle.loads(path.read_bytes()) from None
            if not isinstance(error, ProcessExitedException) or error.signal_name is None:
                raise
            raise StoppedError(
                f"process {error.error_index} of {count} was ended by {error.signal_name}; "
                "run it again to go on from what was saved"
            ) from None
        finally:
            signal.signal(signal.SIGTERM, before)
        return pickle.loads(Path(folder, "result").read_bytes())


def _write(path: Path, content: object) -> None:
    """Write for the process that waits; whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(pickle.dumps(content))
    temporary.replace(path)


def _work(
    number: int,
    count: int,
    port: int,
    folder: Path,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Call the function in process ``number``, told what ``torchrun`` would tell it."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    try:
        result = function(*arguments)
        if number == 0:
            _write(folder / "result", result)
    except IndmError as error:
        _write(folder / f"error-{number}", error)
        raise SystemExit(1) from None
