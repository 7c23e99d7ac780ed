"""Evaluation of the model on a split, and the training predictions that the steps made anyway."""

import signal

import torch
from accelerate.utils import gather_object
from ml_collections import ConfigDict
from torch import Tensor, nn

from imbalance.data import Dataset, Split
from imbalance.errors import Diverged, Interrupted
from imbalance.judge import metrics, scores
from imbalance.margins import at_least_float32, hard_margins
from imbalance.methods.heads import fit_head
from imbalance.methods.losses import CrossEntropy
from imbalance.training.finite import finite
from imbalance.training.learner import Learner
from imbalance.training.progress import Progress, joined
from imbalance.training.run import Run


@torch.inference_mode()
def evaluate(run: Run, name: str, keep_logits: bool = False) -> tuple[dict[str, float], dict[int, Tensor]]:
    """Metrics of the split `name` under keys `<name>/…`; if asked, the logits too, by the row at which a batch starts.

    Processes take batches in turn and sum their counts, so that no example is padded or counted twice.

    Raises:
        Diverged: a logit, in float32 as it is kept, or a loss is not finite: such logits have an argmax too, and would
            count as predictions.
        Interrupted: a signal came, to any process.
    """
    config, learner, interrupt = run.config, run.learner, run.interrupt
    accelerator, dataset = learner.accelerator, learner.dataset.evaluated
    split, size = getattr(dataset, name), config.trainer.eval_batch_size
    starts = range(accelerator.process_index * size, len(split), accelerator.num_processes * size)
    model, loss = learner.network.eval(), learner.loss
    if learner.dataset.probe:
        model, loss = probed(config, learner), CrossEntropy()
    kept, rows, predictions, margins = {}, [], [], []
    total_loss, largest = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    for start in starts[:1] if config.debug else starts:
        if interrupt.signum:
            break
        batch = slice(start, start + size)
        logits = model(learner.normalise(split.inputs[batch]))
        total_loss += loss(logits, split.targets[batch], split.seen[batch]).sum()
        largest = torch.maximum(largest, logits.float().abs().amax())
        predictions.append(logits.argmax(1))
        rows.append(torch.arange(start, start + len(logits), device=accelerator.device))
        if name == "train":
            margins.append(hard_margins(logits, split.targets[batch]))
        if keep_logits:
            kept[start] = logits.float().cpu()
    rows = joined(rows, split.indices)
    predictions = joined(predictions, split.targets)
    counts = count_everywhere(learner, dataset, split, rows, predictions)
    signals = torch.tensor(interrupt.signum, dtype=torch.float64, device=accelerator.device)
    total_loss, largest, signals = accelerator.reduce((total_loss, largest, signals), reduction="sum")
    if signals:
        raise Interrupted(interrupt.signum or signal.SIGTERM)
    if not (total_loss + largest).isfinite():
        what = "loss" if largest.isfinite() else "logits"
        bad = []
        for start in starts:
            batch = slice(start, start + size)
            logits = model(learner.normalise(split.inputs[batch]))
            losses = loss(logits, split.targets[batch], split.seen[batch])
            bad += split.indices[batch][~(losses.isfinite() & logits.float().isfinite().all(1))].tolist()
        bad = sorted(row for of_process in gather_object([bad]) for row in of_process)
        raise Diverged(
            f"non-finite {what} on {name} after step {run.progress.step}, of finite weights; examples (source rows): "
            + shortened(bad)
        )
    values = {"loss": total_loss.item() / counts.grouped.sum().item()} | measure(dataset, counts)
    if dataset.inferred_names:
        seen = dataset.seen
        by_inferred = count_everywhere(learner, seen, getattr(seen, name), rows, predictions)
        values["worst_inferred_group_accuracy"] = measure(seen, by_inferred)["worst_group_accuracy"]
    if name == "train":
        values |= margins_of_groups(learner, dataset, rows, margins)
    return {f"{name}/{key}": value for key, value in values.items()}, kept


def shortened(rows: list[int]) -> str:
    """The first 20 of them."""
    return ", ".join(map(str, rows[:20])) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")


def training_metrics(learner: Learner, progress: Progress) -> dict[str, float]:
    """Metrics under keys `train/…` of the epoch just trained, from the predictions that its steps made anyway."""
    dataset, train = learner.dataset, learner.dataset.train
    rows, predictions = joined(progress.drawn, train.indices), joined(progress.predictions, train.targets)
    counts = count_everywhere(learner, dataset, train, rows, predictions)
    values = {"loss": torch.stack(progress.values).double().mean().item()} | measure(dataset, counts)
    values |= margins_of_groups(learner, dataset, rows, progress.margins)
    parameters = learner.network.parameters()
    norm = torch.stack([p.detach().double().square().sum() for p in parameters]).sum().sqrt().item()
    return {f"train/{key}": value for key, value in values.items()} | {"weight_norm": norm}


def interpolates(learner: Learner, progress: Progress) -> bool:
    """Whether all predictions that the steps of the epoch made were right, on every process."""
    train = learner.dataset.train
    rows, predictions = joined(progress.drawn, train.indices), joined(progress.predictions, train.targets)
    wrong = (predictions != train.targets[rows]).sum()
    return learner.accelerator.reduce(wrong, reduction="sum").item() == 0


def margins_of_groups(learner: Learner, dataset: Dataset, rows: Tensor, margins: list[Tensor]) -> dict[str, float]:
    """The mean and the smallest margin of each group's training examples: how they interpolate, and how evenly."""
    accelerator = learner.accelerator
    margins, groups = joined(margins, torch.empty(0, device=rows.device)).double(), dataset.train.groups[rows]
    counts = torch.bincount(groups, minlength=dataset.num_groups)
    sums = margins.new_zeros(dataset.num_groups).index_add(0, groups, margins)
    least = torch.full_like(sums, torch.inf).scatter_reduce(0, groups, margins, "amin")
    counts, sums = accelerator.reduce((counts, sums), reduction="sum")
    least = accelerator.gather(least[None]).amin(0)
    means, least = (sums / counts).tolist(), torch.where(counts > 0, least, torch.nan).tolist()
    names = dataset.group_names
    return {f"margin_mean/{name}": value for name, value in zip(names, means)} | {
        f"margin_min/{name}": value for name, value in zip(names, least)
    }


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
    learner: Learner, dataset: Dataset, split: Split, rows: Tensor, predictions: Tensor
) -> metrics.Counts:
    """Counts of the predictions that the processes made for their `rows` of a data set's split, added up."""
    members = None if split.members is None else split.members[rows]
    labels = split.targets[rows], split.groups[rows]
    counts = metrics.count(predictions, *labels, dataset.num_classes, dataset.num_groups, members)
    counted = tuple(table for table in counts if table is not None)
    return metrics.Counts(*learner.accelerator.reduce(counted, reduction="sum"))


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
