"""An accelerator that is pretended: a machine without one shows what a GPU would refuse, and what it would wait for.

:func:`register` gives PyTorch a device ``pretended``, by its hook for devices that are written in Python. Its tensors
have the CPU's numbers and live on a device of their own. As CUDA's do, they refuse tensors of the CPU beside them, but
for those without a dimension, and the CPU's generators. :func:`counted` says what has been asked of it.

What is registered cannot be taken back, so it is registered in a process of its own: :func:`process`.
"""

import dataclasses
import functools
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._foreach_utils as foreach
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

import indm.process

NAME = "pretended"
CPU = torch.device("cpu")
HOST_GENERATOR = torch.Generator
# Of CUDA, these take tensors of both sides; of the second, the indices may be the CPU's.
COPIES, INDEXING = {"aten::copy_", "aten::_to_copy"}, {"aten::index", "aten::index_put_", "aten::_index_put_impl_"}
# Here CUDA waits: the host needs a number, or how many there are, or whether a decomposition has worked.
NUMBER = "aten::_local_scalar_dense"
SIZES = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::bincount"}
WAITS = {NUMBER, "aten::equal", "aten::_linalg_eigh", "aten::_linalg_check_errors"} | SIZES
# These compute nothing, and say of no argument that their result is a view of it.
ALLOCATES = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}
ALLOCATES |= {"aten::_unsafe_view", "aten::_fused_sdp_choice"}
# CUDA has a kernel for these, which PyTorch takes apart for other devices.
ONE_KERNEL = ("silu_backward",)


@dataclass
class Counts:
    """What has been asked of the device.

    Arguments:
        operators: how many ran there, views among them.
        launches: of these, how many compute: each is at least one kernel that a GPU is told to run.
        waits: how often the host waited for a result.
        waiting_uploads: how often it waited for a copy to the device, and so for all that had been asked before.
        bytes_to_device: copied there.
        bytes_to_host: copied back.
        drawn: how many random numbers were drawn there.
        names: how often each operator ran.
    """

    operators: int = 0
    launches: int = 0
    waits: int = 0
    waiting_uploads: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    drawn: int = 0
    names: Counter[str] = field(default_factory=Counter)

    @property
    def synchronisations(self) -> int:
        """How often the host waited for the device."""
        return self.waits + self.waiting_uploads

    def upload(self, tensor: Tensor, waiting: bool) -> None:
        """Note a copy to the device."""
        self.bytes_to_device += tensor.nbytes
        self.waiting_uploads += waiting

    def download(self, tensor: Tensor, waiting: bool = True) -> None:
        """Note a copy to the host."""
        self.bytes_to_host += tensor.nbytes
        self.waits += waiting


COUNTS = Counts()


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what the block asks of the device; the counts are there when it has ended."""
    found, before = Counts(), dataclasses.replace(COUNTS, names=COUNTS.names.copy())
    yield found
    for name, value in vars(before).items():
        setattr(found, name, getattr(COUNTS, name) - value)


class PretendedTensor(Tensor):
    """A tensor on the device.

    Arguments:
        raw: the tensor of the CPU that has its numbers.
    """

    raw: Tensor

    @staticmethod
    def __new__(cls: type["PretendedTensor"], raw: Tensor) -> "PretendedTensor":
        """Put a tensor of the CPU on the device."""
        tensor: PretendedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.raw = raw
        return tensor

    @property
    def data(self) -> Tensor:
        """The tensor without its history; a tensor that is put in its place gives its memory."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self.raw = _raw(value)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator that has such a tensor among its arguments."""
        return _run(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        """Read the numbers."""
        COUNTS.download(self)
        return self.raw.tolist()

    def data_ptr(self) -> int:
        """Say that there is no memory of its own, so that a deep copy is a clone, for parts of a tensor as well."""
        return 0

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as CUDA does."""
        raise TypeError(f"found a tensor of {NAME}, expected one of the CPU for NumPy: call cpu() first")


class PretendedGenerator:
    """A generator on the device, with the numbers of the CPU's."""

    def __init__(self) -> None:
        self.host = HOST_GENERATOR()
        self.device = torch.device(NAME)

    def manual_seed(self, seed: int) -> "PretendedGenerator":
        """Begin again, from a seed."""
        self.host.manual_seed(seed)
        return self

    def initial_seed(self) -> int:
        """Return the seed from which it began."""
        return self.host.initial_seed()


class _Generators(type):
    """Makes the generator of either side, in the place of ``torch.Generator``."""

    def __call__(cls, device: torch.device | str = CPU) -> Any:
        return PretendedGenerator() if _is_here(device) else HOST_GENERATOR(device)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, HOST_GENERATOR | PretendedGenerator)


class EitherGenerator(metaclass=_Generators):
    """Stands for ``torch.Generator``."""


def _is_here(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator of the device on the CPU: check what it is given, count it, put its results where they belong."""
    name, leaves = func._schema.name, tree_leaves((args, kwargs))
    _check(name, args, leaves)
    _count(name, args, kwargs)
    COUNTS.launches += not (_is_view(func) or name in ALLOCATES)
    if name == "aten::_fused_sdp_choice":
        return torch.nn.attention.SDPBackend.MATH.value
    target = kwargs.get("device")
    raw_args, raw_kwargs = tree_map(_raw, (args, kwargs))
    result = func(*raw_args, **raw_kwargs | ({"device": CPU} if target else {}))
    if target and not _is_here(target):
        return result
    known = {id(_raw(leaf)): leaf for leaf in leaves if isinstance(leaf, Tensor)}
    for leaf in known.values():
        if leaf.shape != _raw(leaf).shape:
            # Changed in place, as by squeeze_ at the end of a product with a vector.
            Tensor.data.__set__(leaf, PretendedTensor(_raw(leaf)))  # type: ignore[attr-defined]
    return tree_map(functools.partial(_placed, known), result)


def _placed(known: dict[int, Tensor], x: Any) -> Any:
    """Put a result on the device: the argument itself, where it has been changed in place."""
    return known.get(id(x), PretendedTensor(x)) if isinstance(x, Tensor) else x


def _raw(x: Any) -> Any:
    return x.raw if isinstance(x, PretendedTensor) else x


def _check(name: str, args: Any, leaves: list[Any]) -> None:
    """Refuse what CUDA refuses."""
    if any(isinstance(leaf, HOST_GENERATOR) for leaf in leaves):
        raise RuntimeError(f"{name}: found a generator of the CPU, expected one of {NAME}")
    if name in COPIES:
        return
    free = {id(index) for index in tree_leaves(args[1])} if name in INDEXING else set()
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and id(leaf) not in free]
    strange = [tensor for tensor in tensors if not isinstance(tensor, PretendedTensor) and tensor.dim()]
    if strange:
        raise RuntimeError(f"{name}: found tensors of {NAME} and of {strange[0].device}, expected one device")


@functools.cache
def _is_view(func: Any) -> bool:
    """Return whether an operator's result is a view of an argument, and nothing is computed or changed."""
    aliases = [found.alias_info for found in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _count(name: str, args: Any, kwargs: Any) -> None:
    COUNTS.operators += 1
    COUNTS.names[name] += 1
    if name == NUMBER:
        COUNTS.download(args[0])
    elif name in WAITS:
        COUNTS.waits += 1
    elif name in COPIES:
        _count_copy(name, args, kwargs)
    elif name in INDEXING:
        for index in (index for index in args[1] if index is not None):
            COUNTS.waits += index.dtype == torch.bool
            if not isinstance(index, PretendedTensor):
                COUNTS.upload(index, waiting=True)


def _count_copy(name: str, args: Any, kwargs: Any) -> None:
    """Count a copy between both sides; a new tensor's, to the device, comes here as ``copy_`` to an empty one."""
    waiting = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if name == "aten::_to_copy":
        if kwargs.get("device") and not _is_here(kwargs["device"]):
            COUNTS.download(args[0], waiting)
    elif not isinstance(args[1], PretendedTensor):
        COUNTS.upload(args[1], waiting)
    elif not isinstance(args[0], PretendedTensor):
        COUNTS.download(args[1], waiting)


def register() -> None:
    """Register the device with PyTorch, and let suites of ``device: auto`` have it."""
    # Imported here: older releases, which lack it, can import this module.
    from torch.utils import backend_registration

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    LIBRARY.append(torch.library.Library("_", "IMPL"))
    LIBRARY[0].fallback(_run, "PrivateUse1")
    LIBRARY.append(torch.library.Library("aten", "IMPL"))
    for name in ONE_KERNEL:
        LIBRARY[1].impl(name, functools.partial(_run, getattr(torch.ops.aten, name).default), "PrivateUse1")
    foreach._foreach_supported_types.append(PretendedTensor)  # type: ignore[arg-type]
    for name in ("tensor", "as_tensor", "eye", "arange", "linspace"):
        setattr(torch, name, _made_on_host(getattr(torch, name), uploads=name.endswith("tensor")))
    for name in ("rand", "randn", "randint", "randperm"):
        setattr(torch, name, _drawn(getattr(torch, name)))
    _replace("Generator", HOST_GENERATOR, EitherGenerator)
    _replace("set_up", indm.process.set_up, _choosing(indm.process.set_up))


# What is registered lives as long as this.
LIBRARY: list[torch.library.Library] = []


def _replace(name: str, old: object, new: object) -> None:
    """Give a name another meaning in every module that has imported it."""
    for module in list(sys.modules.values()):
        if vars(module).get(name) is old:
            setattr(module, name, new)


def _made_on_host(function: Callable[..., Tensor], *, uploads: bool) -> Callable[..., Tensor]:
    """Let a factory that PyTorch's hook does not reach make tensors of the device."""

    @functools.wraps(function)
    def factory(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if not _is_here(device):
            return function(*args, device=device, **kwargs)
        result = function(*args, **kwargs)
        COUNTS.operators += not uploads
        COUNTS.launches += not uploads
        return result.to(device) if uploads else PretendedTensor(result)

    return factory


def _drawn(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a factory take the generators of both sides, each for tensors of its own."""

    @functools.wraps(function)
    def factory(*args: Any, generator: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
        if generator is not None and isinstance(generator, PretendedGenerator) != _is_here(device):
            raise RuntimeError(
                f"{function.__name__}: found a generator of {generator.device}, expected one of {device}"
            )
        if not isinstance(generator, PretendedGenerator):
            return function(*args, generator=generator, device=device, **kwargs)
        raw = function(*args, generator=generator.host, **kwargs)
        COUNTS.operators += 1
        COUNTS.launches += 1
        COUNTS.drawn += raw.numel()
        return PretendedTensor(raw)

    return factory


def _choosing(set_up: Callable[..., torch.device]) -> Callable[..., torch.device]:
    """Choose the device where a suite leaves the choice; what asks for the CPU gets it."""

    def choose(device: str, *arguments: int) -> torch.device:
        set_up("cpu", *arguments)
        return torch.device(NAME if device == "auto" else device)

    return choose


@contextmanager
def process() -> Iterator[Callable[..., Any]]:
    """Start a process that has the device, and yield what calls functions of modules there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), register) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()
