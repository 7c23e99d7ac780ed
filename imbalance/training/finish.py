"""End of a run: replace the last layer if the config asks for it, evaluate every split, and write all results."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from imbalance.config.schema import build, look_up, required_arguments
from imbalance.config.tags import tags_of
from imbalance.data import Split
from imbalance.errors import RESUME_HINT, BadInput, Diverged, Interrupted
from imbalance.methods.context import FirstRun
from imbalance.methods.heads.registry import HEADS, untrained_head
from imbalance.methods.prior import training_prior
from imbalance.methods.weights import effective_sample_size
from imbalance.metrics.warnings import data_warnings, run_warnings
from imbalance.models.adapters import merge_adapter
from imbalance.models.artifact import SELECTED, description
from imbalance.training.distributed.processes import from_main, from_main_with_help
from imbalance.training.distributed.sharding import gathered, whole
from imbalance.training.evaluate import (
    LogitsInMemory,
    LogitsSink,
    Outcome,
    count_evaluated,
    evaluate,
    measure_scores,
    split_metrics,
)
from imbalance.training.features import extra_outputs, features
from imbalance.training.lbfgs import Solver
from imbalance.training.logging import console
from imbalance.training.logging.predictions_file import PredictionsFile
from imbalance.training.state import checkpoint
from imbalance.training.state.finite import finite
from imbalance.training.state.provenance import commit, machine, provenance
from imbalance.training.state.registry import copied
from imbalance.training.state.run_state import Run
from imbalance.utils.seeds import generator


def finish(run: Run) -> dict[str, Any]:
    """Evaluate the selected weights on every split, write all results, and return the content of summary.json."""
    load_selected(run)
    values = {**run.learner.group_metrics, **run.learner.objective.metrics()}
    for name in split_names(run):
        with predictions_file(run, name) as sink:
            (outcome,) = evaluate([run], name, [sink])
            values |= record_split(run, name, outcome, sink)
    return write_results(run, values)


def predictions_file(run: Run, name: str) -> AbstractContextManager[LogitsSink]:
    """Return a context manager that gives a sink for the logits of the split `name`.

    The sink is the file predictions/<name>.npz; it is in memory if the run writes no files.
    """
    split: Split = getattr(run.learner.dataset.eval_dataset, name)
    if not run.log.writes:
        return nullcontext(LogitsInMemory())
    return run.log.predictions(name, count_evaluated(run, len(split)))


def first_results(run: Run) -> FirstRun:
    """Return the results of a finished first run that the second run of a two-stage method needs; write no files.

    If the first run has a run directory, `finish` writes the same values there, and `read_first_run` reads them.
    """
    config, learner = run.config, run.learner
    predictions, metrics = {}, {**learner.group_metrics, **learner.objective.metrics()}
    for name in split_names(run):
        sink = LogitsInMemory()
        (outcome,) = evaluate([run], name, [sink])
        metrics |= record_split(run, name, outcome, sink)
        split = getattr(learner.dataset.eval_dataset, name)
        logits = cast(Tensor, from_main(learner.accelerator, partial(getattr, outcome, "logits")))
        predictions[name] = {"logits": logits, **extra_outputs(config, learner, split)}
    return FirstRun(predictions, metrics)


def load_selected(run: Run) -> None:
    """Load the selected weights into the model, and fit a new last layer if `config.head` asks for that."""
    config, learner, device = run.config, run.learner, run.learner.accelerator.device
    best_weights = whole(run.progress.best_weights)
    if learner.skeleton:
        model = gathered(learner.model, learner.skeleton, device)
        learner.model = learner.accelerator.prepare_model(model, evaluation_mode=True)
    model = learner.evaluated_network
    if config.callbacks.select == "best" and best_weights:
        model.load_state_dict(copied(best_weights, device))
    if config.adapter.name == "lora":
        merge_adapter(model)
    if config.head.name != "none" and not config.debug:  # one batch is too little for some heads
        state = new_head_state(run)
        old_head = copy.deepcopy(cast(nn.Linear, model.head))  # most heads load their state into this very layer
        model.head = untrained_head(cast(nn.Linear, model.head), config.head)
        model.head.load_state_dict(copied(state, device))
        if change := describe_head(old_head, model.head, learner.dataset.class_names):
            run.log.line(f"config.head.name={config.head.name!r} {change}")


def describe_head(old: nn.Linear, new: nn.Module, class_names: Sequence[str]) -> str:
    """Return what a new last layer does to the logits, as text; "" if it does more than to multiply them or shift them.

    Args:
        old: the last layer after training.
        new: the layer that replaces it.
        class_names: names of the classes, in the order of the logits.
    """
    if not isinstance(new, nn.Linear) or old.bias is None or new.bias is None:
        return ""
    if torch.equal(old.weight, new.weight):
        shifts = zip(class_names, (new.bias - old.bias).tolist(), strict=True)
        return f"adds to the logits: {', '.join(f'{name} {shift:+.3g}' for name, shift in shifts)}"
    factor = new.weight.norm() / old.weight.norm()
    is_multiple = new.weight.allclose(factor * old.weight) and new.bias.allclose(factor * old.bias)
    return f"multiplies the logits by {factor.item():.3g}" if is_multiple else ""


def split_names(run: Run) -> list[str]:
    """Return the names of the splits that are evaluated at the end of a run."""
    return ["train", "val", "test", *(["held_out"] if run.learner.dataset.eval_dataset.held_out else [])]


def record_split(run: Run, name: str, outcome: Outcome, sink: LogitsSink) -> dict[str, float]:
    """Complete the file with the predictions on the split `name`, and return the metrics of the split.

    Args:
        outcome: result of evaluating the split, with logits.
        sink: sink that has the logits, from `predictions_file`; nothing is added to a sink in memory.

    Raises:
        Diverged: an output of the model is not finite.
    """
    learner, values = run.learner, split_metrics(run, name, outcome)
    if name in ("val", "test"):
        values |= measure_scores(run, name, outcome)
    if isinstance(sink, PredictionsFile):
        split = getattr(learner.dataset.eval_dataset, name)
        labels = {key: column[: sink.rows] for key, column in split.saved_labels.items()}
        sink.complete(**labels, **extra_outputs(run.config, learner, split))
    return values


def write_results(run: Run, values: dict[str, float]) -> dict[str, Any]:
    """Write the selected weights and summary.json, and return the content of summary.json.

    Args:
        values: metrics of all splits, by name.
    """
    config, learner, log = run.config, run.learner, run.log
    if log.writes:
        log.write(SELECTED, checkpoint.as_bytes(copied(learner.evaluated_network.state_dict())))
        extra = {"weights": log.digests[SELECTED], "prior": describe_prior(run)}
        log.model(description(config, learner.dataset, learner.evaluated_network) | extra)
    about_run = run_warnings(config, log.evaluations(), values, learner.dataset, selected_epoch(run))
    solver = [learner.optimizer.warning] if isinstance(learner.optimizer, Solver) and learner.optimizer.warning else []
    late_warnings = [*run.head_warnings, *solver, *about_run]
    all_warnings = [*data_warnings(config, learner.dataset), *late_warnings]
    summary = summarise(run, status="done", score=values[config.score], metrics=values, warnings=all_warnings)
    shown = values, learner.dataset.eval_dataset, config.score, config.debug
    log.line(console.final(*shown), lambda columns: console.final_on_terminal(*shown, columns))
    for warning in late_warnings:
        log.line(f"WARNING: {warning}")
    return log.summary(summary)


def describe_prior(run: Run) -> dict[str, Any]:
    """Return the entry `prior` of model.json, which `imbalance predict` needs to adjust predictions to other class shares.

    The entry has the keys `natural`, the class shares of the training set, and `model`, the class prior that the
    model's probabilities assume. If these probabilities assume no known prior, `model` is None and `reason` says why.
    """
    config, context = run.config, run.learner.context
    natural = context.class_counts.double().cpu() / context.class_counts.sum().item()
    prior = training_prior(config, context, run.learner.weights, run.learner.loss)
    if not isinstance(prior, str) and not config.debug:
        head_prior = tags_of(look_up(HEADS, config.head.name)).prior
        after_head = head_prior(prior, natural, config.head) if head_prior else None
        prior = f"config.head.name={config.head.name!r} replaces the last layer" if after_head is None else after_head
    if isinstance(prior, str):
        return {"natural": natural.tolist(), "model": None, "reason": prior}
    return {"natural": natural.tolist(), "model": prior.tolist()}


def write_early_summary(run: Run, status: str, reason: str) -> dict[str, Any]:
    """Write summary.json of a run that ends early, and return its content.

    Args:
        status: "diverged" or "interrupted".
        reason: text that says why the run ends.
    """
    summary = summarise(run, status=status, score=None, reason=reason)
    with run.log.attempt(run.log.directory / "summary.json", "the earlier summary.json stays"):
        run.log.summary(summary)
    return summary


def write_pause(run: Run) -> dict[str, Any]:
    """Write summary.json of a run that pauses between two epochs and has written its checkpoint; return the content."""
    reason = f"paused after epoch {run.progress.epoch} of {run.epochs}; the same command {RESUME_HINT}"
    return write_early_summary(run, Interrupted.status, reason)


def new_head_state(run: Run) -> dict[str, Tensor]:
    """Fit the last layer that `config.head` asks for, and return its `state_dict`, on every process.

    The main process fits the layer. All processes compute the features that the fit needs, each one batch at a time.

    Raises:
        BadInput: the layer is no `nn.Module`, or its state does not fit into the layer that `untrained_head` makes.
        Diverged: the layer is not finite.
        Interrupted: a signal came; a resumed run fits the layer again.
    """
    learner, accelerator, dataset = run.learner, run.learner.accelerator, run.learner.dataset.for_methods

    def compute(request: tuple[str, int, slice]) -> Tensor:
        name, view, rows = request
        return features(learner, getattr(dataset, name), view, rows)

    def fit(compute_all: Callable[[Sequence[tuple[str, int, slice]]], Iterator[Tensor]]) -> dict[str, Tensor]:
        def features_of(name: str, view: int = 0) -> Tensor:
            size = len(getattr(dataset, name))
            step = size if accelerator.num_processes == 1 else learner.eval_batch_size
            parts = list(compute_all([(name, view, slice(start, start + step)) for start in range(0, size, step)]))
            return parts[0] if len(parts) == 1 else torch.cat(parts).to(accelerator.device)

        return fitted_head_state(run, features_of)

    return from_main_with_help(accelerator, fit, compute, run.interrupt.deferred)


def fitted_head_state(run: Run, features_of: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Fit the last layer that `config.head` asks for, and return its `state_dict`; only the main process may call this.

    Args:
        features_of: function from the name of a split, and the number of a view (0 by default), to the (N, D) features of
            the split's examples; see `features`.
    """
    config, learner, dataset = run.config, run.learner, run.learner.dataset.for_methods
    old_head = cast(nn.Linear, learner.evaluated_network.head)
    dtype = old_head.weight.dtype  # a head of a user may change the layer in place
    needed: dict[str, Any] = {}
    if "training_prior" in required_arguments(look_up(HEADS, config.head.name)):
        needed["training_prior"] = training_prior(config, learner.context, learner.weights, learner.loss)
    with run.interrupt.at_once(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        head = build(
            HEADS,
            config.head,
            **vars(learner.context),
            head=old_head,
            dataset=dataset,
            features=features_of,
            augmented_features=lambda name: tuple(features_of(name, view) for view in (1, 2)),
            generator=generator(config.seed, "head"),
            **needed,
        )
    messages = (str(warning.message) for warning in caught)
    run.head_warnings = [message for message in messages if message.startswith("config.head")]  # not those of libraries
    if not isinstance(head, nn.Module):
        raise BadInput(
            f"config.head.name: {config.head.name!r} returns {type(head).__name__}; it must return an nn.Module from features to logits"
        )
    state, expected = head.state_dict(), untrained_head(old_head, config.head).state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise BadInput(
            f"config.head.name: {config.head.name!r} returns another module than a linear layer from the features to the "
            "classes; tag it with a function that makes an untrained module like it: @tagged(module=…), see imbalance.config.tags"
        )
    if old_head.weight.dtype != dtype:
        raise BadInput(
            f"config.head.name: {config.head.name!r} changed the type of the trained last layer from {dtype} to "
            f"{old_head.weight.dtype}; return a new layer instead"
        )
    if not finite(state.values()):
        raise Diverged(
            f"config.head.name: {config.head.name!r} gave the last layer NaN or infinite weights; use other values in config.head"
        )
    return copied(state)


def selected_epoch(run: Run) -> int:
    """Return the number of epochs after which the network had the weights that are evaluated at the end."""
    progress, selects = run.progress, run.config.callbacks.select == "best"
    return progress.best_epoch if selects and progress.best_epoch else progress.epoch  # 0: the monitor had no value


def summarise(run: Run, **values: Any) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        values: entries of summary.json that are known only at the end, such as status and score.
    """
    config, learner, progress = run.config, run.learner, run.progress
    dataset = learner.dataset

    def named(counts: Tensor, names: tuple[str, ...]) -> dict[str, int]:
        return dict(zip(names, counts.tolist(), strict=True))

    sources = {"train": dataset, "val": dataset.eval_dataset, "test": dataset.eval_dataset}
    splits = {name: (source, getattr(source, name)) for name, source in sources.items()}
    training_groups = {name: named(of.group_counts(split), of.group_names) for name, (of, split) in splits.items()}
    return {
        "run_directory": str(run.log.directory),
        "score_name": config.score,
        **values,
        "epoch": progress.epoch,
        "step": progress.step,
        "selected_epoch": selected_epoch(run),
        "interpolation_epoch": progress.interpolation_epoch or None,
        "effective_sample_size": effective_sample_size(learner.weights(max(0, progress.epoch - 1))),
        "classes": {name: named(of.class_counts(split), of.class_names) for name, (of, split) in splits.items()},
        "groups": {
            name: named(of.eval_group_counts(split), of.eval_group_names) for name, (of, split) in splits.items()
        },
        **({"training_groups": training_groups} if dataset.eval_dataset.evaluation_names else {}),
        "seconds": progress.seconds,
        "together": progress.together,
        **machine(torch.get_num_threads()),
        "processes": learner.accelerator.num_processes,
        "device": str(learner.accelerator.device),
        "tf32": config.trainer.tf32,
        **provenance(learner.data, run.pretrained),
        "commit": commit(),
    }
