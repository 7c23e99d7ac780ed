import ctypes
import subprocess
import sys

import pytest
from conftest import ROOT

GLIBC = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

# Large blocks, one after the other, as a training step has its activations.
FAULTS = """
import resource
from imbalance.utils.malloc import keep_freed_memory
keep_freed_memory()
def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(2 ** 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
print(faults(10))
"""


def faults(**env: str) -> int:
    call = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    return int(call.stdout)


@pytest.mark.skipif(not GLIBC, reason="glibc only")
def test_a_block_that_was_freed_is_had_again_without_a_fault():
    assert faults() < 100


@pytest.mark.skipif(not GLIBC, reason="glibc only")
@pytest.mark.parametrize("name, value", [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")])
def test_what_the_user_tuned_stays(name, value):
    assert faults(**{name: value}) > 300  # 10 blocks of 64 MB, in pages of 2 MB at most
