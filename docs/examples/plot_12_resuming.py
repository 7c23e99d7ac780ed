"""
Stopped and resumed
===================

A signal stops a run. If you repeat the call, the run resumes, and its result is the same to the bit as that of a run
that was never stopped.
"""

import contextlib
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import imbalance
from imbalance.errors import Interrupted

over = {"trainer.epochs": 60, "trainer.eval_every": 2}


def curve(folder):
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [row["epoch"] for row in rows], [100 * row["val/balanced_accuracy"] for row in rows]


# %%
# ``Ctrl+C``, the time limit of a job and the shutdown of a machine all send a signal. Here the signal comes after the
# first evaluations.


def stop_soon():
    while not Path("stopped/metrics.jsonl").exists() or len(curve("stopped")[0]) < 5:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=stop_soon).start()
try:
    with contextlib.redirect_stdout(io.StringIO()):
        imbalance.run("digits_poly", over, directory="stopped")
except Interrupted as error:
    print(error)
before = curve("stopped")

# %%
# The same call resumes the run. For comparison, a second run is never stopped:

with contextlib.redirect_stdout(io.StringIO()):
    imbalance.run("digits_poly", over, directory="stopped")
    imbalance.run("digits_poly", over, directory="whole")
logits = [np.load(Path(folder, "predictions", "test.npz"))["logits"] for folder in ("stopped", "whole")]
print("the same test logits, bit for bit:", np.array_equal(*logits))

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axis.plot(*curve("whole"), color="0.75", linewidth=5, label="never stopped")
axis.plot(*curve("stopped"), color="C0", linewidth=1.5, label="stopped and resumed")
axis.axvline(before[0][-1], color="C3", linestyle="--", label="stopped")
axis.set(xlabel="epoch", ylabel="balanced accuracy on val, %")
axis.legend(loc="lower right")
plt.show()
