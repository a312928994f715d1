"""Several processes that train one model: each takes its part of every batch, and PyTorch averages their gradients.

Without a process group, each function here acts as for a single process. Processes are started by :func:`launch` or
``torchrun``, and find each other by the environment variables that ``torchrun`` sets (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
"""

import contextlib
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, spawn
from torch.nn.parallel import DistributedDataParallel

from indm.errors import IndmError, StoppedError, memory_errors

# Time for the other processes to end after one has failed, because they might wait for it forever.
GRACE_SECONDS = 30
T = TypeVar("T")


def rank() -> int:
    """Return the number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def sum_over_processes(value: Tensor) -> Tensor:
    """Replace a tensor by its sum over the processes.

    Arguments:
        value: the numbers of this process; their shape is arbitrary, but the same in all processes. Changed in place.

    Returns:
        The same tensor.
    """
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


class Networks(nn.Module):
    """Networks that are trained together as one module, because PyTorch averages gradients per module.

    Arguments:
        networks: the networks in the order in which data pass them; their gradients are sent in the opposite order.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that uses the networks."""
        return function(*arguments)


def replicate(networks: Sequence[nn.Module]) -> nn.Module:
    """Average the gradients of networks over the processes, sending them while later gradients are computed.

    Each call and its backward pass must give a gradient to every parameter that requires one. With a single process the
    gradients do not change.

    Returns:
        A module that calls functions of the networks; see :class:`Networks`.
    """
    if not dist.is_initialized():
        return Networks(networks)
    # Gradients are not views of DDP's messages, because they must remain parts of one tensor (indm.training.flat).
    replicas = DistributedDataParallel(Networks(networks), broadcast_buffers=False)
    # From the second step on, PyTorch packs gradients into messages in the order of their arrival in the first step. With
    # three processes or more, the place in a message decides in which order numbers are added. A first step whose gradients
    # arrive in the networks' order therefore makes a resumed training round in the same way as an undisturbed one.
    parameters = [parameter for parameter in replicas.parameters() if parameter.requires_grad]
    replicas(lambda: sum(parameter.sum() for parameter in parameters)).backward()
    return replicas


def unsynchronised(replicas: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Keep gradients local inside the block; the next call outside it averages them together with its gradients."""
    if isinstance(replicas, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = replicas.no_sync()
        return context
    return contextlib.nullcontext()


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    r"""Batch norm that in training uses the mean and variance of the whole batch, over the parts of all processes.

    .. math:: y = \gamma \frac{x - \bar x}{\sqrt{\overline{(x - \bar x)^2} + \epsilon}} + \beta

    It serves CPUs, which PyTorch's ``SyncBatchNorm`` does not support.

    References:
        | Batch Normalization (Ioffe & Szegedy, 2015), algorithm 1
        | https://arxiv.org/abs/1502.03167
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the activations of this process, and in training update the running statistics.

        In training, the means over the whole batch are taken for each channel over images, height and width; in eval mode,
        the running statistics take their place.

        Arguments:
            x: activations for the B images of this process, shape (B, C, H, W).

        Returns:
            y with shape (B, C, H, W).
        """
        if not self.training:
            return super().forward(x)
        count = sum_over_processes(x.new_full((), x.numel() / x.shape[1]))
        mean = _channel_sums(x) / count
        centred = x - mean[:, None, None]
        variance = _channel_sums(centred.square()) / count
        with torch.no_grad():
            self._follow(mean, variance * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with the statistics of a batch, as batch norm does by default."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def _channel_sums(x: Tensor) -> Tensor:
    """Sum x, (B, C, H, W) to (C,), over all other dimensions and over the processes, which all receive the gradient."""
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x.sum((0, 2, 3)))


def synchronise_batch_norms(module: nn.Module) -> None:
    """Let the batch norms within a module use the batches of all processes, if several processes train it."""
    if not dist.is_initialized():
        return
    for child in list(module.modules()):
        for name, norm in child.named_children():
            if type(norm) is nn.BatchNorm2d and norm.weight.device.type == "cuda":
                setattr(child, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
            elif type(norm) is nn.BatchNorm2d:
                # In place, because other objects may refer to the module and its tensors.
                norm.__class__ = SynchronisedBatchNorm2d


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process, so that all processes know it at the same step."""
    return bool(sum_over_processes(torch.tensor(float(flag), device=device)).item()) if dist.is_initialized() else flag


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their values in the first process.

    Arguments:
        tensors: tensors of arbitrary shapes, which are the same in all processes, in the same order. Changed in place.
    """
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait_for_all(device: torch.device) -> None:
    """Wait until every process calls this function."""
    any_process(False, device)


@contextlib.contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the process group, and yield the device of this process: a separate GPU, or the CPU."""
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with warnings.catch_warnings():
            # Older releases lack the successors of the functions that this module calls.
            warnings.filterwarnings("ignore", category=FutureWarning, module=__name__)
            # It concerns gradients with a dimension of size 1, whose stride is irrelevant.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield device
    finally:
        dist.destroy_process_group()


def launch(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in several new processes, which receive SIGTERM and then take the time that they need to end.

    PyTorch's launcher (``torchrun``, ``torch.distributed.launcher``) kills its processes 30 seconds after SIGTERM, even while
    they are saving, and not all of its releases allow another time. It also loses their results and errors after the
    signal.

    Returns:
        The result of the function in the first process.

    Raises:
        IndmError: the first error that a process raised.
        StoppedError: if a process was ended from outside.
    """
    # The store runs in this process, so that its port is free.
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with TemporaryDirectory() as folder:
        context = spawn(_work, (count, store.port, Path(folder), function, arguments), count, join=False)
        assert context is not None
        before = signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in context.processes])
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            # An error in one process makes the others fail too, with messages that do not name the cause.
            for path in sorted(Path(folder).glob("error-*")):
                raise pickle.loads(path.read_bytes()) from None
            if not isinstance(error, ProcessExitedException) or error.signal_name is None:
                raise
            raise StoppedError(
                f"process {error.error_index} of {count} was ended by {error.signal_name}; "
                "run it again to continue from the saved state"
            ) from None
        finally:
            signal.signal(signal.SIGTERM, before)
        return pickle.loads(Path(folder, "result").read_bytes())


def _write(path: Path, content: object) -> None:
    """Write a result for the process that waits, completely or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(pickle.dumps(content))
    temporary.replace(path)


def _work(
    number: int, count: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Call the function in process ``number``, with the environment variables that ``torchrun`` would set."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    try:
        with memory_errors():
            result = function(*arguments)
        if number == 0:
            _write(folder / "result", result)
    except IndmError as error:
        _write(folder / f"error-{number}", error)
        raise SystemExit(1) from None
