"""Fork server that has imported torch once, because a new Python takes seconds to import it."""

import multiprocessing
import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# The server imports `helpers`. Paths that were there before stay: some machines list all their packages in PYTHONPATH.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as in imbalance/cli/main.py, which the server has not imported
os.environ["OMP_NUM_THREADS"] = "1"  # as in tests/conftest.py: sums depend on it, so a run ends alike in any process
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["__main__", "helpers.warm"])
