"""Forensics: find the step that made a value non-finite, write it to a file, and replay it.

`imbalance forensics <run directory>` replays that step.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment, validate
from imbalance.config.resolve import defining_values, first_difference, load
from imbalance.config.run_directory import read_summary
from imbalance.data.identity import differences
from imbalance.errors import BadInput, Diverged
from imbalance.methods.batch import Inputs
from imbalance.methods.margins import soft_margins
from imbalance.training.distributed.processes import of_all_processes, start_accelerator
from imbalance.training.distributed.sharding import is_sharded, local, whole
from imbalance.training.learner import Learner, make_learner
from imbalance.training.optim import SharpnessAware, set_rate
from imbalance.training.state import checkpoint
from imbalance.training.state.finite import finite, first_non_finite, is_finite, listed_rows, named_tensors
from imbalance.training.state.registry import RandomState, Stateful, restore, snapshot
from imbalance.training.state.run_state import Run, go_back
from imbalance.training.step import (
    Epoch,
    StepOutput,
    batch_size,
    batch_slices,
    count_batches,
    draw_epoch,
    forward,
    objective_columns,
    optimizer_step,
    take_step,
)
from imbalance.utils.read import read_torch
from imbalance.utils.torch_state import set_random_state

FILE = "divergence.pt"  # in the run directory


def find(run: Run, end: int) -> Diverged:
    """Find the step that made a value non-finite, write it to `divergence.pt`, and return the error to raise.

    Repeat the steps since the state that `remember` last copied, and check the state after each. Every process must
    call this function, since all processes take their steps together.

    Args:
        end: number of steps done when a value was found to be non-finite.
    """
    learner, progress, begun = run.learner, run.progress, run.remembered["progress"]["step"]
    go_back(run)
    if end - progress.step > 1:
        run.log.line(
            f"a value is non-finite after step {end - 1}; repeating the last {end - progress.step} steps to find the "
            "step that made it so"
        )
    parts = stateful_parts(learner)
    while progress.step < end:
        epoch = draw_epoch(learner, progress.epoch)
        batches = count_batches(run.config, epoch)
        learner.model.train()
        for batch in range(progress.batch, batches):
            before = snapshot(parts)
            done = take_step(run.config, learner, epoch, batch, batches, lambda: 0)
            if not (done.finite and is_finite(learner)):
                return report(run, epoch, done, before)
            learner.optimizer.zero_grad()
            progress.batch, progress.step = batch + 1, progress.step + 1
            if progress.step == end:
                break
        else:
            progress.next_epoch()
    return Diverged(
        f"non-finite between steps {begun} and {end}; repeating these steps did not show it again; type the same command "
        "to resume the run"
    )


def stateful_parts(learner: Learner) -> dict[str, Stateful]:
    """Return every stateful part that a step may change, by its name in `divergence.pt`."""
    return {**learner.parts, "random": RandomState()}


def report(run: Run, epoch: Epoch, done: StepOutput, before: dict[str, Any]) -> Diverged:
    """Write a step that made a value non-finite to `divergence.pt` in the run directory, and return the error to raise.

    Args:
        epoch: epoch of the step.
        done: output of the step.
        before: snapshot of `stateful_parts` before the step.
    """
    learner, progress, log = run.learner, run.progress, run.log
    accelerator, train, world = learner.accelerator, learner.dataset.train, learner.accelerator.num_processes
    global_slice, own = batch_slices(progress.batch, batch_size(run.config, epoch), accelerator.process_index, world)
    rows, losses = epoch.rows[global_slice], done.terms["losses"].detach()
    after = None if not done.finite else first_non_finite_after(learner)
    restore(stateful_parts(learner), before)
    trace = trace_forward(learner, epoch.batch(own).views)
    share = {
        "logits": done.logits.detach().cpu(),
        "random": before["random"],
        "first": first_non_finite_entry(trace),
        "after": after,
    }
    shares = of_all_processes(share)
    every_logit = done.logits.new_empty(len(rows), done.logits.shape[1], device="cpu")
    for rank, share in enumerate(shares):
        every_logit[rank::world] = share["logits"]
    if done.finite:
        first = next((share["after"] for share in shares if share["after"]), "unknown")
        what = f"non-finite update by step {progress.step}, whose loss is {done.value.item():g}"
    else:
        fallback = (
            "the objective (the loss of every example is finite)"
            if losses.isfinite().all()
            else "the loss (every logit is finite)"
        )
        first = next((share["first"] for share in shares if share["first"]), fallback)
        what = f"non-finite loss {done.value.item()} at step {progress.step}"
    targets, rate = train.targets[rows], learner.optimizer.param_groups[0]["lr"]
    state = {
        "step": progress.step,
        "epoch": progress.epoch,
        "batch": progress.batch,
        "learning_rate": rate,
        "first_nonfinite": first,
        "rows": rows,  # in the training split
        "indices": train.indices[rows],  # in the source of the data set
        "targets": targets,
        "groups": train.groups[rows],
        "weights": epoch.weights[global_slice],
        "logits": every_logit,
        "margins": soft_margins(every_logit, targets.cpu()),
        "losses": losses,
        "terms": {name: column.detach() for name, column in done.terms.items()},
        "value": done.value.detach(),
        "config": json.dumps(defining_values(run.config)),
        "data": learner.data,
        **whole(before, keep=log.writes),
        "random": [share["random"] for share in shares],
    }
    if log.writes:
        with log.attempt(log.directory / FILE, "the step cannot be replayed"):
            checkpoint.write(log.directory / FILE, state)
    bad = train.indices[rows[~losses.isfinite()]].tolist()
    has_files = run.config.data.name != "in_memory"  # only the program that made the data could replay the step
    return Diverged(
        f"{what} (epoch {progress.epoch}), learning rate {rate:g}; first non-finite: {first}"
        + (f"; examples with a non-finite loss (row numbers in the data): {listed_rows(bad)}" if bad else "")
        + (f"; to replay this step, type imbalance forensics {log.directory}" if log.writes and has_files else "")
    )


def first_non_finite_after(learner: Learner) -> str | None:
    """Return the name of the first non-finite gradient; without one, of the first non-finite tensor of the state.

    Return None if all are finite.
    """
    gradients = ((name, p.grad) for name, p in learner.network.named_parameters() if p.grad is not None)
    bad = next((name for name, gradient in gradients if not finite([gradient])), None)
    return f"gradient of {bad}" if bad and not learner.accelerator.scaler else first_non_finite(learner)


@torch.no_grad()
def trace_forward(learner: Learner, views: Sequence[Inputs]) -> dict[str, float]:
    """Run a forward pass, and return the largest magnitudes of the parameters, the inputs and every module's output.

    The magnitudes stand in the order of the computation. A magnitude is nan or inf if the tensor has such a
    value in any view.
    """
    model, magnitudes = learner.network, {}

    def record(name: str, tensor: Tensor) -> None:
        before, now = magnitudes.get(name, 0.0), _magnitude(tensor)
        magnitudes[name] = before if isnan(before) or now <= before else now

    for name, parameter in model.named_parameters():
        record(f"parameter {name}", parameter)

    def note(name: str):
        def hook(module: nn.Module, _, output: Any) -> None:
            if isinstance(output, Tensor):
                record(f"output of {name} ({type(module).__name__})", output)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        for inputs in views:
            for name, tensor in ({"inputs": inputs} if isinstance(inputs, Tensor) else inputs).items():
                record(name, tensor)
            # A compiled call would not run the hooks, and a sharded model must be called to gather its parameters.
            (model if is_sharded(model) else model.forward)(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return magnitudes


def first_non_finite_entry(trace: dict[str, float]) -> str | None:
    """Return the name of the first entry of `trace_forward` that is not finite; None if all are finite."""
    return next((name for name, value in trace.items() if not abs(value) < float("inf")), None)


def reason_without_step(directory: Path) -> str:
    """Return why a directory holds no step to replay, and what to type instead."""
    if not directory.is_dir():
        return "no such folder; type the run directory of a run that diverged"
    if not (directory / "summary.json").is_file() or (summary := read_summary(directory))["status"] != "diverged":
        return f"holds no {FILE}, so no step of a run diverged there; type the run directory of a run that diverged"
    if "imbalance forensics" in summary["reason"]:  # the run wrote the file, or tried to
        return (
            f"the run diverged in a training step, but {FILE} is missing or no regular file; restore the file from a copy, or "
            f"train the run again: imbalance train --config={shlex.quote(str(directory / 'config.json'))} "
            "--config.work_dir=<another folder>"
        )
    return f"this run diverged outside a training step, so there is no step to replay: {summary['reason']}"


def check_config(saved: Mapping[str, Any], config: Experiment, path: Path) -> None:
    """Raise `BadInput` if the config of a run was edited after its divergence.

    Args:
        saved: content of `divergence.pt`; files of older versions do not hold the config.
        config: the config in the file at `path`.
    """
    if "config" in saved and (difference := first_difference(config, json.loads(saved["config"]))):
        key, now, before = difference
        raise BadInput(
            f"{path}: config.{key} is {now}, but the step was taken with {before}; restore that value in the file"
        )


def check_rows(saved: Mapping[str, Any], learner: Learner, rows: Tensor, directory: Path) -> None:
    """Raise `BadInput` if the data of a run were changed after its divergence.

    Args:
        saved: content of `divergence.pt`; files of older versions do not hold the digest of the data.
        rows: rows of train that the step draws from the current data.
    """
    if other := differences(saved.get("data", learner.data), learner.data):
        raise BadInput(
            f"config.data_dir: these are not the data with which {directory} diverged ({'; '.join(other)}); restore those data"
        )
    if not torch.equal(rows.cpu(), saved["rows"].cpu()):
        raise BadInput(
            f"{directory}: with this config.json and these data the step draws other examples than in the run; restore the "
            "config.json and the data of the run"
        )


def replay(directory: Path) -> str:
    """Replay the step at which the run in `directory` diverged, and return a report.

    The replay starts from the state and the random numbers before the step. If several processes shared the
    batch, their shares are replayed one after the other. On the same machine and device, with the same packages, the
    losses equal those of the run bit for bit. The report says whether they do.

    Raises:
        BadInput: the run did not diverge in a training step, or its config or data have changed since.
    """
    if not (directory / FILE).is_file():
        raise BadInput(f"{directory}: {reason_without_step(directory)}")
    path = directory / "config.json"
    values = load(path)
    try:
        config = validate(values)
    except BadInput as error:  # the file is damaged, or of another version
        raise BadInput(f"{path}: {error}") from None
    saved = read_torch(directory / FILE)
    check_config(saved, config, path)
    learner = make_learner(config, start_accelerator(config), directory)
    # Files of older versions have no scaler.
    parts = {name: part for name, part in learner.parts.items() if name in saved}
    scaler = learner.accelerator.scaler
    epoch, world, size = draw_epoch(learner, saved["epoch"]), len(saved["random"]), config.trainer.batch_size
    global_slice, _ = batch_slices(saved["batch"], size, 0, world)
    check_rows(saved, learner, epoch.rows[global_slice], directory)
    labels = epoch.labels(global_slice)
    losses, trace, value = torch.empty_like(saved["losses"]), {}, saved["value"]
    for rank, random in enumerate(saved["random"]):
        _, share = batch_slices(saved["batch"], size, rank, world)
        restore(parts, saved)
        learner.model.train()
        set_random_state(random)
        trace = trace if first_non_finite_entry(trace) else trace_forward(learner, epoch.batch(share).views)
        restore(parts, saved)
        set_random_state(random)
        own_terms, backward = forward(learner, epoch, share, learner.micro_batches)
        losses[rank::world] = own_terms["losses"].detach().cpu()
        terms = {name: column.to(learner.accelerator.device, copy=True) for name, column in saved["terms"].items()}
        for name, column in objective_columns(learner, own_terms).items():
            terms[name][rank::world] = column.to(terms[name])
        value = learner.objective.value(terms, labels)
        if saved["value"].isfinite():
            backward(value)  # adds to the gradients of the shares before
    notes: list[str] = []
    if saved["value"].isfinite():
        set_rate(learner.optimizer, saved["learning_rate"])
        scale = scaler.get_scale() if scaler else 1.0  # fp16 gradients are multiplied by it until the step
        trace |= {
            f"gradient of {name}": _magnitude(p.grad) / scale
            for name, p in learner.network.named_parameters()
            if p.grad is not None
        }
        if isinstance(learner.optimizer, SharpnessAware):
            notes = [
                f"the gradients are those of the first pass; the other passes of config.optim.name={config.optim.name!r} and "
                "the update are not replayed",
                "",
            ]
    if saved["value"].isfinite() and not notes:
        optimizer_step(learner, config.trainer.clip_norm)
        trace |= {f"{name}, after the step": _magnitude(tensor) for name, tensor in named_tensors(learner)}
    same = torch.equal(losses.nan_to_num(nan=-1), saved["losses"].nan_to_num(nan=-1))
    lines = [
        f"step {saved['step']} (epoch {saved['epoch']}, batch {saved['batch']}), learning rate {saved['learning_rate']:g}",
        f"objective in the run: {saved['value'].item()}; replayed: {value.item()}; the losses are {'the same, bit for bit' if same else 'NOT the same'}",
        f"first non-finite: {saved['first_nonfinite']}",
        "",
        *notes,
        "largest magnitudes, in the order of computation:",
        *(f"  {magnitude:12.5g}  {name}" for name, magnitude in trace.items()),
        "",
        f"{'source row':>12}{'target':>8}{'group':>7}{'weight':>12}{'margin':>12}{'loss':>12}",
    ]
    # Examples with a non-finite loss come first, then all others, greatest loss first.
    for i in saved["losses"].nan_to_num(nan=float("inf")).argsort(descending=True)[:20].tolist():
        labels_text = f"{saved['indices'][i]:12}{saved['targets'][i]:8}{saved['groups'][i]:7}"
        lines.append(labels_text + "".join(f"{saved[key][i].item():12.5g}" for key in ("weights", "margins", "losses")))
    return "\n".join(lines)


def _magnitude(tensor: Tensor) -> float:
    """Return the largest magnitude in a tensor; 0 if the tensor is empty."""
    tensor = local(tensor)
    return tensor.abs().max().double().item() if tensor.numel() else 0.0
