"""Independent random streams from one seed."""

import zlib

import numpy as np
import torch
from torch import Tensor


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a seed made from the run's seed, a purpose and numbers such as the epoch.

    Two seeds made from different arguments give independent random streams.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator, seeded with the `derived_seed` of the same arguments."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's global generators, from which dropout draws, on the CPU and, if in use, the GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
