"""Independent random streams from one seed."""

import zlib

import numpy as np
import torch
from torch import Tensor


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A seed for `purpose` (and, say, the epoch): streams of different purposes or numbers are independent."""
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator seeded with `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))


def random_state() -> dict[str, Tensor]:
    """The state of torch's global generators, from which dropout draws: the CPU's, and where one is in use a GPU's."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
