"""
A diverged run explained
========================

In this run the learning rate is too large. The run ends at the step that makes a value infinite, and keeps the state
before this step. ``imbalance forensics`` repeats the step and shows which tensor became non-finite first.
"""

import contextlib
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt

import imbalance
from imbalance.errors import Diverged
from imbalance.training.state.forensics import replay

over = {"optim.lr": 30.0, "loss.left": "exponential", "trainer.epochs": 40}
try:
    with contextlib.redirect_stdout(io.StringIO()):
        imbalance.run("digits_poly", over, directory="diverged")
except Diverged as error:
    print(error)

# %%
# ``imbalance forensics diverged`` repeats the step of the run directory ``diverged``, and checks one tensor after
# another:

print(replay(Path("diverged")))

# %%
# The training loss at smaller learning rates stays finite, so the learning rate is the cause:

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for rate in (0.03, 0.3, 3.0):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            run = imbalance.run("digits_poly", {**over, "optim.lr": rate, "trainer.eval_every": 1}, directory=f"{rate}")
        except Diverged as error:
            print(f"rate {rate}: {error}")
            continue
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    axis.plot([row["epoch"] for row in rows], [row["train/loss"] for row in rows], label=f"learning rate {rate}")
axis.set(xlabel="epoch", ylabel="training loss", yscale="log")
axis.legend()
plt.show()
