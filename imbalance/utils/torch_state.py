"""Settings and global random generators of torch, which a process has once, and the lock of the thread that uses them."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Held by the thread that trains: torch's settings and random generators belong to the process.
LOCK = threading.RLock()


def renew_lock() -> None:
    """Replace the lock in a forked process, which lacks the thread that may have held it."""
    global LOCK
    LOCK = threading.RLock()


os.register_at_fork(after_in_child=renew_lock)


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

    Settings and random generators belong to the process. So a second thread waits until the first one has left this context.
    """
    with LOCK:
        dtype, random, arithmetic = torch.get_default_dtype(), random_state(), arithmetic_state()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            set_random_state(random)
            set_arithmetic_state(arithmetic)
            torch.set_default_dtype(dtype)


def arithmetic_state() -> dict[str, Any]:
    """Return the settings of this process that `set_arithmetic_state` restores: determinism, and TF32 on a GPU."""
    tf32 = {}
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        try:
            tf32[backend] = "allow_tf32", backend.allow_tf32
        except RuntimeError:  # the caller uses torch's newer name, and torch refuses to read the older one
            tf32[backend] = "fp32_precision", backend.fp32_precision
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # pyright: ignore[reportAttributeAccessIssue] (torch's stubs lack it)
        "tf32": tf32,
    }


def set_arithmetic_state(state: Mapping[str, Any]) -> None:
    """Restore the settings that `arithmetic_state` returned."""
    now = arithmetic_state()
    if any(now[key] != state[key] for key in ("deterministic", "warn_only")):
        # This call imports torch's compiler, so call it only if the value changes.
        torch.use_deterministic_algorithms(state["deterministic"], warn_only=state["warn_only"])
    torch.utils.deterministic.fill_uninitialized_memory = state["fill"]  # pyright: ignore[reportAttributeAccessIssue]
    for backend, (name, value) in state["tf32"].items():
        setattr(backend, name, value)
