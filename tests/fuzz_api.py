"""Calls of the functions in the API reference that nobody would write, for the machinery of fuzz.py.

A call is drawn valid, and then one argument is often replaced by something odd: another container, type, shape or
value. The function must answer as a slow computation does that is written anew here, or raise `BadInput` in one line.
"""

import itertools
import json
import math
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, matthews_corrcoef, recall_score

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.resolve import load, resolve
from imbalance.config.schema import flatten
from imbalance.deploy.load import TrainedModel
from imbalance.errors import BadInput
from imbalance.methods import losses
from imbalance.methods.standalone import EpochSampler, example_weights
from imbalance.metrics import scores
from imbalance.metrics.class_and_group import compute, count
from imbalance.theory.oracle import angle, margin_direction, poly_direction


class Awkward:
    """Object that fails when it is asked for anything."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")

    def __len__(self):
        raise RuntimeError("no length")

    def __repr__(self):
        return "Awkward()"


ODD = st.sampled_from([
    None, True, 0, -1, 3, 2.5, math.nan, math.inf, 10**400, 10**12, "", "abc", "\ud800", b"x", [], (), {}, {"a": 1}, set(), [[]],
    [[1], [1, 2]], ["a", "b"], [None], [math.nan, 1.0], [math.inf, 0.0], [10**400], [-1, 0], [0, 5], [0.5, 0.5], [1, 2**62],
    np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros((2, 2, 2)), np.float64(1.5), np.array(1), np.array(["a", "b"]),
    np.array([1, None], dtype=object), np.array([1 + 1j, 0]), np.array([0, 1], dtype="datetime64[s]"), np.ones(3, dtype=np.uint8),
    np.ma.masked_array([1.0, 2.0], [0, 1]), torch.zeros(0), torch.zeros(2, 2), torch.tensor([0, 1]).to_sparse(),
    torch.zeros(2, requires_grad=True), torch.tensor([0.5, 0.25], dtype=torch.bfloat16), torch.zeros(2, device="meta"), Awkward(),
    object(), range(3), print, Path("x"), iter([0, 1]),
])  # fmt: skip
# Containers and types in which the same numbers can come.
SAME = (
    lambda a: a, np.ndarray.tolist, lambda a: tuple(a.tolist()), torch.from_numpy, lambda a: a[::-1].copy()[::-1],
    lambda a: np.asfortranarray(a), lambda a: a.astype(a.dtype.newbyteorder()), lambda a: a.astype(np.float16 if a.dtype.kind == "f" else np.int8),
    lambda a: a.astype(np.float32 if a.dtype.kind == "f" else np.uint8),
)  # fmt: skip
FEW = st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0, 60.0])
PLAIN = (str, int, float, bool, tuple)  # types of the values of a config
TOLERANCE = dict(rtol=1e-5, atol=1e-7, equal_nan=True)


@st.composite
def call_of(draw: st.DrawFn, arguments: dict[str, Any], odd_keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Put every array into some container, and often something odd in the place of one argument."""
    with np.errstate(over="ignore"):
        call = {
            key: draw(st.sampled_from(SAME))(value) if isinstance(value, np.ndarray) and value.size else value
            for key, value in arguments.items()
        }
    if draw(st.integers(0, 2)) == 0:
        call[draw(st.sampled_from([*(odd_keys or call)]))] = draw(ODD)
    return call


def numbers(draw: st.DrawFn, n: int, most: int) -> np.ndarray:
    return np.array(draw(st.lists(st.integers(0, most - 1), min_size=n, max_size=n)), dtype=np.int64)


def floats(draw: st.DrawFn, *shape: int) -> np.ndarray:
    size = math.prod(shape)
    return np.array(draw(st.lists(FEW, min_size=size, max_size=size))).reshape(shape)


def plain(value: Any) -> np.ndarray:
    """Return an argument as a NumPy array, for the slow computations."""
    return np.asarray(
        value.detach().to(torch.float64) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    )


# Metrics


@st.composite
def metric_calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name, n, k = draw(st.sampled_from(sorted(METRICS))), draw(st.integers(0, 7)), draw(st.integers(1, 4))
    if name in ("auroc", "auprc"):
        return name, draw(call_of(dict(scores=floats(draw, n), positive=numbers(draw, n, 2) == 1)))
    if name == "by_group":
        groups = numbers(draw, n, k)
        if draw(st.booleans()):
            groups = groups[:, None] == np.arange(draw(st.integers(1, k)))
        names = tuple("abcd"[:k])
        return name, draw(call_of(dict(scores=floats(draw, n), targets=numbers(draw, n, 3), groups=groups, names=names), ("scores", "targets", "groups")))  # fmt: skip
    raw = np.array(draw(st.lists(st.integers(0, 9), min_size=n * k, max_size=n * k))).reshape(n, k) + 0.137
    arguments = dict(probability=raw / raw.sum(1, keepdims=True), targets=numbers(draw, n, k))
    if name in ("reliability", "ece"):
        arguments |= dict(bins=draw(st.integers(1, 20)), equal_mass=draw(st.booleans()))
    return name, draw(call_of(arguments, ("probability", "targets", "bins") if "bins" in arguments else ()))


def slow_auroc(scores, positive):
    own, other = ([s for s, p in zip(scores, positive) if bool(p) == side] for side in (True, False))
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(own, other)]
    return sum(wins) / len(wins) if wins else math.nan


def slow_auprc(scores, positive):
    return (
        average_precision_score(np.asarray(positive, dtype=int), np.asarray(scores, dtype=float))
        if any(positive)
        else math.nan
    )


def slow_nll(probability, targets):
    return (
        np.mean([-math.log(max(row[t], 2.2250738585072014e-308)) for row, t in zip(probability, targets)])
        if len(targets)
        else math.nan
    )


def slow_brier(probability, targets):
    rows = [sum((p - (k == t)) ** 2 for k, p in enumerate(row)) for row, t in zip(probability, targets)]
    return np.mean(rows) / (2 if probability.shape[1] == 2 else 1) if rows else math.nan


def slow_reliability(probability, targets, bins=15, equal_mass=False):
    examples = [(max(row), float(int(np.argmax(row)) == t)) for row, t in zip(probability.tolist(), targets)]
    members: dict[int, list] = {}
    for place, i in enumerate(sorted(range(len(examples)), key=lambda i: examples[i][0])):
        bin_of_example = (
            place * bins // len(examples) if equal_mass else min(math.ceil(examples[i][0] * bins) - 1, bins - 1)
        )
        members.setdefault(bin_of_example, []).append(examples[i])
    return [(*map(np.mean, zip(*members[b])), len(members[b])) for b in sorted(members)]


def slow_ece(probability, targets, bins=15, equal_mass=False):
    curve = slow_reliability(probability, targets, bins, equal_mass)
    return sum(n * abs(a - c) for c, a, n in curve) / len(targets) if len(targets) else math.nan


def slow_by_group(scores, targets, groups, names):
    def inside(i: int, g: int) -> bool:
        return bool(groups[i] == g) if groups.ndim == 1 else g < groups.shape[1] and bool(groups[i][g])

    chosen = {name: [i for i in range(len(targets)) if inside(i, g)] for g, name in enumerate(names)}
    return {
        name: np.mean([scores[i] * targets[i] for i in rows]) if rows else math.nan for name, rows in chosen.items()
    }


def product_mean(scores: np.ndarray, targets: np.ndarray) -> float:
    return float((scores.astype(np.float64) * targets).mean())


METRICS: dict[str, tuple[Callable, Callable]] = {
    "auroc": (scores.auroc, slow_auroc),
    "auprc": (scores.auprc, slow_auprc),
    "nll": (scores.nll, slow_nll),
    "brier": (scores.brier, slow_brier),
    "reliability": (lambda **a: list(zip(*scores.reliability(**a))), slow_reliability),
    "ece": (scores.ece, slow_ece),
    "by_group": (lambda **a: scores.by_group(product_mean, **a), slow_by_group),
}


def try_metric(case: tuple[str, dict[str, Any]], folder: Path) -> tuple[str, str]:
    name, arguments = case

    def check(answer: Any) -> None:
        known = {
            k: plain(v) if k in ("scores", "positive", "probability", "targets", "groups") else v
            for k, v in arguments.items()
        }
        if name in ("reliability", "ece") and not known["equal_mass"]:
            places = known["probability"].astype(float).max(1, initial=0) * known["bins"]
            if (abs(places - places.round()) < 0.01).any():
                return  # at the edge of two bins the precision of the probabilities decides
        expected = METRICS[name][1](**known)
        if name == "by_group":
            assert answer.keys() == expected.keys()
            answer, expected = list(answer.values()), list(expected.values())
        # float16 and float32 arguments are used as they are.
        np.testing.assert_allclose(np.array(answer, dtype=float), np.array(expected, dtype=float), rtol=2e-3, atol=2e-3)

    return outcome_of(lambda: METRICS[name][0](**arguments), check)


# Counts


@st.composite
def count_calls(draw: st.DrawFn) -> dict[str, Any]:
    n, k, g = draw(st.integers(0, 8)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    arguments = {
        "predictions": torch.from_numpy(numbers(draw, n, k)), "targets": torch.from_numpy(numbers(draw, n, k)),
        "groups": torch.from_numpy(numbers(draw, n, g)), "num_classes": k, "num_groups": g,
    }  # fmt: skip
    if draw(st.integers(0, 2)) == 0:
        arguments[draw(st.sampled_from(sorted(arguments)))] = draw(ODD)
    return arguments


def try_count(case: dict[str, Any], folder: Path) -> tuple[str, str]:
    k, g = case["num_classes"], case["num_groups"]

    def call() -> dict[str, float]:
        counts = count(**case)
        (values,) = compute(counts, tuple("abc"[:k]), tuple("xyz"[:g]), np.arange(1, k + 1) * 30, np.ones(g, dtype=int))
        return values

    def check(values: dict[str, float]) -> None:
        predictions, targets, groups = (case[key].tolist() for key in ("predictions", "targets", "groups"))
        right = [p == t for p, t in zip(predictions, targets)]
        recalls = [
            recall_score(targets, predictions, labels=[c], average=None)[0] if c in targets else math.nan
            for c in range(k)
        ]
        by_group = [
            np.mean([r for r, own in zip(right, groups) if own == i]) if i in groups else math.nan for i in range(g)
        ]
        expected = {f"recall/{name}": value for name, value in zip("abc", recalls)}
        expected |= {f"group_accuracy/{name}": value for name, value in zip("xyz", by_group)}
        known = [value for value in by_group if not math.isnan(value)]
        expected["worst_group_accuracy"] = min(known, default=math.nan)
        expected["accuracy"] = np.mean(right) if right else math.nan
        if len({*predictions}) > 1 and len({*targets}) > 1:
            expected["mcc"] = matthews_corrcoef(targets, predictions)
        for key, value in expected.items():
            np.testing.assert_allclose(values[key], value, **TOLERANCE, err_msg=key)

    return outcome_of(call, check)


# Samplers and weights


@st.composite
def sampling_calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind, n, k = draw(st.sampled_from(["sampler", "weights"])), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    targets = numbers(draw, n, k)
    arguments = dict(targets=targets, groups=2 * targets + numbers(draw, n, 2), seed=draw(st.integers(0, 3)), epochs=4)
    by, odd_keys = draw(st.sampled_from(["class", "group"])), ("targets", "groups", "seed", "epochs", "by")
    if kind == "sampler":
        name = draw(st.sampled_from(["shuffle", "undersample", "oversample", "balanced"]))
        values = {} if name == "shuffle" else dict(by=by) | (dict(redraw=True) if name == "undersample" else {})
    else:
        del arguments["seed"]
        arguments["epoch"] = draw(st.integers(0, 3))
        name = draw(st.sampled_from(["uniform", "importance", "square_root", "effective_number"]))
        more = {
            "uniform": {},
            "importance": dict(by=by, exponent=1.5),
            "square_root": dict(by=by),
            "effective_number": dict(by=by, beta=0.9),
        }
        values, odd_keys = more[name], ("targets", "groups", "epoch", "epochs", *more[name])
    return kind, draw(call_of(dict(name=name) | arguments | values, odd_keys))


def try_sampling(case: tuple[str, dict[str, Any]], folder: Path) -> tuple[str, str]:
    kind, arguments = case
    by, name = arguments.get("by"), arguments["name"]

    def labels_by() -> list[int]:
        given = arguments["groups"] if by == "group" else arguments["targets"]
        return [int(label) for label in plain(given).tolist()]

    def check(answer: Any) -> None:
        labels = labels_by()
        counts = {label: labels.count(label) for label in labels}
        if kind == "weights":
            factors = {
                "uniform": lambda c: 1.0, "importance": lambda c: c ** -arguments.get("exponent", 1.0), "square_root": lambda c: c**-0.5,
                "effective_number": lambda c: (1 - arguments.get("beta", 0)) / (1 - arguments.get("beta", 0) ** c),
            }  # fmt: skip
            raw = np.array([factors[name](counts[label]) for label in labels])
            np.testing.assert_allclose(answer.numpy(), raw / raw.mean(), rtol=1e-5)
            return
        assert all(0 <= row < len(labels) for row in answer)
        drawn = [labels[row] for row in answer]
        sizes = {label: drawn.count(label) for label in counts}
        if name == "shuffle":
            assert sorted(answer) == list(range(len(labels)))
        if name in ("undersample", "oversample"):
            assert set(sizes.values()) == {min(counts.values()) if name == "undersample" else max(counts.values())}

    def call() -> Any:
        if kind == "weights":
            return example_weights(**arguments)
        first, second = EpochSampler(**arguments), EpochSampler(**arguments)
        rows = list(first)
        assert rows == list(second) and len(rows) == len(first)
        return rows

    return outcome_of(call, check)


# Theory


@st.composite
def theory_calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name, n = draw(st.sampled_from(["margin", "poly", "angle"])), draw(st.integers(1, 6))
    if name == "angle":
        size = draw(st.integers(1, 4))
        return name, draw(call_of(dict(a=floats(draw, size), b=floats(draw, size))))
    arguments = dict(inputs=floats(draw, n, 1), targets=numbers(draw, n, 2), bias=True)
    keys = ("inputs", "targets")
    if name == "poly":
        weights = np.array(draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=n, max_size=n)))
        arguments, keys = (
            arguments | dict(weights=weights, alpha=draw(st.sampled_from([0.5, 1.0, 2.0]))),
            (*keys, "weights", "alpha"),
        )
    return name, draw(call_of(arguments, keys))


def try_theory(case: tuple[str, dict[str, Any]], folder: Path) -> tuple[str, str]:
    name, arguments = case
    function = {"margin": margin_direction, "poly": poly_direction, "angle": angle}[name]

    def check(answer: Any) -> None:
        if name == "angle":
            a, b = (plain(arguments[key]).astype(float) for key in "ab")
            expected = math.degrees(math.acos(max(-1, min(1, a @ b / math.sqrt((a @ a) * (b @ b))))))
            assert abs(answer - expected) < 1e-4
            return
        inputs, targets = plain(arguments["inputs"]).astype(float), plain(arguments["targets"]).astype(int)
        signed = np.column_stack([inputs, np.ones(len(inputs))]) * (2 * targets - 1)[:, None]
        turns = np.linspace(0, 2 * math.pi, 20_001)
        grid = np.stack([np.cos(turns), np.sin(turns)])  # every direction with one input and a bias
        margins = signed @ grid
        assert (margins.min(0) > 0).any() or (signed @ answer).min() > 0
        if name == "margin":
            assert (signed @ answer).min() >= margins.min(0).max() - 1e-6
        elif (margins.min(0) > 0).any():
            weights, alpha = plain(arguments["weights"]).astype(float), float(arguments["alpha"])
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(margins.min(0) > 0, weights @ margins**-alpha, np.inf)
            assert weights @ (signed @ answer) ** -alpha <= values.min() * (1 + 1e-6)

    return outcome_of(lambda: function(**arguments), check)


# Trained models


@cache
def trained(folder: Path) -> TrainedModel:
    """Return a linear model of the digits, trained for one epoch."""
    config = load(ROOT / "configs" / "digits_ce.py")
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="linear", init="default")
    config.trainer.epochs = 1
    return imbalance.load(imbalance.run(config, directory=folder / "trained").directory)


@st.composite
def predict_calls(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(0, 3))
    examples = np.linspace(-1, 1, n * 64).reshape(n, 1, 8, 8) * draw(st.sampled_from([0.0, 1.0, 1e3]))
    examples[:1] *= draw(st.sampled_from([1.0, 1.0, 1e300]))
    arguments = dict(examples=examples, batch_size=draw(st.integers(1, 5)))
    return draw(call_of(arguments))


def try_predict(case: dict[str, Any], folder: Path) -> tuple[str, str]:
    model = trained(folder)

    def check(predictions: Any) -> None:
        layer = model.network.head
        inputs = plain(case["examples"]).astype(np.float64).reshape(-1, 64)
        logits = inputs @ layer.weight.double().numpy().T + layer.bias.double().numpy()
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(
            predictions.probabilities, exponentials / exponentials.sum(1, keepdims=True), atol=1e-2
        )
        assert predictions.classes == [str(i) for i in predictions.probabilities.argmax(1)]

    return outcome_of(lambda: model.predict(**case), check)


# Losses


@st.composite
def loss_calls(draw: st.DrawFn) -> tuple[str, dict[str, Any], np.ndarray, np.ndarray]:
    name, n, k = (
        draw(st.sampled_from(["Focal", "Poly", "LogitAdjusted"])),
        draw(st.integers(1, 4)),
        draw(st.integers(2, 4)),
    )
    values = {
        "Focal": dict(gamma=draw(st.sampled_from([0.0, 1.0, 2.0]))), "LogitAdjusted": dict(tau=draw(st.sampled_from([0.0, 1.0]))),
        "Poly": dict(alpha=draw(st.sampled_from([0.5, 1.0])), left="logistic"),
    }[name]  # fmt: skip
    if draw(st.integers(0, 2)) == 0:
        values[draw(st.sampled_from(sorted(values)))] = draw(ODD)
    return name, values, floats(draw, n, k), numbers(draw, n, k)


def try_loss(case: tuple[str, dict[str, Any], np.ndarray, np.ndarray], folder: Path) -> tuple[str, str]:
    name, values, logits, targets = case
    counts = torch.arange(1, logits.shape[1] + 1)

    def call() -> torch.Tensor:
        first = (counts,) if name == "LogitAdjusted" else ()
        return getattr(losses, name)(*first, **values)(torch.from_numpy(logits), torch.from_numpy(targets))

    def check(answer: torch.Tensor) -> None:
        expected = []
        for row, target in zip(logits, targets):
            shifted = row + values.get("tau", 0) * np.log(np.arange(1, len(row) + 1) / counts.sum().item())
            others = np.delete(shifted, target)
            margin = shifted[target] - (others.max() + math.log(np.exp(others - others.max()).sum()))
            ce = max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
            if name == "Focal":
                ce *= (-math.expm1(-ce)) ** values["gamma"]
            if name == "Poly":  # whose margin is 0 where all logits are equal
                margin += math.log(len(others))
                ce = max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
                ce = margin ** -values["alpha"] if margin > 1 else ce / math.log1p(math.exp(-1))
            expected.append(ce)
        np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-6, atol=1e-12)

    return outcome_of(call, check)


# Configs made in Python


@st.composite
def python_configs(draw: st.DrawFn) -> tuple[Any, Any]:
    config = load(ROOT / "configs" / "digits_poly.py").to_dict()
    sections, changes = sorted(config), {
        "seed": draw(st.sampled_from([3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])),
        "optim.lr": draw(st.sampled_from([0.5, np.float32(0.5), np.float16(0.5), torch.tensor(0.5)])),
        "data.classes": draw(st.sampled_from([(1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), (np.int8(1), 2)])),
        "data_dir": draw(st.sampled_from(["x", Path("x")])),
    }  # fmt: skip
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        section = draw(st.sampled_from(sections))
        where = draw(st.sampled_from(["config", "section", "key", "changes", "all", "all changes"]))
        if where == "config":
            config[section] = draw(ODD)
        elif where == "section" and isinstance(config[section], dict):
            config[section] = config[section] | {draw(st.sampled_from(sorted(config[section]))): draw(ODD)}
        elif where == "key":
            config[draw(st.sampled_from([3, None, "x", "a.b", ("a",), b"seed"]))] = 1
        elif where == "changes":
            changes[
                draw(st.sampled_from(["seed", "optim", "optim.lr", "loss.name", "", ".", 3, None, "trainer.epochs"]))
            ] = draw(ODD)
        elif where == "all":
            return draw(ODD), changes
        else:
            return config, draw(ODD)
    return config, changes


def try_python_config(case: tuple[Any, Any], folder: Path) -> tuple[str, str]:
    def check(answer: Any) -> None:
        experiment, directory = answer
        assert validate(experiment.to_dict()) == experiment
        assert all(type(value) in PLAIN for value in flatten(experiment.to_dict()).values())
        if case[1].get("seed") == 3 and case[1].get("optim.lr") == 0.5:  # neither was replaced by something odd
            assert (experiment.seed, experiment.optim.lr) == (3, 0.5)
        assert directory.name == f"seed={experiment.seed}" and json.dumps(experiment.to_dict())

    return outcome_of(lambda: resolve(*case), check)


def outcome_of(call: Callable[[], Any], check: Callable[[Any], None]) -> tuple[str, str]:
    """Return "answered" or "refused", and what is wrong with that, or ""."""
    try:
        answer = call()
    except BadInput as error:
        text = str(error)
        python = [
            word for word in ("object has no attribute", "NoneType'", "<class", "Traceback", "\n") if word in text
        ]
        return "refused", f"not plain: {text}" if python or len(text) > 900 else ""
    except Exception:
        return "traceback", traceback.format_exc()
    try:
        check(answer)
    except Exception:
        return "wrong", f"{traceback.format_exc()}\nanswer: {answer!r}"
    return "answered", ""


API_KINDS = {
    "API: metrics": (metric_calls(), try_metric),
    "API: counts": (count_calls(), try_count),
    "API: samplers": (sampling_calls(), try_sampling),
    "API: theory": (theory_calls(), try_theory),
    "API: predict": (predict_calls(), try_predict),
    "API: losses": (loss_calls(), try_loss),
    "API: configs": (python_configs(), try_python_config),
}
