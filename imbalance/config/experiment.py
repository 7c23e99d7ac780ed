"""Experiments: the sections and values of a whole config, and the check of it."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_type_hints

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
    asks,
    check_call,
    check_fields,
    entry,
    flatten,
)
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput

EvalSplit = Literal["val", "test"]


class Trainer(TypedDict):
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


class Callbacks(TypedDict):
    """`config.callbacks`: when training ends, and which checkpoint is tested."""

    select: Literal["last", "best"]
    monitor: Name  # the val metric by which "best" is chosen, higher is better
    patience: Natural  # evaluations without a better monitored metric after which training ends; 0: never
    stop_at_interpolation: bool  # end after an epoch whose every prediction was right
    keep_logits: bool  # of every evaluation, in evaluations/: what selecting by another rule afterwards needs
    checkpoint_minutes: Positive  # at most so much work is lost with the process


class Logger(TypedDict):
    """`config.logger`: where metrics go beside metrics.jsonl, which is written in any case.

    WANDB_MODE overrides what `mode` says of wandb, also beside "tensorboard".
    """

    mode: Literal["disabled", "offline", "online", "tensorboard"]  # "offline" and "online" are wandb's
    project: Name  # of wandb


class Experiment(TypedDict):
    """The whole config. The other sections are calls: see `imbalance.config.schema`."""

    seed: Natural
    debug: bool  # one batch of train, val and test through everything
    work_dir: Name
    data_dir: Name
    score: Name  # the val metric that `run` returns
    trainer: Mapping[str, Any]
    callbacks: Mapping[str, Any]
    logger: Mapping[str, Any]
    data: Mapping[str, Any]
    groups: Mapping[str, Any]
    sampler: Mapping[str, Any]
    weights: Mapping[str, Any]
    loss: Mapping[str, Any]
    mix: Mapping[str, Any]
    objective: Mapping[str, Any]
    model: Mapping[str, Any]
    optim: Mapping[str, Any]
    head: Mapping[str, Any]


def validate(config: Mapping[str, Any]) -> FrozenConfigDict:
    """Return `config` frozen, or raise `BadInput` naming the first key that is missing, misspelt or out of range."""

    try:
        config = FrozenConfigDict(ConfigDict(config))
    except ValueError as error:  # a section in a tuple
        raise BadInput(f"config: {error}") from None
    plain = config.to_dict()
    check_fields("", plain, get_type_hints(Experiment, include_extras=True))
    for path, section in (("trainer", Trainer), ("callbacks", Callbacks), ("logger", Logger)):
        check_fields(path, plain[path], get_type_hints(section, include_extras=True))
    schedule = plain["optim"].pop("schedule", None)
    for path, table in registries().items():
        check_call(path, schedule if path == "optim.schedule" else plain[path], table)
    for key, value in flatten(plain).items():
        if "\0" in str(value):
            raise BadInput(f"config.{key}: {value!r} given; no file and no name has a NUL in it")
    if config.trainer.accumulation > config.trainer.batch_size:
        raise BadInput(
            f"config.trainer.accumulation: {config.trainer.accumulation} given; a batch of "
            f"config.trainer.batch_size={config.trainer.batch_size} has no more parts than examples"
        )
    of_val = config.callbacks.monitor.startswith("val/")
    for key, reads in (("select", config.callbacks.select == "best"), ("patience", config.callbacks.patience > 0)):
        if reads and of_val and "val" not in config.trainer.eval_splits:
            raise BadInput(
                f"config.trainer.eval_splits: must have 'val' for config.callbacks.{key}={config.callbacks[key]!r}"
            )
    check_methods(config)
    if config.head.name != "none" and config.model.name.endswith("_cosine"):
        raise BadInput(
            f"config.head.name: {config.head.name!r} given, but config.model.name={config.model.name!r} ends in a "
            f"normalised layer, which it cannot replace; use 'none', or {config.model.name.removesuffix('_cosine')!r}"
        )
    if config.trainer.mixed_precision != "no" and config.trainer.dtype != "float32":
        raise BadInput(
            f"config.trainer.mixed_precision: must be 'no' for config.trainer.dtype={config.trainer.dtype!r}"
        )
    own = measured_by(config)
    check_metric_name("score", config.score, own)
    check_metric_name("callbacks.monitor", config.callbacks.monitor, own)
    return config


def check_methods(config: ConfigDict) -> None:
    """Raise `BadInput` for methods that do not go together, or that ask for what no run has.

    What a method is stands on the method itself: see `imbalance.config.tags`.
    """

    entries = {path: entry(table, _section(config, path).name) for path, table in registries().items()}
    available = provided()
    for path, function in entries.items():
        if unknown := sorted(asks(function) - available[path]):
            raise BadInput(
                f"config.{path}.name: {_section(config, path).name!r} asks for {unknown[0]!r}; there are "
                + ", ".join(sorted(available[path]))
            )
    check_balanced_once(config.sampler.name, config.weights.name)
    staged = [path for path, function in entries.items() if tags_of(function).first_run]
    if len(staged) > 1:
        raise BadInput(f"config.{staged[1]}.name: has a first run, and so has config.{staged[0]}; a run can have one")


def measured_by(config: ConfigDict) -> tuple[str, ...]:
    """The metrics that only runs with methods of `config` have."""
    entries = [entry(table, _section(config, path).name) for path, table in registries().items()]
    return tuple(dict.fromkeys(name for function in entries for name in tags_of(function).measures))


def check_balanced_once(sampler: str, weights: str) -> None:
    """Raise `BadInput` for a sampler and weights that would both even out the same classes or groups."""
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


def _section(config: ConfigDict, path: str) -> ConfigDict:
    for key in path.split("."):
        config = config[key]
    return config


def first_run(config: ConfigDict) -> ConfigDict | None:
    """The config of the run that must be made before that of `config`; None for methods of one stage."""
    for path, table in registries().items():
        if derive := tags_of(entry(table, _section(config, path).name)).first_run:
            return derive(config)
    return None
