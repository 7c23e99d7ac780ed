"""Typed config: the sections and values of an experiment, and their validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from typing import Any, Literal, get_type_hints

from ml_collections import ConfigDict

from imbalance.config.metric_names import check_metric_name
from imbalance.config.registries import available_arguments, registries
from imbalance.config.schema import (
    Count,
    Fraction,
    Name,
    Natural,
    NonNegative,
    Positive,
    Repeats,
    Section,
    check_call,
    check_fields,
    check_keys,
    check_values,
    flatten,
    look_up,
    plain,
    required_arguments,
    shortened,
)
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput

EvalSplit = Literal["val", "test"]


@dataclass(frozen=True)
class Trainer:
    """Length, batches and arithmetic of training (`config.trainer`).

    Args:
        epochs: passes over the examples that the sampler draws.
        batch_size: examples of a batch, over all processes together.
        accumulation: micro-batches that a batch is split into, one after the other, to save memory; 1: not split.
        clip_norm: largest norm of the gradient of the whole batch, over all parameters together; 0: no limit.
        ema_decay: decay of a moving average of the network weights, which is evaluated and selected instead of the
            weights; 0: no average.
        eval_batch_size: examples of a batch of an evaluation; it has no effect on the metrics.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        eval_splits: splits that the evaluations during training read; at the end every split is evaluated.
        dtype: type of the parameters and of all computation.
        mixed_precision: type of the forward and backward pass; "no": the type of dtype.
        tf32: operations that a GPU may compute in TF32, which has 10 bits of mantissa: none, convolutions, or also
            matrix products ("all").
        channels_last: stores images with channels last, which GPUs compute faster.
        images_on_device: keeps all images of a store of decoded images on the device; data other than image files are
            always kept there.
        compile: mode of torch.compile; "no": not compiled; "reduce-overhead" records CUDA graphs.
        deterministic: makes repeated runs on a GPU give the same bits too, at some cost in speed.
    """

    epochs: Repeats
    batch_size: Count
    accumulation: Count
    clip_norm: NonNegative
    ema_decay: Fraction
    eval_batch_size: Count
    eval_every: Count
    eval_splits: tuple[EvalSplit, ...]
    dtype: Literal["float32", "float64"]
    mixed_precision: Literal["no", "bf16", "fp16"]
    tf32: Literal["none", "convolutions", "all"]
    channels_last: bool
    images_on_device: bool
    compile: Literal["no", "default", "reduce-overhead"]
    deterministic: bool


@dataclass(frozen=True)
class Callbacks:
    """End of training, and the checkpoint that is tested (`config.callbacks`).

    Args:
        select: checkpoint that is tested: of the last epoch, or of the epoch with the best monitored metric.
        monitor: val metric by which "best" selects; higher is better.
        patience: evaluations without a better monitored metric after which training ends; 0: never.
        stop_at_interpolation: ends training after the first epoch in which every training prediction was correct.
        keep_logits: saves the logits of every evaluation in evaluations/, so that `imbalance select` can apply
            other selection rules afterwards.
        checkpoint_minutes: minutes between checkpoints; at most so much work is lost if the process is killed.
    """

    select: Literal["last", "best"]
    monitor: Name
    patience: Natural
    stop_at_interpolation: bool
    keep_logits: bool
    checkpoint_minutes: Positive


@dataclass(frozen=True)
class Logger:
    """Copies of the metrics for other programs (`config.logger`).

    Every run writes metrics.jsonl in any case. If the environment variable WANDB_MODE is set, it replaces `mode`
    for Weights & Biases; with the mode "tensorboard" TensorBoard is written all the same.

    Args:
        mode: "offline" and "online" log to Weights & Biases, "tensorboard" to TensorBoard.
        project: name of the project in Weights & Biases.
    """

    mode: Literal["disabled", "offline", "online", "tensorboard"]
    project: Name


@dataclass(frozen=True)
class Experiment:
    """A whole config, validated and frozen.

    A `Section` names a function and gives its arguments. `imbalance.config.registries` has the functions of each
    section.

    Args:
        seed: seed of all random numbers: splits, initial weights, sampling, augmentation.
        debug: trains on one batch and evaluates one batch of each split, to check a config.
        work_dir: folder of the run directories.
        data_dir: folder of the data sets.
        score: val metric whose value at the selected epoch is the result of the run, for `imbalance.run` and for
            sweeps.
        trainer: length, batches and arithmetic of training.
        callbacks: end of training, and the checkpoint that is tested.
        logger: copies of the metrics for other programs.
        data: data set and its splits.
        groups: groups that the methods use.
        sampler: examples that an epoch draws.
        weights: importance weight of each example.
        loss: loss of one example.
        mix: mixing of examples.
        objective: reduction of the losses of a batch to one scalar.
        model: network.
        optim: optimiser, with its schedule of the learning rate.
        head: replacement of the last layer after training.
    """

    seed: Natural
    debug: bool
    work_dir: Name
    data_dir: Name
    score: Name
    trainer: Trainer
    callbacks: Callbacks
    logger: Logger
    data: Section
    groups: Section
    sampler: Section
    weights: Section
    loss: Section
    mix: Section
    objective: Section
    model: Section
    optim: Section
    head: Section

    def __post_init__(self) -> None:
        """Raise `BadInput` if a value is wrong, also in a copy that `dataclasses.replace` makes."""
        check_sections(self.to_dict())
        check_together(self)
        check_methods(self)
        measured = measured_by(self)
        check_metric_name("score", self.score, measured)
        check_metric_name("callbacks.monitor", self.callbacks.monitor, measured)

    def section(self, path: str) -> Section:
        """Return the section at `path`, such as "optim.schedule"."""
        first, *rest = path.split(".")
        return reduce(lambda section, key: section[key], rest, getattr(self, first))

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as a config file writes them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            key: value.to_dict() if isinstance(value, Section) else vars(value).copy() if is_dataclass(value) else value
            for key, value in values.items()
        }


VALUE_SECTIONS = {"trainer": Trainer, "callbacks": Callbacks, "logger": Logger}


def validate(config: Mapping[str, Any] | ConfigDict | Experiment) -> Experiment:
    """Check every value of `config`, and return it typed and frozen.

    Raises:
        BadInput: a key is missing, unknown or misspelt, or a value is out of range. The message names the first.
    """
    if isinstance(config, Experiment):
        return config
    if not isinstance(config, Mapping | ConfigDict):
        raise BadInput(
            f"config: {shortened(config)} given; a config is needed, such as a ConfigDict or a dictionary of its sections"
        )
    values = plain(config)
    check_keys("", values, get_type_hints(Experiment))
    for path, kind in VALUE_SECTIONS.items():
        check_values("config.", values, {path: Mapping[str, Any]})
        check_keys(path, values[path], get_type_hints(kind, include_extras=True))
    value_sections = {path: kind(**values[path]) for path, kind in VALUE_SECTIONS.items()}
    calls = {key: Section(value) for key, value in values.items() if isinstance(value, Mapping)}
    arguments: dict[str, Any] = values | calls | value_sections
    return Experiment(**arguments)


def check_sections(values: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless every section has exactly its keys, each with a value of the right type and range."""
    hints = get_type_hints(Experiment, include_extras=True)
    sections = {
        key for key, hint in hints.items() if isinstance(hint, type) and hint in (Section, *VALUE_SECTIONS.values())
    }
    check_fields("", values, {key: Mapping[str, Any] if key in sections else hint for key, hint in hints.items()})
    for path, kind in VALUE_SECTIONS.items():
        check_fields(path, values[path], get_type_hints(kind, include_extras=True))
    for path, table in registries().items():
        section = values["optim"].get("schedule") if path == "optim.schedule" else values[path]
        if path == "optim":
            section = {key: value for key, value in section.items() if key != "schedule"}
        check_call(path, section, table)
    for key, value in flatten(values).items():
        if "\0" in str(value):
            raise BadInput(f"config.{key}: {value!r} given; remove the NUL, which no name of a file can have")


def check_together(config: Experiment) -> None:
    """Raise `BadInput` if two values, each of them valid, do not go together."""
    trainer, callbacks = config.trainer, config.callbacks
    if trainer.accumulation > trainer.batch_size:
        raise BadInput(
            f"config.trainer.accumulation: {trainer.accumulation} given; it must be at most "
            f"config.trainer.batch_size={trainer.batch_size}, as every micro-batch needs an example"
        )
    reads_val = callbacks.monitor.startswith("val/") and "val" not in trainer.eval_splits
    for key, reads in (("select", callbacks.select == "best"), ("patience", callbacks.patience > 0)):
        if reads and reads_val:
            raise BadInput(
                f"config.trainer.eval_splits: {trainer.eval_splits} given; add 'val', which "
                f"config.callbacks.{key}={getattr(callbacks, key)!r} reads"
            )
    if config.head.name != "none" and config.model.name.endswith("_cosine"):
        raise BadInput(
            f"config.head.name: {config.head.name!r} given, but config.model.name={config.model.name!r} ends in a "
            f"normalised layer, which no head can replace; use head.name='none', or "
            f"model.name={config.model.name.removesuffix('_cosine')!r}"
        )
    if trainer.mixed_precision != "no" and trainer.dtype != "float32":
        raise BadInput(
            f"config.trainer.mixed_precision: {trainer.mixed_precision!r} given; it must be 'no' for "
            f"config.trainer.dtype={trainer.dtype!r}"
        )
    check_balanced_once(config.sampler.name, config.weights.name)


def methods(config: Experiment) -> dict[str, Callable[..., Any]]:
    """Return the function that each section names, by the path of the section."""
    return {path: look_up(table, config.section(path).name) for path, table in registries().items()}


def check_methods(config: Experiment) -> None:
    """Raise `BadInput` if a method requires an argument that no run passes, or if two methods each need a first run.

    The tags of a method say whether it needs a first run; see `imbalance.config.tags`.
    """
    functions, available = methods(config), available_arguments()
    for path, function in functions.items():
        if unknown := sorted(required_arguments(function) - available[path]):
            raise BadInput(
                f"config.{path}.name: {config.section(path).name!r} requires the argument {unknown[0]!r}, which no run passes; "
                f"use only {', '.join(sorted(available[path]))}, or make it a key of the config by a * before it"
            )
    if tags_of(functions["objective"]).unmixed and config.mix.name != "none":
        raise BadInput(
            f"config.mix.name: {config.mix.name!r} given, but config.objective.name={config.objective.name!r} compares "
            "examples by class, and a mixture has two classes; use config.mix.name='none'"
        )
    staged = [path for path, function in functions.items() if tags_of(function).first_run]
    if len(staged) > 1:
        first, second = staged[:2]
        raise BadInput(
            f"config.{second}.name: {config.section(second).name!r} given, which needs a run before this one, as "
            f"config.{first}.name={config.section(first).name!r} does; only one method may need one, so change one of the two"
        )


def measured_by(config: Experiment) -> tuple[str, ...]:
    """Return the names of the metrics that the methods of this config add, such as "train/flip_rate"."""
    return tuple(dict.fromkeys(name for function in methods(config).values() for name in tags_of(function).measures))


def check_balanced_once(sampler: str, weights: str) -> None:
    """Raise `BadInput` if the sampler and the weights of these names would both correct the same imbalance."""
    samplers, weightings = registries()["sampler"], registries()["weights"]
    if tags_of(look_up(samplers, sampler)).balances and tags_of(look_up(weightings, weights)).balances:
        raise BadInput(
            f"config.weights.name: {weights!r} given, but config.sampler.name={sampler!r} corrects the imbalance too; "
            "use weights 'uniform', or 'given' with a value for each class or group if both are meant"
        )
    annealed = [name for name, function in samplers.items() if tags_of(function).chance]
    if weights == "residual" and sampler not in annealed:
        raise BadInput(
            f"config.weights.name: 'residual' given, which needs config.sampler.name to be one of {', '.join(annealed)}; "
            f"it is {sampler!r}"
        )


def first_run(config: Experiment) -> Experiment | None:
    """Return the config of the first run of a two-stage method; None if no method of `config` has two stages."""
    for function in methods(config).values():
        if derive := tags_of(function).first_run:
            return validate(derive(config))
    return None
