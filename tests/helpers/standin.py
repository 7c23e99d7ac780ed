"""A device of its own that is no GPU, but refuses and counts what a GPU would: see `test_device.py`.

`with Device() as device:` gives torch a device "standin:0", whose tensors hold ordinary values on the CPU. The program
computes the right numbers on it; tensors of two devices in one operation are refused, and so is, where deterministic
algorithms are asked for, what CUDA has no deterministic form of. It counts what makes a GPU slow: kernels launched, and
the places where the host waits for the device.

Why so: a `TorchDispatchMode` sees every operation below autograd, so what it counts is what a GPU is given, backward pass
and optimiser included. Counting on plain CPU tensors would see no copy between devices, and refuse none; fake tensors
have no values, so that nothing that reads one (a metric, an early end, a finite loss) can run on them. torch lets a Python
program register a device (`PrivateUse1`) with all that autograd needs of one, so no compiler is needed.

What an operation is comes from torch's own tables: a view launches nothing, one whose result's shape depends on values, or
that returns a number, waits. A kernel more or less a composite one (`logsumexp` is six on a GPU, and one here) does not
matter to a bar that is held against a bare loop on the same device. Time, memory, streams and NCCL it knows nothing of.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from pytest import MonkeyPatch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("standin")
torch.inference_mode = torch.no_grad  # which tensors of a class of its own cannot be in
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
    """A tensor of the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, values: Tensor):
        like = dict(strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype, device=DEVICE)
        tensor = Tensor._make_wrapper_subclass(cls, values.size(), **like)
        tensor.values = values
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation}: outside of `with Device()`")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        """What stacked runs do to make their weights views of the stack's."""
        self.values = other.values

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self) -> None:
        raise TypeError("can't convert a device's tensor to numpy: copy it to the CPU first")

    def __deepcopy__(self, memo: dict) -> Tensor:
        copy = self.detach().clone()
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.cpu().__reduce_ex__(protocol)


class Event:
    """In the place of a CUDA event, for the device that is entered: the program may keep one from a device before."""

    recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        if self.recorded:
            Device.current.waits["event"] += 1
        self.recorded = False


class Device(TorchDispatchMode):
    """Where it is entered, accelerate and `torch.cuda` say that the device is there.

    launches: kernels by name.
    waits: of the host for the device, by what for.
    copied: bytes to the device.
    allocated: bytes of pinned memory that were asked for.
    pinned: all of it that there has been, kept so that no other memory gets its addresses.
    """

    current: "Device"
    pinned: ClassVar[list[Tensor]] = []

    def __init__(self):
        super().__init__()
        self.patch = MonkeyPatch()
        self.reset()

    def __enter__(self) -> "Device":
        Device.current = self
        self.patch.setattr(Accelerator, "device", DEVICE)
        self.patch.setattr(torch.cuda, "Event", Event)
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
        given = [tensor for tensor in pytree.tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        here = [tensor for tensor in given if isinstance(tensor, OnDevice)]
        target = torch.device(kwargs.get("device") or (DEVICE if here else "cpu"))
        if not here and target != DEVICE:
            return operation(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        if name in ("_to_copy", "copy_"):
            return self.copy(operation, name, args, kwargs, target)
        self.check(name, operation, args, [tensor for tensor in given if not isinstance(tensor, OnDevice)])
        values = pytree.tree_map_only(OnDevice, lambda tensor: tensor.values, (args, kwargs))
        result = operation(*values[0], **values[1])
        if not operation.is_view and name not in ALLOCATIONS:
            self.launches[name] += 1
        known = {id(tensor.values): tensor for tensor in here}  # what an operation in place returns
        return pytree.tree_map_only(
            Tensor, lambda found: known[id(found)] if id(found) in known else OnDevice(found), result
        )

    def copy(
        self, operation: Any, name: str, args: Sequence, kwargs: Mapping[str, Any], target: torch.device
    ) -> Tensor:
        """Between devices, or from one type or place to another on it."""
        result, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        overlaps = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        target = target if result is None else result.device
        between = source.device != target
        on_cpu = source if source.device.type == "cpu" else result  # None: torch makes it, pinned if that overlaps
        self.launches["copy between devices" if between else name] += 1
        if between and not (overlaps and (on_cpu is None or self.is_pinned(on_cpu))):
            self.waits["copy to the device" if target == DEVICE else "copy to the CPU"] += 1
        if between and target == DEVICE:
            self.copied += source.nbytes
        plain = pytree.tree_map_only(OnDevice, lambda tensor: tensor.values, tuple(args))
        values = operation(*plain, **kwargs)
        if result is not None:
            return result
        values = values.clone() if values is plain[0] else values
        if between and overlaps and target != DEVICE:
            self.pinned.append(values)
        return OnDevice(values) if target == DEVICE else values

    def is_pinned(self, tensor: Tensor) -> bool:
        address = tensor.untyped_storage().data_ptr()
        return any(address == pinned.untyped_storage().data_ptr() for pinned in self.pinned)

    def check(self, name: str, operation: Any, args: Sequence, elsewhere: Sequence[Tensor]) -> None:
        """Refuse what a GPU refuses, and count a wait."""
        if name == "index" or name.startswith(("index_put", "_index_put")):
            places = [tensor for tensor in args[1] if tensor is not None]
            if any(tensor.dtype == torch.bool or tensor.device.type == "cpu" for tensor in places):
                self.waits[f"{name} by a mask, or from the CPU"] += 1
            elsewhere = [tensor for tensor in elsewhere if all(tensor is not place for place in places)]
        elif WAITS & set(operation.tags):
            self.waits[name] += 1
        if wrong := [tuple(tensor.shape) for tensor in elsewhere if tensor.dim()]:
            raise RuntimeError(f"{name}: tensors on the CPU of shapes {wrong} beside those of the device")
        varies = name in NOT_DETERMINISTIC and (name != "cumsum" or args[0].is_floating_point())
        if varies and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{name} has no deterministic implementation on a GPU")


def built_on_cpu(function: Any) -> Any:
    """`torch.tensor` and its like, which build on the CPU and copy, as they do for a GPU."""

    def built(data: Any, **kwargs: Any) -> Tensor:
        device = kwargs.pop("device", None)
        if isinstance(data, OnDevice):
            return data.to(device=device, **kwargs)
        tensor = function(data, **kwargs)
        return tensor if device is None else tensor.to(device)

    return built
