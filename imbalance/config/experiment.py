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
    """Length, batches and arithmetic of training (`config.trainer`).

    Args:
        epochs: passes over the examples that the sampler draws.
        batch_size: examples of a batch, over all processes together.
        accumulation: micro-batches that a batch is split into, one after the other, to save memory; 1: none.
        clip_norm: largest norm of the gradient of the whole batch, over all parameters together; 0: no limit.
        eval_batch_size: examples of a batch of an evaluation; it has no effect on the metrics.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        eval_splits: splits that these evaluations read; test is also read once at the end.
        dtype: type of the parameters and of all computation.
        mixed_precision: computes the forward and backward pass in this type; "no": in dtype.
        tf32: operations that a GPU may compute in TF32, which has 10 bits of mantissa: none, convolutions, or also
            matrix products ("all").
        channels_last: stores images with channels last, which GPUs compute faster.
        images_on_device: keeps all images of a store on the device; data that are not image files always are.
        compile: mode of torch.compile; "no": not compiled; "reduce-overhead" records CUDA graphs.
        deterministic: the same bits in every run on a GPU too, at some cost in speed.
    """

    epochs: Repeats
    batch_size: Count
    accumulation: Count
    clip_norm: NonNegative
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


class Callbacks(TypedDict):
    """End of training, and the checkpoint that is tested (`config.callbacks`).

    Args:
        select: checkpoint that is tested: of the last epoch, or of the epoch with the best monitored metric.
        monitor: val metric by which "best" selects; higher is better.
        patience: evaluations without a better monitored metric after which training ends; 0: never.
        stop_at_interpolation: ends training after an epoch in which every prediction was correct.
        keep_logits: saves the logits of every evaluation in evaluations/, so that another rule can select
            afterwards.
        checkpoint_minutes: minutes between checkpoints; at most so much work is lost if the process is killed.
    """

    select: Literal["last", "best"]
    monitor: Name
    patience: Natural
    stop_at_interpolation: bool
    keep_logits: bool
    checkpoint_minutes: Positive


class Logger(TypedDict):
    """Copies of the metrics for other programs (`config.logger`).

    Every run writes metrics.jsonl in any case. The environment variable WANDB_MODE overrides what `mode` says of
    Weights & Biases, also beside "tensorboard".

    Args:
        mode: "offline" and "online" log to Weights & Biases, "tensorboard" to TensorBoard.
        project: name of the project in Weights & Biases.
    """

    mode: Literal["disabled", "offline", "online", "tensorboard"]
    project: Name


class Experiment(TypedDict):
    """The whole config. The sections without a type of their own are calls: see `imbalance.config.schema`.

    Args:
        seed: seed of all random numbers: splits, initial weights, sampling, augmentation.
        debug: runs one batch of train, val and test through everything, to check a config.
        work_dir: folder of the run directories.
        data_dir: folder of the data sets.
        score: val metric of the selected epoch that `run` returns and a sweep reads.
        trainer: length, batches and arithmetic of training.
        callbacks: end of training, and the checkpoint that is tested.
        logger: copies of the metrics for other programs.
        data: data set and its splits.
        groups: groups that the methods use.
        sampler: examples that an epoch draws.
        weights: weight of each example.
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
