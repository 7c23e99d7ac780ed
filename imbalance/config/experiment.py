"""Experiments: the sections and values of a whole config, and the check of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from typing import Any, Literal, get_type_hints

from ml_collections import ConfigDict, FrozenConfigDict

from imbalance.config.metric_names import check_metric_name
from imbalance.config.registries import provided, registries
from imbalance.config.schema import (
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Repeats,
    Section,
    asks,
    check_call,
    check_fields,
    entry,
    flatten,
)
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput

EvalSplit = Literal["val", "test"]


@dataclass(frozen=True)
class Trainer:
    """`config.trainer`: how long, in what batches, in which arithmetic."""

    epochs: Repeats
    batch_size: Count  # over all processes together
    accumulation: Count  # parts that a batch is computed in, one after the other, for want of memory
    clip_norm: NonNegative  # that the gradient of the whole batch, all parameters together, is scaled down to; 0: never
    eval_batch_size: Count
    eval_every: Count  # epochs between evaluations; the last epoch is always evaluated
    eval_splits: tuple[EvalSplit, ...]  # what those evaluations look at; test is also read once at the end
    dtype: Literal["float32", "float64"]
    mixed_precision: Literal["no", "bf16", "fp16"]
    tf32: Literal["none", "convolutions", "all"]  # what of float32 a GPU that can computes from 10 bits of mantissa
    channels_last: bool
    images_on_device: bool  # all images of a store, instead of a batch at a time; what is no store is there in any case
    compile: Literal["no", "default", "reduce-overhead"]  # torch's modes; "reduce-overhead" records CUDA graphs
    deterministic: bool  # same bits on every run on a GPU too, at some cost in speed


@dataclass(frozen=True)
class Callbacks:
    """`config.callbacks`: when training ends, and which checkpoint is tested."""

    select: Literal["last", "best"]
    monitor: Name  # the val metric by which "best" is chosen, higher is better
    patience: Natural  # evaluations without a better monitored metric after which training ends; 0: never
    stop_at_interpolation: bool  # end after an epoch whose every prediction was right
    keep_logits: bool  # of every evaluation, in evaluations/: what selecting by another rule afterwards needs
    checkpoint_minutes: Positive  # at most so much work is lost with the process


@dataclass(frozen=True)
class Logger:
    """`config.logger`: where metrics go beside metrics.jsonl, which is written in any case.

    WANDB_MODE overrides what `mode` says of wandb, also beside "tensorboard".
    """

    mode: Literal["disabled", "offline", "online", "tensorboard"]  # "offline" and "online" are wandb's
    project: Name  # of wandb


@dataclass(frozen=True)
class Experiment:
    """A whole config, validated and frozen.

    A `Section` is a call: its `name` is an entry of the table of that section, see `imbalance.config.registries`.
    """

    seed: Natural
    debug: bool  # one batch of train, val and test through everything
    work_dir: Name
    data_dir: Name
    score: Name  # the val metric that `run` returns
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


GROUPS_OF_VALUES = {"trainer": Trainer, "callbacks": Callbacks, "logger": Logger}


def validate(config: Mapping[str, Any] | ConfigDict | Experiment) -> Experiment:
    """Check every value of `config`, and return it typed and frozen.

    Raises:
        BadInput: a key is missing, unknown or misspelt, or its value is out of range. The message names the first one.
    """
    if isinstance(config, Experiment):
        return config
    try:
        values = FrozenConfigDict(ConfigDict(config)).to_dict()
    except ValueError as error:  # a section in a tuple
        raise BadInput(f"config: {error}") from None
    check_sections(values)
    groups = {path: kind(**values[path]) for path, kind in GROUPS_OF_VALUES.items()}
    calls = {key: Section(value) for key, value in values.items() if key not in groups and isinstance(value, Mapping)}
    experiment = Experiment(**values | groups | calls)
    check_together(experiment)
    check_methods(experiment)
    measured = measured_by(experiment)
    check_metric_name("score", experiment.score, measured)
    check_metric_name("callbacks.monitor", experiment.callbacks.monitor, measured)
    return experiment


def check_sections(values: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless every section has just its keys, each with a value of the right type and range."""
    hints = get_type_hints(Experiment, include_extras=True)
    sections = {
        key for key, hint in hints.items() if isinstance(hint, type) and hint in (Section, *GROUPS_OF_VALUES.values())
    }
    check_fields("", values, {key: Mapping[str, Any] if key in sections else hint for key, hint in hints.items()})
    for path, kind in GROUPS_OF_VALUES.items():
        check_fields(path, values[path], get_type_hints(kind, include_extras=True))
    for path, table in registries().items():
        section = values["optim"].get("schedule") if path == "optim.schedule" else values[path]
        if path == "optim":
            section = {key: value for key, value in section.items() if key != "schedule"}
        check_call(path, section, table)
    for key, value in flatten(values).items():
        if "\0" in str(value):
            raise BadInput(f"config.{key}: {value!r} given; no file and no name has a NUL in it")


def check_together(config: Experiment) -> None:
    """Raise `BadInput` for values that are valid alone and not together."""
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
                f"config.trainer.eval_splits: must have 'val' for config.callbacks.{key}={getattr(callbacks, key)!r}"
            )
    if config.head.name != "none" and config.model.name.endswith("_cosine"):
        raise BadInput(
            f"config.head.name: {config.head.name!r} given, but config.model.name={config.model.name!r} ends in a "
            f"normalised layer, which it cannot replace; use 'none', or {config.model.name.removesuffix('_cosine')!r}"
        )
    if trainer.mixed_precision != "no" and trainer.dtype != "float32":
        raise BadInput(f"config.trainer.mixed_precision: must be 'no' for config.trainer.dtype={trainer.dtype!r}")
    check_balanced_once(config.sampler.name, config.weights.name)


def methods(config: Experiment) -> dict[str, Callable[..., Any]]:
    """Return, for every section that is a call, the function that its name means."""
    return {path: entry(table, config.section(path).name) for path, table in registries().items()}


def check_methods(config: Experiment) -> None:
    """Raise `BadInput` for a method that asks for an argument that no run passes, or for two first runs.

    What a method needs is written on the method itself: see `imbalance.config.tags`.
    """
    functions, available = methods(config), provided()
    for path, function in functions.items():
        if unknown := sorted(asks(function) - available[path]):
            raise BadInput(
                f"config.{path}.name: {config.section(path).name!r} asks for {unknown[0]!r}; a run passes "
                + ", ".join(sorted(available[path]))
            )
    staged = [path for path, function in functions.items() if tags_of(function).first_run]
    if len(staged) > 1:
        raise BadInput(f"config.{staged[1]}.name: has a first run, and so has config.{staged[0]}; a run can have one")


def measured_by(config: Experiment) -> tuple[str, ...]:
    """Return the names of the metrics that only runs with these methods have."""
    return tuple(dict.fromkeys(name for function in methods(config).values() for name in tags_of(function).measures))


def check_balanced_once(sampler: str, weights: str) -> None:
    """Raise `BadInput` for a sampler and weights that would both correct the same imbalance."""
    samplers, weightings = registries()["sampler"], registries()["weights"]
    if tags_of(entry(samplers, sampler)).balances and tags_of(entry(weightings, weights)).balances:
        raise BadInput(
            f"config.weights.name: {weights!r} given, but config.sampler.name={sampler!r} corrects the imbalance too; "
            "use weights 'uniform', or 'given' with a value for each class or group if both are meant"
        )
    annealed = [name for name, function in samplers.items() if tags_of(function).chance]
    if weights == "residual" and sampler not in annealed:
        raise BadInput(
            f"config.weights.name: 'residual' is for config.sampler.name one of {', '.join(annealed)}; {sampler!r} given"
        )


def first_run(config: Experiment) -> ConfigDict | None:
    """Return the config of the run that must be made before that of `config`; None for methods of one stage."""
    for function in methods(config).values():
        if derive := tags_of(function).first_run:
            return derive(config)
    return None
