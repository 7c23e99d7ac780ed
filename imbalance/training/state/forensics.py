"""Which step made something non-finite, what it leaves behind, and how to look into it.

`imbalance forensics RUN_DIRECTORY` does that step again.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput, Diverged
from imbalance.methods.batch import Inputs
from imbalance.methods.margins import soft_margins
from imbalance.training.distributed.processes import of_all_processes, start_accelerator
from imbalance.training.learner import Learner, make_learner
from imbalance.training.optim import clip, gradients, set_rate
from imbalance.training.run import Run
from imbalance.training.state import checkpoint
from imbalance.training.state.finite import (
    copied,
    finite,
    first_not_finite,
    go_back,
    is_finite,
    learned,
    put_back,
    shortened,
    state_tensors,
)
from imbalance.training.step import Epoch, StepOutput, batch_places, batches_of, draw_epoch, forward, shared, take_step
from imbalance.utils.seeds import random_state, set_random_state

FILE = "divergence.pt"


def find(run: Run, end: int) -> Diverged:
    """Go back to the latest state known to be finite, and do the steps since then again, looking after each of them.

    Writes what there is to know of the first that makes something non-finite, and returns the error that says so. The
    same on all processes, which do their steps together.

    Args:
        end: the step before which it has happened.
    """
    learner, progress, begun = run.learner, run.progress, run.good["progress"]["step"]
    go_back(run)
    if end - progress.step > 1:
        run.log.line(
            f"non-finite by step {end - 1}: doing {end - progress.step} steps again, to find the one that did it"
        )
    while progress.step < end:
        epoch = draw_epoch(learner, progress.epoch)
        batches = batches_of(run.config, epoch)
        learner.model.train()
        for batch in range(progress.batch, batches):
            before = copied(learned(learner)) | {"random": random_state()}
            done = take_step(run.config, learner, epoch, batch, batches, lambda: 0)
            if not (done.finite and is_finite(learner)):
                return report(run, epoch, done, before)
            learner.optimizer.zero_grad()
            progress.batch, progress.step = batch + 1, progress.step + 1
            if progress.step == end:
                break
        else:
            progress.next_epoch()
    return Diverged(f"non-finite between steps {begun} and {end}; doing them again did not show it again")


def report(run: Run, epoch: Epoch, done: StepOutput, before: dict[str, Any]) -> Diverged:
    """Write what there is to know of a step that made something non-finite, and return the error that says so.

    Args:
        epoch: what it drew.
        before: a copy of what `learned` returned before it, and the random state.
    """
    learner, progress, log = run.learner, run.progress, run.log
    accelerator, train, world = learner.accelerator, learner.dataset.train, learner.accelerator.num_processes
    whole, mine = batch_places(progress.batch, run.config.trainer.batch_size, accelerator.process_index, world)
    rows, losses = epoch.rows[whole], done.terms["losses"].detach()
    after = None if not done.finite else first_not_finite_after(learner)
    put_back(learner, before)
    set_random_state(before["random"])
    trace = trace_forward(learner, epoch.batch(mine).inputs)
    share = {"logits": done.logits.detach().cpu(), "random": before["random"], "first": culprit(trace), "after": after}
    shares = of_all_processes(share)
    every_logit = done.logits.new_empty(len(rows), done.logits.shape[1], device="cpu")
    for rank, share in enumerate(shares):
        every_logit[rank::world] = share["logits"]
    if done.finite:
        first = next((share["after"] for share in shares if share["after"]), "unknown")
        what = f"non-finite update by step {progress.step}, whose loss is {done.value.item():g}"
    else:
        fallback = (
            "the objective: every example's loss is finite"
            if losses.isfinite().all()
            else "the loss: every logit is finite"
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
        "rows": rows,  # of the training split
        "indices": train.indices[rows],  # of the source
        "targets": targets,
        "groups": train.groups[rows],
        "weights": epoch.weights[whole],
        "logits": every_logit,
        "margins": soft_margins(every_logit, targets.cpu()),
        "losses": losses,
        "terms": {name: column.detach() for name, column in done.terms.items()},
        "value": done.value.detach(),
        "model": before["model"],
        "optimizer": before["optimizer"],
        "objective": before["objective"],
        "random": [share["random"] for share in shares],
    }
    if log.writes:
        with log.attempt(log.directory / FILE, "the step cannot be replayed"):
            checkpoint.write(log.directory / FILE, state)
    bad = train.indices[rows[~losses.isfinite()]].tolist()
    return Diverged(
        f"{what} (epoch {progress.epoch}), learning rate {rate:g}; first non-finite: {first}"
        + (f"; examples with a non-finite loss (source rows): {shortened(bad)}" if bad else "")
        + f"; to look into it: imbalance forensics {log.directory}"
    )


def first_not_finite_after(learner: Learner) -> str | None:
    """What a step with a finite loss made that is not: a gradient, or else what came of finite ones."""
    gradients = ((name, p.grad) for name, p in learner.network.named_parameters() if p.grad is not None)
    bad = next((name for name, gradient in gradients if not finite([gradient])), None)
    return f"gradient of {bad}" if bad and not learner.accelerator.scaler else first_not_finite(learner)


@torch.no_grad()
def trace_forward(learner: Learner, inputs: Inputs) -> dict[str, float]:
    """The largest magnitude (nan, inf if there are any) of each parameter, of `inputs` and of each module's output.

    In the order in which they enter a forward pass in training mode.
    """
    model = learner.network
    found = {f"parameter {name}": _magnitude(parameter) for name, parameter in model.named_parameters()}
    named = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    found |= {name: _magnitude(tensor) for name, tensor in named.items()}

    def note(name: str):
        def hook(module: nn.Module, _, output: Any) -> None:
            if isinstance(output, Tensor):
                found[f"output of {name} ({type(module).__name__})"] = _magnitude(output)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        model.forward(inputs)  # not the compiled call, which would not run the hooks
    finally:
        for hook in hooks:
            hook.remove()
    return found


def culprit(trace: dict[str, float]) -> str | None:
    """The first entry of a trace that is not finite."""
    return next((name for name, value in trace.items() if not abs(value) < float("inf")), None)


def replay(directory: Path) -> str:
    """Do the step that diverged again, from the state and the random numbers before it; the report of what happened.

    The steps of several processes are done one after the other. With the same machine, device and packages the losses
    are the same to the bit, and the report says whether they are.

    Raises:
        BadInput: `directory` holds no divergence, or not of this config.
    """
    if not (directory / FILE).is_file():
        raise BadInput(f"{directory}: holds no {FILE}: no run diverged there")
    config = validate(load(directory / "config.json"))
    saved = torch.load(directory / FILE, map_location="cpu", weights_only=True)
    learner = make_learner(config, start_accelerator(config), directory)
    epoch, world, size = draw_epoch(learner, saved["epoch"]), len(saved["random"]), config.trainer.batch_size
    whole, _ = batch_places(saved["batch"], size, 0, world)
    losses, trace = torch.empty_like(saved["losses"]), {}
    for rank, random in enumerate(saved["random"]):
        _, share = batch_places(saved["batch"], size, rank, world)
        put_back(learner, saved | {"scaler": {}})
        learner.model.train()
        set_random_state(random)
        trace = trace if culprit(trace) else trace_forward(learner, epoch.batch(share).inputs)
        put_back(learner, saved | {"scaler": {}})
        set_random_state(random)
        of_share, backward = forward(learner, epoch, share, learner.micro_batches)
        losses[rank::world] = of_share["losses"].detach().cpu()
        terms = {name: column.to(learner.accelerator.device, copy=True) for name, column in saved["terms"].items()}
        for name, column in shared(learner, of_share).items():
            terms[name][rank::world] = column.to(terms[name])
        value = learner.objective.value(terms, epoch.labels(whole))
        if saved["value"].isfinite():
            backward(value)  # the gradients of all shares add up
    if saved["value"].isfinite():
        set_rate(learner.optimizer, saved["learning_rate"])
        trace |= {
            f"gradient of {name}": _magnitude(p.grad)
            for name, p in learner.network.named_parameters()
            if p.grad is not None
        }
        if config.trainer.clip_norm:
            clip(gradients(learner.optimizer), config.trainer.clip_norm)
        learner.optimizer.step()
        trace |= {f"{name}, after the step": _magnitude(tensor) for name, tensor in state_tensors(learner)}
    same = torch.equal(losses.nan_to_num(nan=-1), saved["losses"].nan_to_num(nan=-1))
    lines = [
        f"step {saved['step']} (epoch {saved['epoch']}, batch {saved['batch']}), learning rate {saved['learning_rate']:g}",
        f"then: {saved['value'].item()}; replayed: {value.item()}; the losses are {'the same, bit for bit' if same else 'NOT the same'}",
        f"first non-finite: {saved['first_nonfinite']}",
        "",
        "largest magnitudes, in the order of computation:",
        *(f"  {magnitude:12.5g}  {name}" for name, magnitude in trace.items()),
        "",
        f"{'source row':>12}{'target':>8}{'group':>7}{'weight':>12}{'margin':>12}{'loss':>12}",
    ]
    # The non-finite ones first, then by size.
    for i in saved["losses"].nan_to_num(nan=float("inf")).argsort(descending=True)[:20].tolist():
        whole = f"{saved['indices'][i]:12}{saved['targets'][i]:8}{saved['groups'][i]:7}"
        lines.append(whole + "".join(f"{saved[key][i].item():12.5g}" for key in ("weights", "margins", "losses")))
    return "\n".join(lines)


def _magnitude(tensor: Tensor) -> float:
    return tensor.abs().max().double().item() if tensor.numel() else 0.0
