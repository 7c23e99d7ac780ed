"""How much memory there is, so that what cannot fit is refused before it is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from imbalance.errors import BadInput

if TYPE_CHECKING:
    import torch


def available_memory() -> int:
    """Bytes that this process could still get: what the machine has free, or its control group, if that is less."""
    found = [1 << 62]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith(("MemAvailable:", "SwapFree:"))]
        found = [found[0], sum(found[1:])] if found[1:] else found
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # another system, or no limit ("max"): then the rest is what is known
        return min(found)
    return min(found)


def free_memory(device: "torch.device") -> int:
    """Bytes that this process could still get there."""
    if device.type != "cuda":
        return available_memory()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def check_fits(needed: int, what: str) -> None:
    """Raise `BadInput` if `needed` bytes are more than there are."""
    available = available_memory()
    if needed > available:
        raise BadInput(f"{what}: {needed / 1e9:,.1f} GB are needed, and {available / 1e9:,.1f} GB are free")
