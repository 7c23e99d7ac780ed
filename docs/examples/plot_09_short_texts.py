"""
Short texts, one kind rare
==========================

A small corpus that comes with every installation: the first sentences of documentation. Is it NumPy's or the email module's?
Words become columns by scikit-learn, and any method trains on them.
"""

import contextlib
import email
import inspect
import io
import pkgutil
from importlib import import_module

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

import imbalance


def sentences(package):
    """The first line of every docstring."""
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        with contextlib.suppress(ImportError):
            module = import_module(f"{package.__name__}.{info.name}")
            for _, thing in inspect.getmembers(module, lambda t: inspect.isclass(t) or inspect.isfunction(t)):
                for part in (thing, *(m for _, m in inspect.getmembers(thing, inspect.isfunction))):
                    found.add((inspect.getdoc(part) or "").partition("\n")[0])
    return sorted(text for text in found if len(text.split()) > 3)


many, few = sentences(np.lib), sentences(email)
print(f"{len(many)} sentences of numpy.lib, {len(few)} of email, such as:\n  {many[3]}\n  {few[3]}")

# %%
# Data of a program are tensors or arrays: inputs, and targets. A tenth of the rare kind is left in train.

rng = np.random.default_rng(0)
texts, targets = np.array([*many, *few]), np.repeat([0, 1], [len(many), len(few)])
split = rng.choice(["train", "val", "test"], len(texts), p=[0.4, 0.3, 0.3])
split[(targets == 1) & (split == "train") & (rng.random(len(texts)) < 0.8)] = "unused"
words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts[split == "train"])
data = {
    name: (words.transform(texts[split == name]).toarray().astype(np.float32), targets[split == name])
    for name in ("train", "val", "test")
}
print("train:", np.bincount(data["train"][1]), "test:", np.bincount(data["test"][1]))

# %%
recalls = {}
for name in ("gaussian_erm", "gaussian_ce", "gaussian_poly"):
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = imbalance.run(name, {"trainer.epochs": 200, "optim.lr": 1.0}, data=data).summary["metrics"]
    recalls[name.removeprefix("gaussian_")] = [100 * metrics["test/recall/0"], 100 * metrics["test/recall/1"]]

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for at, (name, values) in enumerate(recalls.items()):
    axis.bar(np.arange(2) + 0.26 * at - 0.26, values, width=0.24, label=name)
axis.set_xticks(range(2), ["numpy (common)", "email (rare)"])
axis.set(ylabel="recall on test, %", ylim=(0, 118))
axis.legend(ncols=3, frameon=False, loc="upper center")
plt.show()

# %%
# The rare kind is missed half of the time, and weights move a linear model at its limit by little: poly more than
# cross-entropy. How to train on texts with a pretrained network is on the page on data.
