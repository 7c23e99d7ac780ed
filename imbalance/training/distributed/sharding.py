"""Sharding (FSDP2): split a model, its gradients and its optimiser's state over the ranks, to save memory.

torch's `fully_shard` turns every parameter into a DTensor, of which each rank holds a part. Before a block of the model
computes, its parameters are gathered from all ranks, and freed again afterwards. Each rank writes its parts to a
checkpoint (`imbalance.training.state.sharded`). At the end of a run the model is gathered, so code that
reads trained models needs nothing for sharding.
"""

import copy
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput
from imbalance.models.depth import blocks


def check_sharding(config: Experiment, model: nn.Module) -> None:
    """Raise `BadInput` if sharding or activation checkpointing cannot be used with the rest of the config or the model."""
    trainer = config.trainer
    if trainer.activation_checkpointing and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise BadInput(
            "config.trainer.activation_checkpointing: True given, but the model has batch normalisation, whose running means "
            "would be updated twice in a step; use False; to save memory, set config.trainer.accumulation above 1"
        )
    excluded = (("compile", trainer.compile, "no"), ("ema_decay", trainer.ema_decay, 0.0))
    for key, value, only in excluded:
        if trainer.shard and value != only:
            raise BadInput(f"config.trainer.{key}: {value!r} given; it must be {only!r} for config.trainer.shard=True")
    if trainer.shard and trainer.mixed_precision == "fp16":
        raise BadInput(
            "config.trainer.mixed_precision: 'fp16' given; use 'bf16' or 'no' with config.trainer.shard=True"
        )


def checkpoint_activations(model: nn.Module) -> None:
    """Let every block of the model compute its activations again in the backward pass, instead of keeping them."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def skeleton_of(model: nn.Module) -> nn.Module:
    """Return a copy of `model` without memory for its parameters; `gathered` fills the copy. Buffers are copied."""
    no_memory = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, dict(no_memory))


def shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Shard the parameters of `model` over all ranks, in place.

    Raises:
        BadInput: this version of torch has no FSDP2.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise BadInput(
            f"config.trainer.shard: True given, which needs torch 2.6 or newer; this is {torch.__version__}"
        ) from None
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(value: Any) -> bool:
    """Return whether `value` is a sharded tensor, or a module with sharded parameters."""
    if isinstance(value, nn.Module):
        return any(is_sharded(parameter) for parameter in value.parameters())
    return hasattr(value, "to_local")  # a DTensor, whose import takes a second


def local(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that this rank holds, without a copy; return any other tensor as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue] (of a DTensor)


def sum_of_ranks(value: Tensor) -> Tensor:
    """Return the sum of `value` over all ranks."""
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total


def whole(value: Any, keep: bool = True) -> Any:
    """Return `value` (nested dictionaries and lists) with each sharded tensor gathered from all ranks to the CPU.

    Every rank must call this function, with the same structure.

    Args:
        keep: False on a rank that does not need the gathered tensors; that rank gets None in place of each of them.
    """
    if isinstance(value, dict):
        return {key: whole(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole(item, keep) for item in value]
    if not is_sharded(value):
        return value
    # A remembered copy is on the CPU, from which NCCL cannot gather, so move it to the device first.
    on_device = value.to_local().to(value.device_mesh.device_type)
    like = type(value).from_local(
        on_device, value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
    )
    full = like.full_tensor()
    return full.cpu() if keep else None


def gathered(model: nn.Module, skeleton: nn.Module, device: torch.device) -> nn.Module:
    """Load the whole parameters and buffers of the sharded `model` into `skeleton` on `device`, and return `skeleton`.

    Every rank must call this function.
    """
    state = whole(model.state_dict())
    skeleton.load_state_dict({key: tensor.to(device) for key, tensor in state.items()}, assign=True)
    return skeleton
