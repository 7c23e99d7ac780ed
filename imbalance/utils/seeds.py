"""Independent random streams from one seed."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def own_torch_state() -> Iterator[None]:
    """Give the code inside torch's usual settings, and restore the caller's settings and random states afterwards.

    Inside, floating-point tensors are float32 by default and gradients are recorded. So a run has the same result whatever the
    caller has set, and the caller's own random numbers do not repeat after each run with the same seed.
    """
    dtype, random = torch.get_default_dtype(), random_state()
    if dtype != torch.float32:  # a thread must not set it back for the others without need
        torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        set_random_state(random)
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)
