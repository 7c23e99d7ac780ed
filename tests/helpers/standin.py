"""A stand-in for a GPU, which counts kernel launches and waits, and refuses operations that a GPU refuses.

`with Device() as device:` adds the device "standin:0" to torch. Its tensors have their values in CPU memory, so results
are correct. Operations on tensors of two devices raise. With deterministic algorithms, operations raise that have no
deterministic implementation in CUDA. The device counts launched kernels, and waits of the host for the device, because
both make a GPU slow. `test_device.py` tests it.

A `TorchDispatchMode` gets every operation below autograd, so the counts include the backward pass and the optimiser.
Two simpler ways do not work. Plain CPU tensors are never copied between devices, so neither a copy nor a missing copy
would show. Fake tensors have no values, so a metric or a check for finite losses could not run. torch lets Python
register a device (`PrivateUse1`) with autograd, so no compiled code is needed.

The properties of operations come from torch. A view launches no kernel. An operation waits if it returns a number, or
if the shape of its result depends on values. A composite operation counts as one kernel (`logsumexp` is six on a GPU).
This does not matter, because tests compare the counts with those of a minimal loop on the same device. The device
simulates neither time nor memory, streams or NCCL.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from pytest import MonkeyPatch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from imbalance.data.images import stored_images

_setup_privateuseone_for_python_backend("standin")
torch.standin.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]  # asked for by activation checkpointing
DEVICE = torch.device("standin:0")
ALLOCATIONS = (
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "alias",
    "lift_fresh",
)
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
NOT_DETERMINISTIC = ("cumsum", "grid_sampler_2d_backward", "histc", "kthvalue", "put_", "reflection_pad2d_backward")


class OnDevice(Tensor):
    """A tensor on the device.

    values: the CPU tensor with its values.
    """

    @staticmethod
    def __new__(cls, values: Tensor):
        like = dict(strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype, device=DEVICE)
        tensor = Tensor._make_wrapper_subclass(cls, values.size(), **like)
        tensor.values = values
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} on a tensor of the device outside of `with Device()`")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        """Replace the values; stacked runs do so to make their weights views of the stacked weights."""
        self.values = other.values

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self) -> None:
        raise TypeError("can't convert a tensor of the device to NumPy: copy it to the CPU first")

    def __deepcopy__(self, memo: dict) -> Tensor:
        copy = self.detach().clone()
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.cpu().__reduce_ex__(protocol)


class Event:
    """A replacement of `torch.cuda.Event`.

    It counts its waits on `Device.current`, because the program may keep an event from an earlier device.
    """

    recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        if self.recorded:
            Device.current.waits["event"] += 1
        self.recorded = False


class WithoutGradients:
    """A replacement of the methods of `torch.inference_mode`, which changes no tensor."""

    def __enter__(self) -> None:
        self.before = torch.is_grad_enabled()
        torch.set_grad_enabled(not self.mode)

    def __exit__(self, *error: Any) -> None:
        torch.set_grad_enabled(self.before)


class InThisThread:
    """An executor that calls at once, because torch sends only the calls of the device's thread through the device."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        result = Future()
        result.set_result(function(*args))
        return result


class Device(TorchDispatchMode):
    """The device, as a context manager: inside it accelerate uses the device, and `torch.cuda` acts for it.

    tf32: whether matrix products and convolutions round their inputs to the 10 bits of mantissa of TF32.
    launches: the number of kernels by operation.
    waits: the number of times that the host waited for the device, by reason.
    copied: the number of bytes copied to the device.
    allocated: the number of bytes of pinned memory that were requested.
    pinned: all pinned tensors so far, kept so that no other tensor gets their addresses.
    """

    current: "Device"
    pinned: ClassVar[list[Tensor]] = []

    def __init__(self, tf32: bool = False):
        super().__init__()
        self.tf32 = tf32
        self.patch = MonkeyPatch()
        self.reset()

    def __enter__(self) -> "Device":
        Device.current = self
        self.patch.setattr(Accelerator, "device", DEVICE)
        self.patch.setattr(torch.cuda, "Event", Event)
        self.patch.setattr(stored_images, "reader_thread", InThisThread)
        for name in ("__enter__", "__exit__"):  # subclasses of Tensor do not work in inference mode
            self.patch.setattr(torch.inference_mode, name, getattr(WithoutGradients, name))
        self.patch.setattr(torch.cuda, "synchronize", lambda: self.waits.update(["synchronize"]))
        for name in ("tensor", "as_tensor"):
            self.patch.setattr(torch, name, built_on_cpu(getattr(torch, name)))
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.patch.undo()

    def reset(self) -> None:
        self.launches, self.waits, self.copied, self.allocated = Counter(), Counter(), 0, 0

    def __torch_dispatch__(
        self, operation: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = operation._schema.name.removeprefix("aten::")
        if kwargs.pop("pin_memory", False):
            self.pinned.append(operation(*args, **kwargs))
            self.allocated += self.pinned[-1].nbytes
            return self.pinned[-1]
        tensors = [tensor for tensor in pytree.tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        on_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        target = torch.device(kwargs.get("device") or (DEVICE if on_device else "cpu"))
        if not on_device and target != DEVICE:
            return operation(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        if name in ("_to_copy", "copy_"):
            return self.copy(operation, name, args, kwargs, target)
        self.check(name, operation, args, [tensor for tensor in tensors if not isinstance(tensor, OnDevice)])
        values = pytree.tree_map_only(OnDevice, lambda tensor: tensor.values, (args, kwargs))
        if self.tf32 and name in ("mm", "addmm", "bmm", "convolution"):
            values = pytree.tree_map_only(Tensor, rounded_to_tf32, values)
        result = operation(*values[0], **values[1])
        if not operation.is_view and name not in ALLOCATIONS:
            self.launches[name] += 1
        # An operation in place returns the values of one of its arguments, so return this argument itself.
        known = {id(tensor.values): tensor for tensor in on_device}
        return pytree.tree_map_only(
            Tensor, lambda values: known[id(values)] if id(values) in known else OnDevice(values), result
        )

    def copy(
        self, operation: Any, name: str, args: Sequence, kwargs: Mapping[str, Any], target: torch.device
    ) -> Tensor:
        """Run a copy between devices, or from one type or tensor to another on the device, and count it."""
        result, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        overlaps = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        target = target if result is None else result.device
        between = source.device != target
        on_cpu = source if source.device.type == "cpu" else result  # None: torch pins its result if it overlaps
        self.launches["copy between devices" if between else name] += 1
        if between and not (overlaps and (on_cpu is None or self.is_pinned(on_cpu))):
            self.waits["copy to the device" if target == DEVICE else "copy to the CPU"] += 1
        if between and target == DEVICE:
            self.copied += source.nbytes
        cpu_args = pytree.tree_map_only(OnDevice, lambda tensor: tensor.values, tuple(args))
        values = operation(*cpu_args, **kwargs)
        if result is not None:
            return result
        values = values.clone() if values is cpu_args[0] else values
        if between and overlaps and target != DEVICE:
            self.pinned.append(values)
        return OnDevice(values) if target == DEVICE else values

    def is_pinned(self, tensor: Tensor) -> bool:
        address = tensor.untyped_storage().data_ptr()
        return any(address == pinned.untyped_storage().data_ptr() for pinned in self.pinned)

    def check(self, name: str, operation: Any, args: Sequence, cpu_tensors: Sequence[Tensor]) -> None:
        """Count a wait if the operation needs one; raise if a GPU would refuse the operation.

        Args:
            cpu_tensors: the arguments that are tensors on the CPU.
        """
        if name == "index" or name.startswith(("index_put", "_index_put")):
            indices = [tensor for tensor in args[1] if tensor is not None]
            if any(tensor.dtype == torch.bool or tensor.device.type == "cpu" for tensor in indices):
                self.waits[f"{name} by a mask, or from the CPU"] += 1
            cpu_tensors = [tensor for tensor in cpu_tensors if all(tensor is not index for index in indices)]
        elif WAITS & set(operation.tags):
            self.waits[name] += 1
        if wrong := [tuple(tensor.shape) for tensor in cpu_tensors if tensor.dim()]:
            raise RuntimeError(f"{name}: tensors on the CPU of shapes {wrong} beside those of the device")
        varies = name in NOT_DETERMINISTIC and (name != "cumsum" or args[0].is_floating_point())
        if varies and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{name} has no deterministic implementation on a GPU")


def rounded_to_tf32(values: Tensor) -> Tensor:
    """Return float32 values rounded to a mantissa of 10 bits; float32 has 23."""
    return ((values.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def built_on_cpu(function: Any) -> Any:
    """Return a replacement of `torch.tensor` or `torch.as_tensor` that builds on the CPU and copies to the device.

    Both functions do the same for a GPU.
    """

    def built(data: Any, **kwargs: Any) -> Tensor:
        device = kwargs.pop("device", None)
        if isinstance(data, OnDevice):
            return data.to(device=device, **kwargs)
        tensor = function(data, **kwargs)
        return tensor if device is None else tensor.to(device)

    return built
