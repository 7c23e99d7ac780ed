"""Independent random streams from one seed."""

import zlib

import numpy as np
import torch
from torch import Tensor


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a seed that is computed from the run's seed, a purpose such as "sampler", and numbers such as the epoch.

    Different arguments give seeds whose random streams are independent.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator, seeded with the `derived_seed` of the same arguments."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))


def random_state() -> dict[str, Tensor]:
    """Return the states of torch's global random generators, which dropout uses: of the CPU, and of a GPU in use."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
