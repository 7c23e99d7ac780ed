"""Measure free memory, so that data or a model too large for it are refused before they are allocated."""

from pathlib import Path
from typing import TYPE_CHECKING

from imbalance.errors import BadInput

if TYPE_CHECKING:
    import torch


ALWAYS_FREE = 1 << 20  # bytes; to measure the free memory takes longer than to read a file of this size


def available_memory() -> int:
    """Return the number of bytes of main memory that this process can still allocate.

    They are the free memory of the machine, or less if the cgroup of a container or batch job sets a limit.
    """
    limits = [1 << 62]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith(("MemAvailable:", "SwapFree:"))]
        limits += [sum(free)] if free else []
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        limits.append(int(limit) - int(used))
    except (OSError, ValueError):  # no such file on this system, or no limit ("max"): use the limits found so far
        return min(limits)
    return min(limits)


def free_memory(device: "torch.device") -> int:
    """Return the number of bytes that this process can still allocate on `device`."""
    if device.type != "cuda":
        return available_memory()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def check_fits(needed: int, what: str) -> None:
    """Raise `BadInput` if fewer than `needed` bytes of main memory are free.

    Args:
        what: config key or file that needs the memory; the message starts with it.
    """
    if needed < ALWAYS_FREE:
        return
    available = available_memory()
    if needed > available:
        raise BadInput(
            f"{what}: {needed / 1e9:,.1f} GB are needed, and {available / 1e9:,.1f} GB are free; use a machine with more memory"
        )
