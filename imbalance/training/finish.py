"""How a run ends: the selected weights and a new head are evaluated on every split, and all is written down."""

from typing import Any

from torch import Tensor, nn

from imbalance.config.schema import build
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.methods.heads.registry import HEADS, in_place_of
from imbalance.methods.weights import effective_sample_size
from imbalance.metrics.warnings import data_warnings, run_warnings
from imbalance.models.artifact import description
from imbalance.training.distributed.processes import from_main
from imbalance.training.evaluate import Outcome, evaluate, measure_scores, metrics_of
from imbalance.training.features import extra_outputs, features
from imbalance.training.logging import console
from imbalance.training.logging.run_log import provenance
from imbalance.training.run import Run
from imbalance.training.state import checkpoint
from imbalance.training.state.finite import copied, finite
from imbalance.training.state.provenance import origin
from imbalance.utils.seeds import generator


def finish(run: Run) -> dict[str, Any]:
    """Evaluate the selected weights on every split, and write them, their predictions and the summary."""
    put_selected(run)
    values = run.learner.group_metrics | run.learner.objective.metrics()
    for name in splits_of(run):
        (outcome,) = evaluate([run], name, keep_logits=True)
        values |= record_split(run, name, outcome)
    return conclude(run, values)


def put_selected(run: Run) -> None:
    """Give the model the weights that are selected, and its new head."""
    config, model, device = run.config, run.learner.network, run.learner.accelerator.device
    if config.callbacks.select == "best" and run.progress.best_weights:
        model.load_state_dict(copied(run.progress.best_weights, device))
    if config.head.name != "none" and not config.debug:  # one batch is too little for some heads
        state = from_main(run.learner.accelerator, lambda: new_head(run))
        model.head = in_place_of(model.head, config.head)
        model.head.load_state_dict(copied(state, device))


def splits_of(run: Run) -> list[str]:
    return ["train", "val", "test", *(["held_out"] if run.learner.dataset.eval_dataset.held_out else [])]


def record_split(run: Run, name: str, outcome: Outcome) -> dict[str, float]:
    """Write the predictions on a split, and return its metrics.

    Raises:
        Diverged: what the model makes of an example is not finite.
    """
    learner, values = run.learner, metrics_of(run, name, outcome)
    if name in ("val", "test"):
        values |= measure_scores(learner.dataset.eval_dataset, name, outcome.logits)
    if run.log.writes:
        split = getattr(learner.dataset.eval_dataset, name)
        of_split = {key: labels[: len(outcome.logits)] for key, labels in split.saved_labels.items()}
        run.log.predictions(name, logits=outcome.logits, **of_split, **extra_outputs(run.config, learner, split))
    return values


def conclude(run: Run, values: dict[str, float]) -> dict[str, Any]:
    """Write the weights that were evaluated and the summary, with the metrics of all splits."""
    config, learner, log = run.config, run.learner, run.log
    if log.writes:
        checkpoint.write(log.directory / "checkpoints" / "selected.pt", copied(learner.network.state_dict()))
        log.model(description(config, learner.dataset, learner.network))
    warnings = run_warnings(config, log.evaluations(), values, learner.dataset)
    all_warnings = [*data_warnings(config, learner.dataset), *warnings]
    summary = summarise(run, status="done", score=values[config.score], metrics=values, warnings=all_warnings)
    log.line(console.final(values, learner.dataset.eval_dataset, config.score))
    for warning in warnings:
        log.line(f"WARNING: {warning}")
    log.summary(summary)
    return summary


def record_end(run: Run, error: Diverged | Interrupted) -> None:
    """Write the summary of a run that ends before it is done."""
    with run.log.attempt(run.log.directory / "summary.json", "the one before it stays"):
        run.log.summary(summarise(run, status=error.status, score=None, reason=str(error)))


def new_head(run: Run) -> dict[str, Tensor]:
    """The last layer's state after what `config.head` does to it.

    Raises:
        BadInput: it is not what the run's files could be loaded into.
        Diverged: it is not finite.
        Interrupted: a signal came; what it was doing can be done again.
    """
    config, learner, dataset = run.config, run.learner, run.learner.dataset.for_methods
    with run.interrupt.at_once():
        head = build(
            HEADS,
            config.head,
            **vars(learner.context),
            head=learner.network.head,
            dataset=dataset,
            features=lambda name: features(config, learner, getattr(dataset, name)),
            generator=generator(config.seed, "head"),
        )
    if not isinstance(head, nn.Module):
        raise BadInput(
            f"config.head.name: {config.head.name!r} returns {type(head).__name__}; a head returns a module from features to logits"
        )
    state, expected = head.state_dict(), in_place_of(learner.network.head, config.head).state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise BadInput(
            f"config.head.name: {config.head.name!r} returns another module than a linear layer from the features to the "
            "classes; tag it with what makes such a module anew: @tagged(module=…), see imbalance.config.tags"
        )
    if not finite(state.values()):
        raise Diverged(f"config.head.name: {config.head.name!r} made a last layer that is not finite")
    return copied(state)


def summarise(run: Run, **values: Any) -> dict[str, Any]:
    """What summary.json says."""
    config, learner, progress = run.config, run.learner, run.progress
    dataset = learner.dataset

    def named(counts: Tensor, names: tuple[str, ...]) -> dict[str, int]:
        return dict(zip(names, counts.tolist(), strict=True))

    sources = {"train": dataset, "val": dataset.eval_dataset, "test": dataset.eval_dataset}
    of_training = {name: named(of.group_counts(getattr(of, name)), of.group_names) for name, of in sources.items()}
    best = config.callbacks.select == "best"
    return {
        "run_directory": str(run.log.directory),
        "score_name": config.score,
        **values,
        "epoch": progress.epoch,
        "step": progress.step,
        "selected_epoch": progress.best_epoch if best else progress.epoch,
        "interpolation_epoch": progress.interpolation_epoch or None,
        "effective_sample_size": effective_sample_size(learner.weights(max(0, progress.epoch - 1))),
        "classes": {name: named(of.class_counts(getattr(of, name)), of.class_names) for name, of in sources.items()},
        "groups": {
            name: named(of.eval_group_counts(getattr(of, name)), of.eval_group_names) for name, of in sources.items()
        },
        **({"training_groups": of_training} if dataset.eval_dataset.evaluation_names else {}),
        "seconds": progress.seconds,
        "together": progress.together,
        "processes": learner.accelerator.num_processes,
        "device": str(learner.accelerator.device),
        "tf32": config.trainer.tf32,
        **origin(learner.data),
        **provenance(),
    }
