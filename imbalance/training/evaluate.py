"""Evaluation of the model on a split, and the training predictions that the steps made anyway."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from ml_collections import ConfigDict
from torch import Tensor, nn

from imbalance.data import Dataset, Split
from imbalance.errors import Diverged, Interrupted
from imbalance.judge import metrics, scores
from imbalance.margins import at_least_float32, hard_margins
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.probe import fit_head
from imbalance.training.finite import finite
from imbalance.training.learner import Learner
from imbalance.training.progress import joined
from imbalance.training.run import Run
from imbalance.training.vectorised import vectorised


@dataclass(frozen=True)
class Outcome:
    """What one model makes of a split, on all processes.

    loss: the mean over the examples.
    largest: the largest magnitude of a logit, in float32 as logits are kept.
    by_inferred: the counts by the groups that methods see, where those are inferred.
    margins: of train, see `margins_of_groups`.
    logits: (N, K), if they were asked for, on the CPU.
    """

    loss: float
    largest: float
    counts: metrics.Counts
    by_inferred: metrics.Counts | None
    margins: dict[str, float]
    logits: Tensor | None


@torch.inference_mode()
def evaluate(runs: Sequence[Run], name: str, keep_logits: bool = False) -> list[Outcome]:
    """What each run's model makes of the split `name`; runs at once, if they are several.

    Processes take batches in turn and sum their counts, so that no example is padded or counted twice.

    Raises:
        Interrupted: a signal came, to any process.
    """
    splits = [getattr(run.learner.dataset.evaluated, name) for run in runs]
    if len(set(map(len, splits))) > 1:
        return [outcome for run in runs for outcome in evaluate([run], name, keep_logits)]
    config, learner, interrupt = runs[0].config, runs[0].learner, runs[0].interrupt
    accelerator, dataset, size = learner.accelerator, learner.dataset.evaluated, config.trainer.eval_batch_size
    starts = range(accelerator.process_index * size, len(splits[0]), accelerator.num_processes * size)
    targets, groups, seen = stacked(splits, "targets", "groups", "seen")
    forward = forward_of(runs, splits)
    kept, rows, predictions, margins = {}, [], [], []
    total_loss, largest = torch.zeros(2, len(runs), dtype=torch.float64, device=accelerator.device)
    for start in starts[:1] if config.debug else starts:
        if interrupt.signum:
            break
        batch = slice(start, start + size)
        logits, losses = forward(batch)
        total_loss += losses.sum(1)
        largest = torch.maximum(largest, logits.float().abs().flatten(1).amax(1))
        predictions.append(logits.argmax(2))
        rows.append(torch.arange(start, start + logits.shape[1], device=accelerator.device))
        if name == "train":
            margins.append(margins_of(logits, targets[:, batch]))
        if keep_logits:
            kept[start] = logits.float().cpu()
    rows = joined(rows, splits[0].indices)
    predictions = torch.cat([targets[:, :0], *predictions], dim=1)
    labels = targets[:, rows], groups[:, rows], members_of(splits, [rows] * len(runs))
    counts = count_everywhere(accelerator, dataset, predictions, *labels)
    if dataset.inferred_names:
        by_inferred = count_everywhere(accelerator, dataset.seen, predictions, targets[:, rows], seen[:, rows])
    signals = torch.tensor(interrupt.signum, dtype=torch.float64, device=accelerator.device)
    total_loss, largest, signals = accelerator.reduce((total_loss, largest, signals), reduction="sum")
    if signals:
        raise Interrupted(interrupt.signum or signal.SIGTERM)
    if name == "train":
        margins = torch.cat([largest.new_empty(len(runs), 0), *margins], dim=1)
        of_groups = margins_of_groups(accelerator, dataset, groups[:, rows], margins)
    if keep_logits:
        kept = {start: logits for part in gather_object([kept]) for start, logits in part.items()}
        logits = torch.cat([kept[start] for start in sorted(kept)], 1)
    examples = counts.grouped.sum((1, 2)).tolist()
    return [
        Outcome(
            total_loss[i].item() / examples[i],
            largest[i].item(),
            counts.of(i),
            by_inferred.of(i) if dataset.inferred_names else None,
            of_groups[i] if name == "train" else {},
            logits[i] if keep_logits else None,
        )
        for i in range(len(runs))
    ]


def stacked(splits: Sequence[Split], *names: str) -> tuple[Tensor, ...]:
    """(M, N) labels of each split."""
    return tuple(torch.stack([getattr(split, name) for split in splits]) for name in names)


def forward_of(runs: Sequence[Run], splits: Sequence[Split]) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """From a batch of the split's rows to logits (M, B, K) and losses (M, B), each split being that of a run."""
    models, losses = [run.learner.network.eval() for run in runs], [run.learner.loss for run in runs]
    if runs[0].learner.dataset.probe:
        models, losses = [probed(run.config, run.learner) for run in runs], [CrossEntropy()] * len(runs)

    def inputs(i: int, batch: slice) -> Tensor:
        return runs[i].learner.normalise(splits[i].inputs[batch])

    if len(runs) == 1:

        def forward(batch: slice) -> tuple[Tensor, Tensor]:
            logits = models[0](inputs(0, batch))
            return logits[None], losses[0](logits, splits[0].targets[batch], splits[0].seen[batch])[None]

        return forward

    # Runs with one seed, which follow one another, have the same split.
    of_seeds = [list(places) for _, places in groupby(range(len(runs)), lambda i: runs[i].config.seed)]
    of_models = [vectorised([models[i] for i in places], in_dims=None) for places in of_seeds]
    of_losses = vectorised(losses, in_dims=0)
    targets, seen = stacked(splits, "targets", "seen")

    def forward(batch: slice) -> tuple[Tensor, Tensor]:
        logits = torch.cat([model(inputs(places[0], batch)) for model, places in zip(of_models, of_seeds)])
        return logits, of_losses(logits, targets[:, batch], seen[:, batch])

    return forward


def metrics_of(run: Run, name: str, outcome: Outcome) -> dict[str, float]:
    """Metrics of the split `name` under keys `<name>/…`.

    Raises:
        Diverged: a logit or a loss is not finite: such logits have an argmax too, and would count as predictions.
    """
    learner = run.learner
    if not isfinite(outcome.loss + outcome.largest):
        what = "loss" if isfinite(outcome.largest) else "logits"
        bad = shortened(rows_not_finite(run, name))
        raise Diverged(
            f"non-finite {what} on {name} after step {run.progress.step}, of finite weights; examples (source rows): {bad}"
        )
    dataset = learner.dataset.evaluated
    values = {"loss": outcome.loss} | measure(dataset, outcome.counts) | outcome.margins
    if outcome.by_inferred:
        values["worst_inferred_group_accuracy"] = measure(dataset.seen, outcome.by_inferred)["worst_group_accuracy"]
    return {f"{name}/{key}": value for key, value in values.items()}


@torch.inference_mode()
def rows_not_finite(run: Run, name: str) -> list[int]:
    """The source rows of the examples of a split whose logits or loss are not finite, on all processes."""
    split, size, accelerator = (
        getattr(run.learner.dataset.evaluated, name),
        run.config.trainer.eval_batch_size,
        run.learner.accelerator,
    )
    forward, bad = forward_of([run], [split]), []
    for start in range(accelerator.process_index * size, len(split), accelerator.num_processes * size):
        batch = slice(start, start + size)
        logits, losses = forward(batch)
        bad += split.indices[batch][~(losses[0].isfinite() & logits[0].float().isfinite().all(1))].tolist()
    return sorted(row for of_process in gather_object([bad]) for row in of_process)


def shortened(rows: list[int]) -> str:
    """The first 20 of them."""
    return ", ".join(map(str, rows[:20])) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")


def training_metrics(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Metrics under keys `train/…` of the epoch just trained, from the predictions that its steps made anyway."""
    accelerator, dataset = runs[0].learner.accelerator, runs[0].learner.dataset
    predictions, targets, groups, members = predicted(runs)
    counts = count_everywhere(accelerator, dataset, predictions, targets, groups, members)
    empty = torch.empty(0, device=predictions.device)
    margins = torch.stack([joined(run.progress.margins, empty).double() for run in runs])
    of_groups = margins_of_groups(accelerator, dataset, groups, margins)
    found = []
    for i, run in enumerate(runs):
        values = {"loss": torch.stack(run.progress.values).double().mean().item()}
        values |= measure(run.learner.dataset, counts.of(i)) | of_groups[i]
        parameters = run.learner.network.parameters()
        norm = torch.stack([p.detach().double().square().sum() for p in parameters]).sum().sqrt().item()
        found.append({f"train/{key}": value for key, value in values.items()} | {"weight_norm": norm})
    return found


def predicted(runs: Sequence[Run]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(M, N) the predictions that the steps of the epoch made on this process, and the examples' targets and groups, and
    `members_of` them."""
    trains = [run.learner.dataset.train for run in runs]
    rows = [joined(run.progress.drawn, train.indices) for run, train in zip(runs, trains)]
    predictions = torch.stack([joined(run.progress.predictions, train.targets) for run, train in zip(runs, trains)])
    labels = (torch.stack([getattr(t, key)[r] for t, r in zip(trains, rows)]) for key in ("targets", "groups"))
    return predictions, *labels, members_of(trains, rows)


def members_of(splits: Sequence[Split], rows: Sequence[Tensor]) -> Tensor | None:
    """(M, N, E) the evaluation groups of the examples at `rows` of each split; None where these are the groups."""
    if splits[0].members is None:
        return None
    return torch.stack([split.members[of_split] for split, of_split in zip(splits, rows)])


def interpolating(runs: Sequence[Run]) -> list[bool]:
    """Whether all predictions that the steps of the epoch made were right, on every process, for the first time."""
    if all(run.progress.interpolation_epoch for run in runs):
        return [False] * len(runs)
    predictions, targets, *_ = predicted(runs)
    wrong = runs[0].learner.accelerator.reduce((predictions != targets).sum(1), reduction="sum").tolist()
    return [not run.progress.interpolation_epoch and not count for run, count in zip(runs, wrong)]


def margins_of(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, B) `hard_margins` of (M, B, K) logits."""
    return hard_margins(logits.flatten(0, 1), targets.flatten()).view_as(targets)


def margins_of_groups(
    accelerator: Accelerator, dataset: Dataset, groups: Tensor, margins: Tensor
) -> list[dict[str, float]]:
    """The mean and the smallest margin of each group's training examples: how they interpolate, and how evenly.

    Args:
        groups, margins: (M, N) of this process's examples, for each of M models.
    """
    models, size = len(groups), dataset.num_groups
    margins = margins.double().flatten()
    groups = (groups + size * torch.arange(models, device=groups.device)[:, None]).flatten()
    counts = torch.bincount(groups, minlength=models * size)
    sums = margins.new_zeros(models * size).index_add(0, groups, margins)
    least = torch.full_like(sums, torch.inf).scatter_reduce(0, groups, margins, "amin")
    counts, sums = accelerator.reduce((counts, sums), reduction="sum")
    least = accelerator.gather(least[None]).amin(0)
    means = (sums / counts).view(models, size).tolist()
    least = torch.where(counts > 0, least, torch.nan).view(models, size).tolist()
    return [
        {f"margin_mean/{name}": value for name, value in zip(dataset.group_names, of_means)}
        | {f"margin_min/{name}": value for name, value in zip(dataset.group_names, of_least)}
        for of_means, of_least in zip(means, least)
    ]


@torch.no_grad()
def features(config: ConfigDict, learner: Learner, split: Split) -> Tensor:
    """(N, D) what the model's last layer sees of a split, in evaluation mode."""
    model, size = learner.network.eval(), config.trainer.eval_batch_size
    batches = (slice(start, start + size) for start in range(0, len(split), size))
    with learner.accelerator.autocast():  # which is on the model as a whole
        found = torch.cat([model.features(learner.normalise(split.inputs[batch])) for batch in batches])
    found = at_least_float32(found)
    if not finite([found]):
        bad = split.indices[~found.flatten(1).isfinite().all(1)].tolist()
        raise Diverged(f"non-finite features, of finite weights; examples (source rows): {shortened(bad)}")
    return found


@torch.no_grad()
def beside(config: ConfigDict, learner: Learner, split: Split) -> dict[str, Tensor]:
    """(N, K) each: what the objective leaves of a split for a later run; of a debug run, of one batch."""
    model, size = learner.network.eval(), config.trainer.eval_batch_size
    starts = range(0, len(split), size)
    batches = (slice(start, start + size) for start in (starts[:1] if config.debug else starts))
    parts = [learner.objective.beside(model, learner.normalise(split.inputs[batch])) for batch in batches]
    return {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}


def probed(config: ConfigDict, learner: Learner) -> nn.Module:
    """The model's features under a new head, fitted to classes that they were not trained for (`Dataset.probe`)."""
    probe, model = learner.dataset.probe, learner.network
    inputs = features(config, learner, probe.train)
    return nn.Sequential(model.features, fit_head(inputs, probe.train.targets, learner.dataset.probe_strength))


def count_everywhere(
    accelerator: Accelerator,
    dataset: Dataset,
    predictions: Tensor,
    targets: Tensor,
    groups: Tensor,
    members: Tensor | None = None,
) -> metrics.Counts:
    """Counts of each model's (M, N) predictions that the processes made, added up."""
    counts = metrics.count(predictions, targets, groups, dataset.num_classes, dataset.num_groups, members)
    counted = tuple(table for table in counts if table is not None)
    return metrics.Counts(*accelerator.reduce(counted, reduction="sum"))


def measure(dataset: Dataset, counts: metrics.Counts) -> dict[str, float]:
    """Every metric of `counts`."""
    class_counts, group_counts = dataset.class_counts(dataset.train), dataset.group_counts(dataset.train)
    names = dataset.class_names, dataset.group_names
    return metrics.compute(counts, *names, class_counts.tolist(), group_counts.tolist(), dataset.evaluation_names)


def measure_scores(dataset: Dataset, name: str, logits: Tensor) -> dict[str, float]:
    """Metrics under keys `<name>/…` of what counts cannot give: ranking, calibration, likelihood.

    Args:
        logits: (N, K) of the split `name`, from its first row on.
    """
    targets = getattr(dataset, name).targets[: len(logits)].cpu().numpy()
    found = scores.score_metrics(logits.numpy(), targets, dataset.class_names)
    return {f"{name}/{key}": value for key, value in found.items()}
