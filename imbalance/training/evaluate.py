"""Evaluation: compute the metrics of a network on a split, or of the predictions made in the training steps."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, isfinite
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from imbalance.config.metric_names import top_k_named
from imbalance.data import Dataset, Split
from imbalance.errors import Diverged, Interrupted
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.margins import hard_margins
from imbalance.metrics import scores
from imbalance.metrics.class_and_group import Counts, compute, count, count_right
from imbalance.training.distributed.processes import from_main, gather_on_main, of_all_processes, totals
from imbalance.training.distributed.sharding import is_sharded, local, sum_of_ranks
from imbalance.training.features import probed
from imbalance.training.oom_retry import with_smaller_batches
from imbalance.training.read_ahead import batch_reader
from imbalance.training.stacked.vectorised import vectorised
from imbalance.training.state.finite import listed_rows
from imbalance.training.state.progress import joined
from imbalance.training.state.run_state import Run

MOST_MODELS = (
    32  # models evaluated together on shared inputs; more would save little time, and need more memory for activations
)
KEPT_BATCHES = 100  # batches of a process whose logits stay on the device before they are collected
BLOCK_BYTES = 2**26  # bytes of logits of all processes that are collected at a time


class LogitsSink(Protocol):
    """Sink for the logits of a split, to which the main process appends blocks of consecutive examples."""

    def append(self, block: Tensor, /) -> None:
        """Take a block: the (B, K) float32 logits of the next B examples, on the CPU."""
        ...

    def clear(self) -> None:
        """Forget all blocks, because the split is evaluated again."""
        ...

    def joined(self) -> Tensor:
        """Return the (N, K) logits of all blocks."""
        ...


class LogitsInMemory(list[Tensor]):
    """Sink that keeps the logits in memory."""

    def joined(self) -> Tensor:
        """Return the (N, K) logits of all blocks."""
        return torch.cat(self)


@dataclass(frozen=True)
class Outcome:
    """Result of evaluating one model on a split, over all processes.

    loss: mean loss over the examples.
    largest: largest magnitude of a logit, in float32, because logits are saved in float32; nan if a logit is nan.
    metrics: values by metric name, without the prefix of the split.
    logits: (N, K) on the CPU of the main process; None on other processes, or if the caller gave no sink for them.
    """

    loss: float
    largest: float
    metrics: dict[str, float]
    logits: Tensor | None


class Evaluation(NamedTuple):
    """Evaluation of one run after an epoch.

    train_metrics: metrics of the predictions that the training steps of the epoch made.
    outcomes: outcome of each evaluated split, by its name.
    """

    train_metrics: dict[str, float]
    outcomes: dict[str, Outcome]


def evaluate(runs: Sequence[Run], name: str, sinks: Sequence[LogitsSink] = ()) -> list[Outcome]:
    """Evaluate the model of each run on the split `name`, and return an outcome for each.

    Several models are evaluated at a time. Each process evaluates its own part of the batches, and the counts of all
    processes are added up. The host waits for the device only after all batches are queued, except when it
    copies many logits.

    Args:
        sinks: a sink for each run, to which the logits go while they are computed; empty if no logits are needed.

    Raises:
        Interrupted: a signal came to any process.
    """
    splits: list[Split] = [getattr(run.learner.dataset.eval_dataset, name) for run in runs]
    if len(set(map(len, splits))) > 1:
        return [outcome for i, run in enumerate(runs) for outcome in evaluate([run], name, sinks[i : i + 1])]
    accelerator, dataset = runs[0].learner.accelerator, runs[0].learner.dataset.eval_dataset
    outputs, signum = forward_with_memory(runs, splits, name == "train", sinks), runs[0].interrupt.signum
    rows, predictions = outputs.rows, outputs.predictions
    targets, groups, method_groups = (
        labels[:, rows] for labels in stacked_labels(splits, "targets", "groups", "method_groups")
    )
    sums = {"signals": outputs.loss.new_full((), signum), "loss": outputs.loss}
    sums |= count_tables(dataset, predictions, targets, groups, stacked_group_masks(splits, [rows] * len(runs)))
    maxima = {"largest": outputs.largest}
    if dataset.inferred_names:
        sums["inferred"] = count_right(predictions == targets, method_groups, len(dataset.inferred_names))
    if name == "train":
        margin_sums, margin_maxima = reduce_margins(dataset, groups, outputs.margins)
        sums, maxima = sums | margin_sums, maxima | margin_maxima
    reduced = totals(accelerator, sums, maxima)
    if reduced["signals"]:
        raise Interrupted(signum or signal.SIGTERM)
    has_logits = sinks and accelerator.is_main_process
    logits = [sink.joined() for sink in sinks] if has_logits else [None] * len(runs)
    counts = counts_from(reduced)
    metrics = compute_metrics([run.learner.dataset.eval_dataset for run in runs], counts)
    if name == "train":
        metrics = [values | margins for values, margins in zip(metrics, margin_metrics(dataset, reduced))]
    if dataset.inferred_names:
        inferred_counts = Counts(counts.classes, counts.predicted, reduced["inferred"])
        inferred_metrics = compute_metrics(
            [run.learner.dataset.eval_dataset.for_methods for run in runs], inferred_counts
        )
        for values, inferred in zip(metrics, inferred_metrics):
            values["worst_inferred_group_accuracy"] = inferred["worst_group_accuracy"]
            values["inferred_group_balanced_accuracy"] = inferred["group_balanced_accuracy"]
    losses = reduced["loss"] / counts.classes.sum((1, 2))
    return [Outcome(*fields) for fields in zip(losses.tolist(), reduced["largest"].tolist(), metrics, logits)]


class Outputs(NamedTuple):
    """Outputs of M models for the examples of a split that this process evaluates, on the device of the models.

    loss: (M,) sum of the losses.
    largest: (M,) largest magnitude of a logit.
    rows: (N,) row numbers of the examples in the split.
    predictions: (M, N) predicted classes.
    margins: (M, N) margins; empty unless the caller asked for them.
    """

    loss: Tensor
    largest: Tensor
    rows: Tensor
    predictions: Tensor
    margins: Tensor


def forward_with_memory(
    runs: Sequence[Run], splits: Sequence[Split], with_margins: bool, sinks: Sequence[LogitsSink]
) -> Outputs:
    """Return the result of `forward_split`; if memory runs out, log that and use smaller batches from then on.

    Args:
        with_margins, sinks: as for `forward_split`.
    """
    learner = runs[0].learner

    def attempt(size: int) -> Outputs:
        for run in runs:
            run.learner.eval_batch_size = size
        for sink in sinks:
            sink.clear()
        return forward_split(runs, splits, with_margins, sinks)

    before, alone = learner.eval_batch_size, learner.accelerator.num_processes == 1
    outputs, size = with_smaller_batches(attempt, before, may_halve=alone)
    if size < before:
        runs[0].log.line(f"out of memory: evaluations continue with config.trainer.eval_batch_size={size}")
    return outputs


def count_rounds(run: Run, size: int) -> int:
    """Return the number of rounds in which a split of `size` examples is evaluated; a debug run has one.

    In a round each process evaluates one batch; in the last round a process may have none.
    """
    rounds = ceil(size / (run.learner.eval_batch_size * run.learner.accelerator.num_processes))
    return min(rounds, 1) if run.config.debug else rounds


def count_evaluated(run: Run, size: int) -> int:
    """Return how many of the `size` examples of a split are evaluated: all of them, except in a debug run."""
    return min(size, count_rounds(run, size) * run.learner.eval_batch_size * run.learner.accelerator.num_processes)


@torch.inference_mode()  # for this part alone, because torch 2.4 cannot exchange tensors in inference mode
def forward_split(
    runs: Sequence[Run], splits: Sequence[Split], with_margins: bool, sinks: Sequence[LogitsSink]
) -> Outputs:
    """Evaluate the model of each run on this process's batches of the run's split, and return the outputs.

    Stop early if a signal comes. Send the logits to the main process every few rounds, so that no process holds many.

    Args:
        splits: split of each run.
        with_margins: whether the result has margins.
        sinks: a sink for the logits of each run; empty if no logits are needed.
    """
    interrupt, accelerator, size = runs[0].interrupt, runs[0].learner.accelerator, len(splits[0])
    device, world = accelerator.device, accelerator.num_processes
    loss, largest = torch.zeros(2, len(runs), dtype=torch.float64, device=device)
    rows, predictions, margins, kept = [], [], [], []
    batches, rounds, block = local_batches(runs[0], size), count_rounds(runs[0], size), 0
    forward, (targets,) = make_forward(runs, splits, batches), stacked_labels(splits, "targets")
    per_block = rounds_per_block(runs[0], len(runs) * runs[0].learner.dataset.eval_dataset.num_classes)
    # All processes must call a sharded model equally often, because they gather its parameters together.
    sharded = is_sharded(runs[0].learner.evaluated_network)
    for number in range(rounds):
        if interrupt.signum and not sharded and not (sinks and world > 1):
            break
        if number < len(batches):
            batch = batches[number]
            logits, losses = forward(batch)
            loss += losses.sum(1)
            largest = torch.maximum(largest, logits.float().abs().flatten(1).amax(1))
            predictions.append(logits.argmax(2))
            rows.append(torch.arange(batch.start, batch.start + logits.shape[1], device=device))
            if with_margins:
                margins.append(stacked_margins(logits, targets[:, batch]))
            if sinks:
                kept.append(logits.float())
        elif sharded:
            forward(slice(0, 1))
        block += 1
        if sinks and (block == per_block or number + 1 == rounds):
            with torch.inference_mode(False):
                if collect_logits(runs, size, number + 1 - block, block, kept, sinks):
                    break
            kept, block = [], 0
    predictions = torch.cat([targets[:, :0], *predictions], 1)
    margins = torch.cat([loss.new_empty(len(runs), 0), *margins], 1)
    return Outputs(loss, largest, joined(rows, splits[0].indices), predictions, margins)


def rounds_per_block(run: Run, logits: int) -> int:
    """Return the number of rounds after which logits are collected, within `KEPT_BATCHES` and `BLOCK_BYTES`.

    Args:
        logits: number of logits that all models together give for one example.
    """
    row_bytes = 4 * logits * run.learner.accelerator.num_processes
    return max(1, min(KEPT_BATCHES, BLOCK_BYTES // (row_bytes * run.learner.eval_batch_size)))


def collect_logits(
    runs: Sequence[Run], size: int, first: int, rounds: int, kept: list[Tensor], sinks: Sequence[LogitsSink]
) -> bool:
    """Gather the logits of some rounds from all processes, and append them to the sinks on the main process.

    Return whether a signal came to any process.

    Args:
        size: number of examples in the split.
        first, rounds: number of the first of these rounds, and how many there are; see `count_rounds`.
        kept: for each batch of this process in these rounds, the (M, B, K) logits of M models.
        sinks: a sink for the logits of each model.
    """
    accelerator, step = runs[0].learner.accelerator, runs[0].learner.eval_batch_size
    world, start = accelerator.num_processes, first * step * accelerator.num_processes
    if world > 1:
        signum = torch.tensor(float(runs[0].interrupt.signum), device=accelerator.device)
        if totals(accelerator, {}, {"signum": signum})["signum"]:
            return True
    models, classes = len(runs), runs[0].learner.dataset.eval_dataset.num_classes
    own = torch.cat(kept, 1) if kept else torch.empty(models, 0, classes, device=accelerator.device)
    if world == 1:
        ordered = own.cpu()
    else:
        padded = own.new_zeros(models, rounds * step, classes)  # all processes must send the same shape
        padded[:, : own.shape[1]] = own
        blocks = gather_on_main(accelerator, padded)
        if not blocks:
            return False
        by_round = torch.stack(blocks, 1).unflatten(2, (rounds, step)).transpose(1, 2)
        ordered = by_round.flatten(1, 3)[:, : size - start].cpu()
    for sink, logits in zip(sinks, ordered, strict=True):
        sink.append(logits)
    return False


def local_batches(run: Run, size: int) -> list[slice]:
    """Return the batches that this process evaluates, as slices of a split's `size` examples; a debug run has one batch."""
    accelerator, step = run.learner.accelerator, run.learner.eval_batch_size
    starts = range(accelerator.process_index * step, size, accelerator.num_processes * step)
    return [slice(start, start + step) for start in (starts[:1] if run.config.debug else starts)]


def stacked_labels(splits: Sequence[Split], *names: str) -> tuple[Tensor, ...]:
    """Stack the labels of M splits, and return one (M, N) tensor for each name in `names`, such as "targets"."""
    return tuple(torch.stack([getattr(split, name) for split in splits]) for name in names)


def make_forward(
    runs: Sequence[Run], splits: Sequence[Split], batches: Sequence[slice]
) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """Return a function that evaluates M models: it maps a slice of row numbers to logits (M, B, K) and losses (M, B).

    Args:
        splits: split of each run.
        batches: slices in the order of the calls, so that inputs on disk are read ahead.
    """
    models = [run.learner.evaluated_network.eval() for run in runs]
    losses = [run.learner.loss for run in runs]
    if runs[0].learner.dataset.probe:
        models, losses = [probed(run.learner) for run in runs], [CrossEntropy()] * len(runs)

    readers = {id(split.inputs): batch_reader(split.inputs, batches) for split in splits}

    def inputs(i: int, batch: slice):
        return runs[i].learner.normalise(readers[id(splits[i].inputs)](batch))

    if len(runs) == 1:

        def forward(batch: slice) -> tuple[Tensor, Tensor]:
            logits = models[0](inputs(0, batch))
            return logits[None], losses[0](logits, splits[0].targets[batch], splits[0].method_groups[batch])[None]

        return forward

    # Runs with the same split follow one another, so `groupby` finds them.
    same = [list(places) for _, places in groupby(range(len(runs)), lambda i: id(splits[i].inputs))]
    chunks = [places[start : start + MOST_MODELS] for places in same for start in range(0, len(places), MOST_MODELS)]
    chunk_models = [vectorised([models[i] for i in chunk], in_dims=None) for chunk in chunks]
    stacked_loss = vectorised(losses, in_dims=0)
    targets, method_groups = stacked_labels(splits, "targets", "method_groups")

    def stacked_forward(batch: slice) -> tuple[Tensor, Tensor]:
        logits = torch.cat([model(inputs(chunk[0], batch)) for model, chunk in zip(chunk_models, chunks)])
        return logits, stacked_loss(logits, targets[:, batch], method_groups[:, batch])

    return stacked_forward


def split_metrics(run: Run, name: str, outcome: Outcome) -> dict[str, float]:
    """Return the metrics of the split `name`, under keys `<name>/…`.

    Raises:
        Diverged: a logit or a loss is not finite. Such logits have an argmax too, which would count as a prediction.
    """
    if not isfinite(outcome.loss + outcome.largest):
        what = "loss" if isfinite(outcome.largest) else "logits"
        bad = listed_rows(non_finite_rows(run, name))
        raise Diverged(
            f"non-finite {what} on {name} after step {run.progress.step}, although the weights are "
            f"finite; examples (row numbers in the data): {bad}; check these examples, or use a smaller config.optim.lr"
        )
    return {f"{name}/{key}": value for key, value in ({"loss": outcome.loss} | outcome.metrics).items()}


def non_finite_rows(run: Run, name: str) -> list[int]:
    """Return `Split.indices` of all examples of the split `name` with non-finite logits or loss."""
    split = getattr(run.learner.dataset.eval_dataset, name)
    batches, bad = local_batches(run, len(split)), []
    forward = make_forward([run], [split], batches)
    for batch in batches:
        with torch.inference_mode():
            logits, losses = forward(batch)
        bad += split.indices[batch][~(losses[0].isfinite() & logits[0].float().isfinite().all(1))].tolist()
    return sorted(row for process_rows in of_all_processes(bad) for row in process_rows)


def training_metrics(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Return for each run the metrics `train/…` of the epoch just trained, from the predictions made in its steps."""
    accelerator, dataset = runs[0].learner.accelerator, runs[0].learner.dataset
    predictions, targets, groups, masks = step_predictions(runs)
    empty = torch.empty(0, device=predictions.device)
    margins = torch.stack([joined(run.progress.margins, empty).double() for run in runs])
    sums, maxima = reduce_margins(dataset, groups, margins)
    # Every process has the same loss and the same norm, so their maximum over the processes changes nothing.
    loss = torch.stack([torch.stack(run.progress.values).double().mean() for run in runs])
    norm = torch.stack([weight_norm(run.learner.network) for run in runs])
    maxima |= {"loss": loss, "norm": norm}
    reduced = totals(accelerator, count_tables(dataset, predictions, targets, groups, masks) | sums, maxima)
    metrics = compute_metrics([run.learner.dataset for run in runs], counts_from(reduced))
    margins = margin_metrics(dataset, reduced)
    rows = zip(reduced["loss"].tolist(), metrics, margins, reduced["norm"].tolist())
    return [
        {f"train/{key}": value for key, value in ({"loss": loss} | values | margin_values).items()}
        | {"weight_norm": norm}
        for loss, values, margin_values, norm in rows
    ]


@torch.no_grad()
def weight_norm(network: nn.Module) -> Tensor:
    """Return the Euclidean norm of all parameters together, in float64."""
    squares = torch.stack([local(p).double().square().sum() for p in network.parameters()]).sum()
    return (sum_of_ranks(squares) if is_sharded(network) else squares).sqrt()


def step_predictions(runs: Sequence[Run]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the predictions of this process's training steps in the epoch, and the labels of their examples.

    Return a tuple: (M, N) predicted classes, (M, N) targets, (M, N) groups, and the group masks (see
    `stacked_group_masks`), which say in which evaluation groups each example is.
    """
    trains = [run.learner.dataset.train for run in runs]
    rows = [joined(run.progress.drawn, train.indices) for run, train in zip(runs, trains)]
    predictions = torch.stack([joined(run.progress.predictions, train.targets) for run, train in zip(runs, trains)])
    targets, groups = (
        torch.stack([getattr(train, key)[own] for train, own in zip(trains, rows)]) for key in ("targets", "groups")
    )
    return predictions, targets, groups, stacked_group_masks(trains, rows)


def stacked_group_masks(splits: Sequence[Split], rows: Sequence[Tensor]) -> Tensor | None:
    """Return (M, N, E) masks that say in which of the E evaluation groups the examples at `rows` of each split are.

    Return None if the data set has no evaluation groups.
    """
    if splits[0].eval_group_mask is None:
        return None
    # All splits of a data set have masks, or none has.
    masks = cast(list[Tensor], [split.eval_group_mask for split in splits])
    return torch.stack([mask[own] for mask, own in zip(masks, rows)])


def newly_interpolating(runs: Sequence[Run]) -> list[bool]:
    """Return for each run whether, for the first time, every prediction of the epoch's training steps was correct.

    The result is the same on every process.
    """
    if all(run.progress.interpolation_epoch for run in runs):
        return [False] * len(runs)
    predictions, targets, *_ = step_predictions(runs)
    wrong = totals(runs[0].learner.accelerator, {"wrong": (predictions != targets).sum(1)}, {})["wrong"].tolist()
    return [not run.progress.interpolation_epoch and not count for run, count in zip(runs, wrong)]


def stacked_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the (M, B) margins of the (M, B, K) logits of M models, each as `hard_margins` computes it."""
    return hard_margins(logits.flatten(0, 1), targets.flatten()).view_as(targets)


def reduce_margins(dataset: Dataset, groups: Tensor, margins: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the sum of the margins in each group, and the negated smallest margin in each group, both (M, G).

    Both are of the examples of this process only. The smallest margins are negated because `totals` combines them over
    the processes by maxima.

    Args:
        groups, margins: (M, N) groups and margins of this process's examples, for each of M models.
    """
    models, size = len(groups), dataset.num_groups
    margins = margins.double().flatten()
    groups = (groups + size * torch.arange(models, device=groups.device)[:, None]).flatten()
    sums = margins.new_zeros(models * size).index_add(0, groups, margins)
    least = torch.full_like(sums, torch.inf).scatter_reduce(0, groups, margins, "amin")
    return {"margins": sums.view(models, size)}, {"negative margins": -least.view(models, size)}


def margin_metrics(dataset: Dataset, reduced: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Return for each model a dictionary with the mean and the smallest margin of the examples of each group.

    Args:
        reduced: result of `totals` for the tensors of `count_tables` and `reduce_margins`.
    """
    counts = reduced["grouped"].sum(2)
    means = (reduced["margins"] / counts).tolist()
    least = torch.where(counts > 0, -reduced["negative margins"], torch.nan).tolist()
    return [
        {f"margin_mean/{name}": value for name, value in zip(dataset.group_names, model_means)}
        | {f"margin_min/{name}": value for name, value in zip(dataset.group_names, model_least)}
        for model_means, model_least in zip(means, least)
    ]


def count_tables(
    dataset: Dataset, predictions: Tensor, targets: Tensor, groups: Tensor, eval_group_mask: Tensor | None
) -> dict[str, Tensor]:
    """Return the fields of `Counts` by name, for the predictions of M models on the examples of this process.

    Args:
        predictions, targets, groups: (M, N) predicted class, class and group of this process's examples.
        eval_group_mask: (M, N, E) evaluation groups of the examples; None if the evaluation groups are `groups`.
    """
    counts = count(predictions, targets, groups, dataset.num_classes, dataset.num_groups, eval_group_mask)
    return {name: table for name, table in counts._asdict().items() if table is not None}


def counts_from(reduced: Mapping[str, Tensor]) -> Counts:
    """Return the `Counts` whose fields are in `reduced`, the sums of `count_tables` over all processes."""
    return Counts(reduced["classes"], reduced["predicted"], reduced["grouped"], reduced.get("eval_grouped"))


def compute_metrics(datasets: Sequence[Dataset], counts: Counts) -> list[dict[str, float]]:
    """Return for each of M models all metrics that follow from its counts.

    Args:
        datasets: data set of each model; all have the same classes and groups.
    """
    first, train_counts = datasets[0], zip(*(dataset.train_counts for dataset in datasets))
    class_counts, group_counts = (torch.stack(columns).numpy() for columns in train_counts)
    return compute(
        counts,
        first.class_names,
        first.group_names,
        class_counts,
        group_counts,
        first.evaluation_names,
        first.crossed_groups,
    )


def measure_scores(run: Run, name: str, outcome: Outcome) -> dict[str, float]:
    """Return the metrics of ranking, calibration and likelihood, which need logits, under keys `<name>/…`.

    A top-k accuracy is among them if `config.callbacks.monitor` or `config.score` names it. The main process, which has
    the logits, computes the metrics and sends them to the other processes, so all processes must call this function.

    Args:
        outcome: result of evaluating the split `name`, with logits on the main process.
    """
    dataset, top_k = run.learner.dataset.eval_dataset, top_k_named(run.config.callbacks.monitor, run.config.score)

    def measure() -> dict[str, float]:
        logits = outcome.logits
        assert logits is not None  # the caller gave a sink
        targets = getattr(dataset, name).on_cpu["targets"][: len(logits)].numpy()
        return scores.score_metrics(logits.numpy(), targets, dataset.class_names, top_k)

    return {f"{name}/{key}": value for key, value in from_main(run.learner.accelerator, measure).items()}
