"""Compute the test accuracy of finished runs under other class shares, from saved logits and without training again.

    imbalance shift --work_dir=runs --ratios=50,10

The command does test-agnostic evaluation (Zhang et al., NeurIPS 2022, SADE). It reads predictions/test.npz of every finished
run under --work_dir. For each ratio there are two long tails of the classes: "forward" has the order of the training
counts, "backward" the reverse order. "uniform" has equal shares, and gives the balanced accuracy. Every test example
counts, with a weight by its class, so no subset is drawn. A row "known" shows the accuracy of a model that is told the
shares: its logits are shifted by prior correction. This row is missing for a run whose class probabilities have no
known prior. An interval is over seeds, or for a single run over the choice of test examples. --output writes a row for
each run and prior, with the interval over test examples.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from imbalance.config.run_directory import read_predictions, recorded_digests
from imbalance.errors import BadInput
from imbalance.methods.prior import log_ratio
from imbalance.metrics.intervals import Interval, mean
from imbalance.metrics.label_shift import long_tailed_prior, shifted_accuracy
from imbalance.report import tables
from imbalance.report.collect import collect, separate_repeated
from imbalance.report.saved_runs import summary_of
from imbalance.utils.files import begins_with, output_path
from imbalance.utils.output import counted, one_line
from imbalance.utils.read import read_json

HEADS = ("run", "config", "overrides", "seed", "prior", "known", "accuracy", "low", "high")  # of the file of --output


class Shifted(NamedTuple):
    """The accuracy of a run for one class prior, and its interval over the choice of test examples."""

    accuracy: float
    interval: Interval


def shift(*, ratios: Sequence[float], work_dir: str, output: str | None) -> None:
    """Print the accuracies of all finished runs under `work_dir`, by class prior.

    Args:
        ratios: for each long tail, the largest share of a class divided by the smallest; numbers above 1.
        work_dir: folder of the run directories.
        output: CSV file to write; None for no file.
    """
    if wrong := [ratio for ratio in ratios if ratio <= 1]:
        raise BadInput(f"--ratios: {wrong[0]:g} given; a ratio must be above 1, as in --ratios=50,10")
    path = None if output is None else output_path(output, "--output", is_shifted)
    priors = named_ratios(ratios)
    folder, lines, without = Path(work_dir), [], []
    accuracies: dict[tuple[str, str, bool], list[list[Shifted]]] = {}
    rows, warning = separate_repeated(collect(folder))
    for row in rows:
        directory = folder / row["run"]
        if row["status"] != "done":
            continue
        if not (directory / "predictions" / "test.npz").is_file():
            without.append(row["run"])
            continue
        for known, shifted in accuracies_of(directory, list(priors.values())):
            accuracies.setdefault((row["name"], row["overrides"], known), []).append(shifted)
            about = {"run": row["run"], "config": row["name"], "overrides": row["overrides"], "seed": row["seed"]}
            for prior, (accuracy, interval) in zip(priors, shifted, strict=True):
                ends = {"low": interval.low, "high": interval.high}
                lines.append({**about, "prior": prior, "known": known, "accuracy": accuracy, **ends})
    if not accuracies:
        raise BadInput(
            f"--work_dir={work_dir} has no finished run with predictions of test; type a folder that has one"
        )
    if warning:
        print(warning, file=sys.stderr)
    print(
        "Test accuracy, %, by class prior: mean ± 95 % t-interval over n seeds; for n = 1 the interval over test examples.\n"
    )
    if without:
        print(
            f"{counted(len(without), 'finished run')} left out, because predictions/test.npz is missing: {', '.join(without[:3])}"
            f"{', …' * (len(without) > 3)}; `imbalance train` with their configs writes it again",
            file=sys.stderr,
        )
    table = []
    for (name, overrides, known), by_run in accuracies.items():
        config = name if overrides == "default" else f"{name},{overrides}"
        cells = [cell([run[index] for run in by_run]) for index in range(len(priors))]
        table.append([config, "known" if known else "–", *cells, len(by_run)])
    print(tables.markdown(["config", "prior", *priors, "n"], table), end="")
    if path:
        tables.write_csv(path, HEADS, lines)


def named_ratios(ratios: Sequence[float]) -> dict[str, float]:
    """Return the ratios of `long_tailed_prior` by the names of their priors, from head-heavy over uniform to tail-heavy."""
    falling = sorted(set(ratios), reverse=True)
    forward = {f"forward {ratio:g}": ratio for ratio in falling}
    return {**forward, "uniform": 1.0, **{f"backward {ratio:g}": 1 / ratio for ratio in reversed(falling)}}


def accuracies_of(directory: Path, ratios: Sequence[float]) -> Iterator[tuple[bool, list[Shifted]]]:
    """Yield one or two tuples for a finished run: whether the model is told the class shares, and an accuracy per ratio.

    The second tuple has the accuracies of a model that is told the shares. It is missing if `model_prior_of` returns
    None, or if a class of test has no training example.
    """
    saved = read_predictions(directory, "test")
    logits, targets = saved["logits"], saved["targets"]
    counts = list(summary_of(directory)["classes"]["train"].values())
    priors = [long_tailed_prior(counts, ratio) for ratio in ratios]
    right_and_totals = count_by_class(logits.argmax(1), targets, len(counts))
    yield False, [Shifted(*shifted_accuracy(*right_and_totals, prior)) for prior in priors]
    model_prior = model_prior_of(directory)
    if model_prior is None:
        return
    try:
        shifts = [log_ratio(torch.from_numpy(prior), torch.tensor(model_prior).double()).numpy() for prior in priors]
    except BadInput as error:  # a class of test has no training example
        print(one_line(f"{directory}: no row with a known prior: {error}"), file=sys.stderr)
        return
    predictions = ((logits + shift).argmax(1) for shift in shifts)
    yield (
        True,
        [
            Shifted(*shifted_accuracy(*count_by_class(predicted, targets, len(counts)), prior))
            for predicted, prior in zip(predictions, priors, strict=True)
        ],
    )


def count_by_class(predictions: np.ndarray, targets: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two (K,) arrays: the number of right predictions, and the number of examples of each class."""
    right = targets[predictions == targets]
    return np.bincount(right, minlength=num_classes), np.bincount(targets, minlength=num_classes)


def model_prior_of(directory: Path) -> list[float] | None:
    """Return the class prior that the probabilities of a run's model assume; None if it is not known.

    Runs of older versions, and runs that were carried without their model, have no known prior.
    """
    try:
        about = read_json(directory / "model.json", recorded_digests(directory).get("model.json"))
    except FileNotFoundError:
        return None
    entry: Any = about.get("prior")
    return None if entry is None else entry["model"]


def cell(shifted: Sequence[Shifted]) -> str:
    """Return the mean accuracy of runs that differ in seed, in percent, with its interval."""
    if len(shifted) == 1:
        return f"{100 * shifted[0].accuracy:.1f} ({shifted[0].interval.percent()})"
    return mean([run.accuracy for run in shifted], 0, 1).percent()


def is_shifted(path: Path) -> bool:
    """Return whether the file is a table that `shift` wrote."""
    return begins_with(path, ",".join(HEADS).encode())
