"""
Short texts, one class rare
===========================

Every Python installation contains a small corpus: the first sentences of docstrings. The task is to tell the docstrings
of NumPy from those of the module ``email``. The model is a bag of embeddings, which every method can train.
"""

import contextlib
import csv
import email
import inspect
import io
import pkgutil
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import imbalance


def sentences(package):
    """Return the first line of every docstring."""
    lines = set()
    for info in pkgutil.iter_modules(package.__path__):
        with contextlib.suppress(ImportError):
            module = import_module(f"{package.__name__}.{info.name}")
            for _, thing in inspect.getmembers(module, lambda t: inspect.isclass(t) or inspect.isfunction(t)):
                for part in (thing, *(m for _, m in inspect.getmembers(thing, inspect.isfunction))):
                    lines.add((inspect.getdoc(part) or "").partition("\n")[0])
    return sorted(text for text in lines if len(text.split()) > 3)


many, few = sentences(np.lib), sentences(email)
print(f"{len(many)} sentences of numpy.lib, {len(few)} of email, such as:\n  {many[3]}\n  {few[3]}")

# %%
# The texts are a column of a CSV file. Four fifths of the rare class are removed from train.

rng = np.random.default_rng(0)
texts, kinds = [*many, *few], np.array(["numpy"] * len(many) + ["email"] * len(few))
split = rng.choice(["train", "val", "test"], len(texts), p=[0.4, 0.3, 0.3])
left_out = (kinds == "email") & (split == "train") & (rng.random(len(texts)) < 0.8)
Path("data").mkdir(exist_ok=True)
with open("data/texts.csv", "w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow(["text", "target", "split"])
    rows.writerows(row for row, out in zip(zip(texts, kinds, split), left_out) if not out)

# %%
# ``text_small_*`` are the configs for texts. Their model learns a vector for each word of train, and applies a linear
# layer to the mean of the vectors of a text. Overrides name the classes and the split column of this file.

own = {"data.classes": ("numpy", "email"), "data.split": "split", "data.val_fraction": 0.0, "data.test_fraction": 0.0}
recalls = {}
for name in ("text_small_erm", "text_small_ce", "text_small_poly"):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = imbalance.run(name, own | {"trainer.epochs": 20, "optim.lr": 0.3})
    metrics = result.summary["metrics"]
    recalls[name.removeprefix("text_small_")] = [100 * metrics["test/recall/numpy"], 100 * metrics["test/recall/email"]]
print("train:", result.summary["classes"]["train"], "test:", result.summary["classes"]["test"])

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for at, (name, values) in enumerate(recalls.items()):
    axis.bar(np.arange(2) + 0.26 * at - 0.26, values, width=0.24, label=name)
axis.set_xticks(range(2), ["numpy (common)", "email (rare)"])
axis.set(ylabel="recall on test, %", ylim=(0, 118))
axis.legend(ncols=3, frameon=False, loc="upper center")
plt.show()

# %%
# Plain cross-entropy recognises two in five texts of the rare class. With importance weights more texts of the rare
# class are recognised, and fewer of the common class; this effect is larger under poly than under cross-entropy. This
# is one seed on a small corpus. The last model predicts the classes of two new sentences:

model = imbalance.load(result.directory)
for text in ("Return the elements of the array along an axis.", "Return the message's payload as a string."):
    print(f"{model.predict({'text': [text]}).classes[0]}: {text}")

# %%
# The page :doc:`/how-to/text` covers your own files, pretrained encoders and CivilComments.
