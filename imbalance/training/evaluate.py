"""Evaluation of the model on a split, and the training predictions that the steps made anyway."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imbalance.data import Dataset, Split
from imbalance.errors import Diverged, Interrupted
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.margins import hard_margins
from imbalance.metrics import scores
from imbalance.metrics.counts import Counts, compute, count, count_right
from imbalance.training.distributed.processes import of_all_processes, totals
from imbalance.training.features import probed
from imbalance.training.run import Run
from imbalance.training.stacked.vectorised import vectorised
from imbalance.training.state.finite import shortened
from imbalance.training.state.progress import joined

AT_ONCE = 32  # models that share inputs: more save little time, and take the room of their activations
KEPT_BATCHES = 100  # of logits on the device, before they are copied from it


@dataclass(frozen=True)
class Outcome:
    """What one model makes of a split, on all processes.

    loss: the mean over the examples.
    largest: the largest magnitude of a logit, in float32 as logits are kept; nan where one is.
    metrics: by their names without the split's.
    logits: (N, K), if they were asked for, on the CPU.
    """

    loss: float
    largest: float
    metrics: dict[str, float]
    logits: Tensor | None


@torch.inference_mode()
def evaluate(runs: Sequence[Run], name: str, keep_logits: bool = False) -> list[Outcome]:
    """What each run's model makes of the split `name`; runs at once, if they are several.

    Processes take batches in turn and sum their counts, so that no example is padded or counted twice. Nothing waits for
    a device before all batches are queued, but for the logits of many.

    Raises:
        Interrupted: a signal came, to any process.
    """
    splits = [getattr(run.learner.dataset.eval_dataset, name) for run in runs]
    if len(set(map(len, splits))) > 1:
        return [outcome for run in runs for outcome in evaluate([run], name, keep_logits)]
    accelerator, dataset = runs[0].learner.accelerator, runs[0].learner.dataset.eval_dataset
    made, signum = go_through(runs, splits, name == "train", keep_logits), runs[0].interrupt.signum
    rows, predictions = made.rows, made.predictions
    targets, groups, seen = (labels[:, rows] for labels in stacked(splits, "targets", "groups", "method_groups"))
    sums = {"signals": made.loss.new_full((), signum), "loss": made.loss}
    sums |= counted(dataset, predictions, targets, groups, members_of(splits, [rows] * len(runs)))
    maxima = {"largest": made.largest}
    if dataset.inferred_names:
        sums["inferred"] = count_right(predictions == targets, seen, len(dataset.inferred_names))
    if name == "train":
        of_sums, of_maxima = margins_of_groups(dataset, groups, made.margins)
        sums, maxima = sums | of_sums, maxima | of_maxima
    found = totals(accelerator, sums, maxima)
    if found["signals"]:
        raise Interrupted(signum or signal.SIGTERM)
    logits = in_order(runs[0], len(splits[0]), made.logits) if keep_logits else [None] * len(runs)
    counts = counts_of(found)
    metrics = measure([run.learner.dataset.eval_dataset for run in runs], counts)
    if name == "train":
        metrics = [values | of_groups for values, of_groups in zip(metrics, named_margins(dataset, found))]
    if dataset.inferred_names:
        by_inferred = Counts(counts.confusion, found["inferred"])
        of_seen = measure([run.learner.dataset.eval_dataset.for_methods for run in runs], by_inferred)
        for values, of_inferred in zip(metrics, of_seen):
            values["worst_inferred_group_accuracy"] = of_inferred["worst_group_accuracy"]
    losses = found["loss"] / counts.confusion.sum((1, 2))
    return [Outcome(*of_run) for of_run in zip(losses.tolist(), found["largest"].tolist(), metrics, logits)]


class Made(NamedTuple):
    """What M models make of this process's examples, on their device.

    loss, largest: (M,) the sum of the losses, the largest magnitude of a logit.
    rows: (N,) of the split.
    predictions, margins: (M, N); no margins unless they are asked for.
    logits: (M, …, K) each, on the CPU; none unless they are asked for.
    """

    loss: Tensor
    largest: Tensor
    rows: Tensor
    predictions: Tensor
    margins: Tensor
    logits: list[Tensor]


def go_through(runs: Sequence[Run], splits: Sequence[Split], with_margins: bool, with_logits: bool) -> Made:
    """Every batch that is this process's, until a signal comes. Many logits are copied in between, to leave room."""
    interrupt, device = runs[0].interrupt, runs[0].learner.accelerator.device
    forward, (targets,) = forward_of(runs, splits), stacked(splits, "targets")
    loss, largest = torch.zeros(2, len(runs), dtype=torch.float64, device=device)
    rows, predictions, margins, logits_on_cpu, kept = [], [], [], [], []
    for batch in batches_of_process(runs[0], len(splits[0])):
        if interrupt.signum:
            break
        logits, losses = forward(batch)
        loss += losses.sum(1)
        largest = torch.maximum(largest, logits.float().abs().flatten(1).amax(1))
        predictions.append(logits.argmax(2))
        rows.append(torch.arange(batch.start, batch.start + logits.shape[1], device=device))
        if with_margins:
            margins.append(margins_of(logits, targets[:, batch]))
        if with_logits:
            kept.append(logits.float())
        if len(kept) == KEPT_BATCHES:
            logits_on_cpu.append(torch.cat(kept, 1).cpu())
            kept = []
    logits_on_cpu += [torch.cat(kept, 1).cpu()] if kept else []
    predictions = torch.cat([targets[:, :0], *predictions], 1)
    margins = torch.cat([loss.new_empty(len(runs), 0), *margins], 1)
    return Made(loss, largest, joined(rows, splits[0].indices), predictions, margins, logits_on_cpu)


def batches_of_process(run: Run, size: int) -> list[slice]:
    """Those of a split of `size` examples that are this process's; of a debug run, one."""
    accelerator, step = run.learner.accelerator, run.config.trainer.eval_batch_size
    starts = range(accelerator.process_index * step, size, accelerator.num_processes * step)
    return [slice(start, start + step) for start in (starts[:1] if run.config.debug else starts)]


def in_order(run: Run, size: int, parts: Sequence[Tensor]) -> Tensor:
    """(M, N, K) logits of a split of `size` examples, of which every process has those of its batches."""
    starts = [batch.start for batch in batches_of_process(run, size)]
    own = dict(zip(starts, torch.cat(list(parts), 1).split(run.config.trainer.eval_batch_size, 1))) if parts else {}
    of_all = {start: batch for of_process in of_all_processes(own) for start, batch in of_process.items()}
    return torch.cat([of_all[start] for start in sorted(of_all)], 1)


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
            return logits[None], losses[0](logits, splits[0].targets[batch], splits[0].method_groups[batch])[None]

        return forward

    # Runs with the same split follow one another.
    same = [list(places) for _, places in groupby(range(len(runs)), lambda i: id(splits[i].inputs))]
    together = [places[start : start + AT_ONCE] for places in same for start in range(0, len(places), AT_ONCE)]
    of_models = [vectorised([models[i] for i in places], in_dims=None) for places in together]
    of_losses = vectorised(losses, in_dims=0)
    targets, seen = stacked(splits, "targets", "method_groups")

    def forward(batch: slice) -> tuple[Tensor, Tensor]:
        logits = torch.cat([model(inputs(places[0], batch)) for model, places in zip(of_models, together)])
        return logits, of_losses(logits, targets[:, batch], seen[:, batch])

    return forward


def metrics_of(run: Run, name: str, outcome: Outcome) -> dict[str, float]:
    """Metrics of the split `name` under keys `<name>/…`.

    Raises:
        Diverged: a logit or a loss is not finite: such logits have an argmax too, and would count as predictions.
    """
    if not isfinite(outcome.loss + outcome.largest):
        what = "loss" if isfinite(outcome.largest) else "logits"
        bad = shortened(rows_not_finite(run, name))
        raise Diverged(
            f"non-finite {what} on {name} after step {run.progress.step}, of finite weights; examples (source rows): {bad}"
        )
    return {f"{name}/{key}": value for key, value in ({"loss": outcome.loss} | outcome.metrics).items()}


@torch.inference_mode()
def rows_not_finite(run: Run, name: str) -> list[int]:
    """The source rows of the examples of a split whose logits or loss are not finite, on all processes."""
    split = getattr(run.learner.dataset.eval_dataset, name)
    forward, bad = forward_of([run], [split]), []
    for batch in batches_of_process(run, len(split)):
        logits, losses = forward(batch)
        bad += split.indices[batch][~(losses[0].isfinite() & logits[0].float().isfinite().all(1))].tolist()
    return sorted(row for of_process in of_all_processes(bad) for row in of_process)


def training_metrics(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Metrics under keys `train/…` of the epoch just trained, from the predictions that its steps made anyway."""
    accelerator, dataset = runs[0].learner.accelerator, runs[0].learner.dataset
    predictions, targets, groups, members = predicted(runs)
    empty = torch.empty(0, device=predictions.device)
    margins = torch.stack([joined(run.progress.margins, empty).double() for run in runs])
    sums, least = margins_of_groups(dataset, groups, margins)
    # The same on every process, and so its own maximum:
    loss = torch.stack([torch.stack(run.progress.values).double().mean() for run in runs])
    norm = torch.stack([weight_norm(run.learner.network) for run in runs])
    maxima = least | {"loss": loss, "norm": norm}
    found = totals(accelerator, counted(dataset, predictions, targets, groups, members) | sums, maxima)
    of_counts, of_groups = (
        measure([run.learner.dataset for run in runs], counts_of(found)),
        named_margins(dataset, found),
    )
    metrics = []
    for i in range(len(runs)):
        values = {"loss": found["loss"][i].item()} | of_counts[i] | of_groups[i]
        of_train = {f"train/{key}": value for key, value in values.items()}
        metrics.append(of_train | {"weight_norm": found["norm"][i].item()})
    return metrics


@torch.no_grad()
def weight_norm(network: nn.Module) -> Tensor:
    """The length of all parameters as one vector, in float64."""
    return torch.stack([p.double().square().sum() for p in network.parameters()]).sum().sqrt()


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
    if splits[0].eval_group_mask is None:
        return None
    return torch.stack([split.eval_group_mask[of_split] for split, of_split in zip(splits, rows)])


def interpolating(runs: Sequence[Run]) -> list[bool]:
    """Whether all predictions that the steps of the epoch made were right, on every process, for the first time."""
    if all(run.progress.interpolation_epoch for run in runs):
        return [False] * len(runs)
    predictions, targets, *_ = predicted(runs)
    wrong = totals(runs[0].learner.accelerator, {"wrong": (predictions != targets).sum(1)}, {})["wrong"].tolist()
    return [not run.progress.interpolation_epoch and not count for run, count in zip(runs, wrong)]


def margins_of(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, B) `hard_margins` of (M, B, K) logits."""
    return hard_margins(logits.flatten(0, 1), targets.flatten()).view_as(targets)


def margins_of_groups(dataset: Dataset, groups: Tensor, margins: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(M, G) sums of the margins of each group's examples on this process, and the greatest of their negatives.

    Args:
        groups, margins: (M, N) of this process's examples, for each of M models.
    """
    models, size = len(groups), dataset.num_groups
    margins = margins.double().flatten()
    groups = (groups + size * torch.arange(models, device=groups.device)[:, None]).flatten()
    sums = margins.new_zeros(models * size).index_add(0, groups, margins)
    least = torch.full_like(sums, torch.inf).scatter_reduce(0, groups, margins, "amin")
    return {"margins": sums.view(models, size)}, {"negative margins": -least.view(models, size)}


def named_margins(dataset: Dataset, found: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """The mean and the smallest margin of each group's training examples: how they interpolate, and how evenly."""
    counts = found["grouped"].sum(2)
    means = (found["margins"] / counts).tolist()
    least = torch.where(counts > 0, -found["negative margins"], torch.nan).tolist()
    return [
        {f"margin_mean/{name}": value for name, value in zip(dataset.group_names, of_means)}
        | {f"margin_min/{name}": value for name, value in zip(dataset.group_names, of_least)}
        for of_means, of_least in zip(means, least)
    ]


def counted(
    dataset: Dataset, predictions: Tensor, targets: Tensor, groups: Tensor, members: Tensor | None
) -> dict[str, Tensor]:
    """The tables of `Counts` that there are of each model's (M, N) predictions on this process."""
    counts = count(predictions, targets, groups, dataset.num_classes, dataset.num_groups, members)
    return {name: table for name, table in counts._asdict().items() if table is not None}


def counts_of(found: Mapping[str, Tensor]) -> Counts:
    """What `counted` counted, among other things."""
    return Counts(*map(found.get, Counts._fields))


def measure(datasets: Sequence[Dataset], counts: Counts) -> list[dict[str, float]]:
    """Every metric of the counts of M models, each on a data set with the same names."""
    first, counts_of_train = datasets[0], zip(*(dataset.train_counts for dataset in datasets))
    of_classes, of_groups = (torch.stack(of_all).numpy() for of_all in counts_of_train)
    return compute(counts, first.class_names, first.group_names, of_classes, of_groups, first.evaluation_names)


def measure_scores(dataset: Dataset, name: str, logits: Tensor) -> dict[str, float]:
    """Metrics under keys `<name>/…` of what counts cannot give: ranking, calibration, likelihood.

    Args:
        logits: (N, K) of the split `name`, from its first row on.
    """
    targets = getattr(dataset, name).on_cpu["targets"][: len(logits)].numpy()
    found = scores.score_metrics(logits.numpy(), targets, dataset.class_names)
    return {f"{name}/{key}": value for key, value in found.items()}
