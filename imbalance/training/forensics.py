"""What a non-finite loss leaves behind, and how to look into it: `python -m imbalance.training.forensics RUN_DIRECTORY`."""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from imbalance.config import load, validate
from imbalance.errors import BadInput, Diverged
from imbalance.margins import soft_margins
from imbalance.seeds import random_state, set_random_state
from imbalance.training import checkpoint
from imbalance.training.learner import Learner, make_learner
from imbalance.training.log import RunLog
from imbalance.training.processes import start_accelerator
from imbalance.training.progress import Progress
from imbalance.training.step import Epoch, batch_places, draw_epoch, forward, model_inputs

FILE = "divergence.pt"


def before_step(learner: Learner) -> dict[str, Any]:
    """What a step changes before its loss is known: with the parameters, all that it takes to do it again."""
    objective = {key: value.clone() for key, value in learner.objective.named_buffers()}
    return {"random": random_state(), "objective": objective}


def diverged(
    learner: Learner,
    progress: Progress,
    log: RunLog,
    epoch: Epoch,
    size: int,
    logits: Tensor,
    losses: Tensor,
    value: Tensor,
    before: dict[str, Any],
) -> Diverged:
    """Write what there is to know of a step with a non-finite loss, and return the error that says so.

    Args:
        epoch: what it drew.
        size: of a whole batch.
        logits: (B/processes, K) of this process's share.
        losses: (B,) of the whole batch.
        value: what the objective made of them.
        before: see `before_step`.
    """
    accelerator, train, world = learner.accelerator, learner.dataset.train, learner.accelerator.num_processes
    whole, mine = batch_places(progress.batch, size, accelerator.process_index, world)
    rows = epoch.rows[whole]
    set_random_state(before["random"])
    trace = trace_forward(learner, model_inputs(epoch, mine))
    shares = gather_object([{"logits": logits.detach().cpu(), "random": before["random"], "first": culprit(trace)}])
    every_logit = logits.new_empty(len(rows), logits.shape[1], device="cpu")
    for rank, share in enumerate(shares):
        every_logit[rank::world] = share["logits"]
    finite = losses.isfinite().all()
    fallback = "the objective: every example's loss is finite" if finite else "the loss: every logit is finite"
    first = next((share["first"] for share in shares if share["first"]), fallback)
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
        "losses": losses.detach(),
        "value": value.detach(),
        "model": learner.network.state_dict(),
        "objective": before["objective"],
        "random": [share["random"] for share in shares],
    }
    if log.writes:
        with log.attempt(log.directory / FILE, "the step cannot be replayed"):
            checkpoint.write(log.directory / FILE, state)
    bad = train.indices[rows[~losses.isfinite()]].tolist()
    shown = ", ".join(map(str, bad[:20])) + (f" and {len(bad) - 20} more" if len(bad) > 20 else "")
    return Diverged(
        f"non-finite loss {value.item()} at step {progress.step} (epoch {progress.epoch}), learning rate {rate:g}; "
        f"first non-finite: {first}"
        + (f"; examples with a non-finite loss (source rows): {shown}" if bad else "")
        + f"; to look into it: python -m imbalance.training.forensics {log.directory}"
    )


@torch.no_grad()
def trace_forward(learner: Learner, inputs: Tensor) -> dict[str, float]:
    """The largest magnitude (nan, inf if there are any) of each parameter, of `inputs` and of each module's output.

    In the order in which they enter a forward pass in training mode.
    """
    model = learner.network
    found = {f"parameter {name}": _magnitude(parameter) for name, parameter in model.named_parameters()}
    found["inputs"] = _magnitude(inputs)

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
    """Do the step that diverged again, from the parameters and random states before it; the report of what happened.

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
    learner.model.load_state_dict(saved["model"])
    learner.model.train()
    learner.objective.load_state_dict(saved["objective"])
    epoch, world, size = draw_epoch(learner, saved["epoch"]), len(saved["random"]), config.trainer.batch_size
    whole, _ = batch_places(saved["batch"], size, 0, world)
    losses = torch.empty_like(saved["losses"])
    trace: dict[str, float] = {}
    for rank, random in enumerate(saved["random"]):
        _, share = batch_places(saved["batch"], size, rank, world)
        set_random_state(random)
        _, of_share, _ = forward(learner, epoch, share, config.trainer.accumulation)
        losses[rank::world] = of_share.detach().cpu()
        set_random_state(random)
        trace = trace if culprit(trace) else trace_forward(learner, model_inputs(epoch, share))
    value = learner.objective(losses.to(epoch.rows.device), epoch.weights[whole], epoch.groups[whole])
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
    return tensor.abs().max().item() if tensor.numel() else 0.0


if __name__ == "__main__":
    try:
        if len(sys.argv) != 2:
            raise BadInput("usage: python -m imbalance.training.forensics RUN_DIRECTORY")
        print(replay(Path(sys.argv[1])))
    except BadInput as bad_input:
        print(bad_input, file=sys.stderr)
        sys.exit(bad_input.exit_status)
