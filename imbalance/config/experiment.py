"""Typed config: the sections and values of an experiment, and their validation."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from ml_collections import ConfigDict

from imbalance.config.metric_names import check_metric_name
from imbalance.config.registries import available_arguments, registries
from imbalance.config.schema import (
    Count,
    Fraction,
    MissingKeys,
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
    short_repr,
)
from imbalance.config.tags import tags_of
from imbalance.config.user_modules import forget_changed_modules
from imbalance.errors import BadInput

EvalSplit = Literal["val", "test"]


@dataclass(frozen=True)
class Trainer:
    """Length, batches and arithmetic of training (`config.trainer`).

    Args:
        epochs: number of epochs; an epoch is one pass over the examples that the sampler draws.
        batch_size: number of examples in a batch, over all processes together.
        accumulation: number of micro-batches into which each batch is split, to save memory; 1: no split.
        clip_norm: largest norm of the gradient of the whole batch, over all parameters together; 0: no limit.
        ema_decay: decay of an exponential moving average of the network weights; evaluation and selection use the
            averaged weights. 0: no average.
        eval_batch_size: number of examples in a batch of an evaluation; it has no effect on the metrics.
        eval_every: number of epochs from one evaluation to the next; the last epoch is always evaluated.
        eval_splits: splits to evaluate during training; after training every split is evaluated.
        dtype: type of the parameters and of all computation.
        mixed_precision: type in which the forward and backward pass compute; "no": the type `dtype`.
        tf32: operations that a GPU may compute in TF32, which has 10 bits of mantissa: "none", "convolutions", or
            "all" for convolutions and matrix products.
        channels_last: stores image tensors in torch's channels-last memory format, which is faster on GPUs.
        images_on_device: for data sets of image files: copies all images to the device before training, instead of
            batch by batch. Other data sets are always copied before training.
        compile: mode of torch.compile; "no": not compiled; "reduce-overhead" records CUDA graphs.
        deterministic: makes repeated runs on a GPU give the same bits, at some cost in speed.
        shard: splits the model, its gradients and its optimiser's state over the processes, to save memory (FSDP2).
        activation_checkpointing: computes the activations of each block again in the backward pass, to save memory.
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
    shard: bool
    activation_checkpointing: bool


@dataclass(frozen=True)
class Callbacks:
    """End of training, and the checkpoint that is tested (`config.callbacks`).

    Args:
        select: checkpoint that is tested: "last" for the last epoch, "best" for the epoch with the highest `monitor`.
        monitor: val metric that `select` and `patience` compare; higher is better.
        patience: training ends after this number of evaluations in a row without a higher `monitor`; 0: it never ends
            early.
        stop_at_interpolation: ends training after the first epoch whose training steps predicted every example correctly; if
            the sampler draws only a part of train, the other examples do not count.
        keep_logits: saves the logits of every evaluation in the folder evaluations/ of the run directory, so that
            `imbalance select` can apply other selection rules afterwards.
        checkpoint_minutes: minutes between checkpoints; a killed process loses at most the work of so many minutes.
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

    Every run writes its metrics to metrics.jsonl, whatever this section says. If the environment variable WANDB_MODE is
    set, it decides in place of `mode` about Weights & Biases. It does not change whether TensorBoard is written.

    Args:
        mode: "offline" and "online" log to Weights & Biases, "tensorboard" to TensorBoard.
        project: name of the project in Weights & Biases.
    """

    mode: Literal["disabled", "offline", "online", "tensorboard"]
    project: Name


@dataclass(frozen=True)
class Experiment:
    """A whole config, validated and frozen.

    A `Section` names a function and gives its arguments. `imbalance.config.registries` lists the functions that each
    section can name.

    Args:
        seed: seed of all random numbers: splits, initial weights, sampling, augmentation.
        debug: True to train on one batch and evaluate one batch of each split, to check a config.
        work_dir: folder of the run directories.
        data_dir: folder of the data sets.
        score: val metric whose value at the selected epoch is the result of the run, for `imbalance.run` and for
            sweeps.
        trainer: length, batches and arithmetic of training.
        callbacks: rules for the end of training, and for the checkpoint that is tested.
        logger: copies of the metrics for other programs.
        data: data set and its splits.
        groups: function that gives each example the group that the methods use.
        sampler: function that chooses the examples of an epoch.
        weights: importance weight of each example.
        loss: loss of one example.
        mix: mixing of pairs of examples into one, such as mixup.
        objective: reduction of the losses of a batch to one scalar.
        model: network.
        adapter: small changes that are trained in place of the network's weights.
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
    adapter: Section
    optim: Section
    head: Section

    def __post_init__(self) -> None:
        """Raise `BadInput` if a value is wrong; `dataclasses.replace` calls this method too, so that its copies are checked."""
        check_sections(self.to_dict())
        check_together(self)
        check_methods(self)
        measured = measured_by(self)
        check_metric_name("score", self.score, measured)
        check_metric_name("callbacks.monitor", self.callbacks.monitor, measured)

    def section(self, path: str) -> Section:
        """Return the section at `path`, such as "optim.schedule"."""
        first, *rest = path.split(".")
        return functools.reduce(lambda section, key: section[key], rest, getattr(self, first))

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as a config file writes them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            key: value.to_dict() if isinstance(value, Section) else vars(value).copy() if is_dataclass(value) else value
            for key, value in values.items()
        }


VALUE_SECTIONS = {"trainer": Trainer, "callbacks": Callbacks, "logger": Logger}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of a class of the config."""
    return get_type_hints(cls, include_extras=True)


def plain_annotations(path: str) -> dict[str, Any] | None:
    """Return the annotations of the keys at `path`: "", a whole config, or a section that names no function; else None."""
    kind = {"": Experiment, **VALUE_SECTIONS}.get(path)
    return None if kind is None else _hints(kind)


def check_whole(config: Mapping[str, Any]) -> None:
    """Raise `BadInput` if a config lacks a section or another key of the top level, or has an unknown one."""
    check_keys("", config, _hints(Experiment))


def validate(config: Mapping[str, Any] | ConfigDict | Experiment) -> Experiment:
    """Check every value of `config`, and return it typed and frozen.

    The user's own modules that `config` names are loaded again if their files have changed.

    Raises:
        BadInput: a key is missing or unknown, or a value is not valid. The message names the first such key.
    """
    if isinstance(config, Experiment):
        return config
    if not isinstance(config, Mapping | ConfigDict):
        raise BadInput(
            f"config: {short_repr(config)} given; a config is needed, such as a ConfigDict or a dictionary of its sections"
        )
    values = plain(config)
    forget_changed_modules(values)
    return _typed(values)


def _typed(values: dict[str, Any]) -> Experiment:
    """Check all values of a config, a plain dictionary, and return them typed and frozen."""
    check_keys("", values, _hints(Experiment))
    for path, kind in VALUE_SECTIONS.items():
        check_values("config.", values, {path: Mapping[str, Any]})
        check_keys(path, values[path], _hints(kind))
    value_sections = {path: kind(**values[path]) for path, kind in VALUE_SECTIONS.items()}
    calls = {key: Section(value) for key, value in values.items() if isinstance(value, Mapping)}
    arguments: dict[str, Any] = values | calls | value_sections
    return Experiment(**arguments)


def check_sections(values: Mapping[str, Any]) -> None:
    """Raise `BadInput` if a section lacks a key, has an unknown key, or has a value of a wrong type or out of range."""
    hints = _hints(Experiment)
    sections = {
        key for key, hint in hints.items() if isinstance(hint, type) and hint in (Section, *VALUE_SECTIONS.values())
    }
    check_fields("", values, {key: Mapping[str, Any] if key in sections else hint for key, hint in hints.items()})
    checks = [
        functools.partial(check_fields, path, values[path], _hints(kind)) for path, kind in VALUE_SECTIONS.items()
    ]
    for path, table in registries().items():
        section = values["optim"].get("schedule") if path == "optim.schedule" else values[path]
        if path == "optim":
            section = {key: value for key, value in section.items() if key != "schedule"}
        checks.append(functools.partial(check_call, path, section, table))
    missing: dict[str, str] = {}  # in all sections, so that one message names every key to add
    for check in checks:
        try:
            check()
        except MissingKeys as error:
            missing |= error.values
    if missing:
        raise MissingKeys(missing)
    for key, value in flatten(values).items():
        if "\0" in str(value):
            raise BadInput(f"config.{key}: {value!r} given; remove the NUL character, which no file name can have")


def check_together(config: Experiment) -> None:
    """Raise `BadInput` if two values of `config` exclude each other, although each of them is valid alone."""
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
    if takes_full_batches(config):
        check_full_batches(config)


def takes_full_batches(config: Experiment) -> bool:
    """Return whether the optimiser of `config` takes each step on all training examples, as "lbfgs" does."""
    return tags_of(look_up(registries()["optim"], config.optim.name)).full_batch


def check_full_batches(config: Experiment) -> None:
    """Raise `BadInput` if `config` has a value that an optimiser with all training examples in each step cannot use.

    Every epoch must minimise the same mean of losses over the same examples.
    """
    trainer, weights = config.trainer, look_up(registries()["weights"], config.weights.name)
    epochal = "epoch" in required_arguments(weights)
    needed = (
        ("sampler.name", config.sampler.name, "shuffle"),
        ("mix.name", config.mix.name, "none"),
        ("objective.name", config.objective.name, "average"),
        ("weights.name", config.weights.name, "importance' or 'uniform" if epochal else config.weights.name),
        ("optim.schedule.name", config.optim.schedule.name, "constant"),
        ("optim.schedule.warmup_epochs", config.optim.schedule.get("warmup_epochs", 0.0), 0.0),
        ("trainer.accumulation", trainer.accumulation, 1),
        ("trainer.clip_norm", trainer.clip_norm, 0.0),
        ("trainer.ema_decay", trainer.ema_decay, 0.0),
        ("trainer.mixed_precision", trainer.mixed_precision, "no"),
        ("trainer.compile", trainer.compile, "no"),
        ("trainer.shard", trainer.shard, False),
    )
    for key, value, only in needed:
        if value != only:
            quoted = f"'{only}'" if isinstance(only, str) else only
            raise BadInput(
                f"config.{key}: {value!r} given; it must be {quoted} for config.optim.name={config.optim.name!r}, which "
                "minimises the mean weighted loss of all training examples"
            )


def methods(config: Experiment) -> dict[str, Callable[..., Any]]:
    """Return the functions that the sections of `config` name, by the path of the section, such as "optim.schedule"."""
    return {path: look_up(table, config.section(path).name) for path, table in registries().items()}


def check_methods(config: Experiment) -> None:
    """Raise `BadInput` if a function that `config` names breaks one of five rules.

    - A function must not require an argument that the program does not pass.
    - An objective with the tag `unmixed` must not be used with mixing (`config.mix`).
    - An optimiser with the tag `splits` needs the objective "average" and no mixing.
    - An optimiser with several passes in a step must not be used with CUDA graphs.
    - At most one function may have the tag `first_run`, by which another run is trained first. See `imbalance.config.tags`.
    """
    functions, available = methods(config), available_arguments()
    for path, function in functions.items():
        if unknown := sorted(required_arguments(function) - available[path]):
            raise BadInput(
                f"config.{path}.name: {config.section(path).name!r} requires the argument {unknown[0]!r}, which no run passes; "
                f"use only {', '.join(sorted(available[path]))}, or put a * before {unknown[0]!r} in the signature of "
                f"the function, and give its value as config.{path}.{unknown[0]}"
            )
    if tags_of(functions["objective"]).unmixed and config.mix.name != "none":
        raise BadInput(
            f"config.mix.name: {config.mix.name!r} given, but config.objective.name={config.objective.name!r} compares "
            "examples by class, and a mixture has two classes; use config.mix.name='none'"
        )
    optim = tags_of(functions["optim"])
    for section, needed in (("objective", "average"), ("mix", "none")):
        if optim.splits and config.section(section).name != needed:
            raise BadInput(
                f"config.{section}.name: {config.section(section).name!r} given, but config.optim.name={config.optim.name!r} "
                f"splits a batch by class; use config.{section}.name={needed!r}, or config.optim.name='sam'"
            )
    if optim.passes > 1 and config.trainer.compile == "reduce-overhead":
        raise BadInput(
            f"config.trainer.compile: 'reduce-overhead' given, but config.optim.name={config.optim.name!r} computes "
            f"{optim.passes} passes in a step, which CUDA graphs cannot record; use 'default'"
        )
    staged = [path for path, function in functions.items() if tags_of(function).first_run]
    if len(staged) > 1:
        first, second = staged[:2]
        raise BadInput(
            f"config.{second}.name: {config.section(second).name!r} given, which trains another run before this one, and so does "
            f"config.{first}.name={config.section(first).name!r}; only one of the two may do so, so change the other"
        )


def measured_by(config: Experiment) -> tuple[str, ...]:
    """Return the names of the metrics that methods of `config` add to the standard metrics, such as "train/flip_rate"."""
    return tuple(dict.fromkeys(name for function in methods(config).values() for name in tags_of(function).measures))


def check_balanced_once(sampler: str, weights: str) -> None:
    """Raise `BadInput` if a sampler and importance weights must not be used together.

    This is so if both correct the same imbalance, or if the weights are "residual" and the sampler does not depend on
    the epoch.

    Args:
        sampler: the value of `config.sampler.name`.
        weights: the value of `config.weights.name`.
    """
    samplers, weightings = registries()["sampler"], registries()["weights"]
    if tags_of(look_up(samplers, sampler)).balances and tags_of(look_up(weightings, weights)).balances:
        raise BadInput(
            f"config.weights.name: {weights!r} given, but config.sampler.name={sampler!r} corrects the imbalance too; "
            "use config.weights.name='uniform', or, to correct it twice on purpose, 'given' with a value for each class or group"
        )
    annealed = [name for name, function in samplers.items() if "epoch" in required_arguments(function)]
    if weights == "residual" and sampler not in annealed:
        raise BadInput(
            f"config.weights.name: 'residual' given, which needs config.sampler.name to be one of {', '.join(annealed)}; "
            f"it is {sampler!r}"
        )


def first_run(config: Experiment) -> Experiment | None:
    """Return the config of the run that a two-stage method trains first; None if `config` names no such method.

    The predictions of this first run are an input of the method in the run of `config`.
    """
    for function in methods(config).values():
        if derive := tags_of(function).first_run:
            return _typed(plain(derive(config)))  # not `validate`: the run must not change its code
    return None
