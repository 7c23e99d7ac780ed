"""What the C library does with memory that is freed."""

import ctypes
import os

# Of <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next who asks, where it is the C library and the user has not tuned it.

    It would give large blocks back to the system at once, and every step would get its activations' pages anew, each
    by a fault and filled with zeros: 18,000 of them, and a fifth of the time, in a step of the ConvNet on 64 images.
    The peak stays what it is; what was once in use stays the process's to the end.
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    libc = ctypes.CDLL(None)
    if not tuned and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)  # no blocks of their own, which are unmapped as soon as they are freed
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # nor a shorter heap
