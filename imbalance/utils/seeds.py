"""Independent random streams from one seed."""

import zlib

import numpy as np
import torch


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a seed that is computed from the run's seed, a purpose such as "sampler", and numbers such as the epoch.

    Different arguments give seeds whose random streams are independent.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator, seeded with the `derived_seed` of the same arguments."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))
