"""What a config must say, the check that it does, and the run directory that it names."""

import ast
import difflib
import functools
import hashlib
import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, get_type_hints

from ml_collections import ConfigDict, FrozenConfigDict

from imbalance.config_renamed import instead_of
from imbalance.errors import BadInput
from imbalance.schema import (
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Repeats,
    Table,
    asks,
    check_call,
    check_fields,
    entry,
    of_own_code,
    own_module,
)

CONFIGS = (Path(__file__).parent / "configs").resolve()  # a link to the folder at the top, which wheels have here
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
    """The whole config. The other sections are calls: see `imbalance.schema`."""

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


# Where a run keeps its files, and where it reports, does not change what it computes.
NOT_THE_EXPERIMENT = ("work_dir", "data_dir", "logger")


@functools.cache
def tables() -> dict[str, Table]:
    """What the `name` of each section can be."""
    from imbalance.data import DATASETS
    from imbalance.methods.groups import GROUPS
    from imbalance.methods.heads import HEADS
    from imbalance.methods.losses import LOSSES
    from imbalance.methods.mixing import MIXINGS
    from imbalance.methods.objectives import OBJECTIVES
    from imbalance.methods.samplers import SAMPLERS
    from imbalance.methods.weights import WEIGHTS
    from imbalance.models import MODELS
    from imbalance.training.optim import OPTIMIZERS, SCHEDULES

    return {
        "data": DATASETS, "groups": GROUPS, "sampler": SAMPLERS, "weights": WEIGHTS, "mix": MIXINGS, "loss": LOSSES,
        "objective": OBJECTIVES, "model": MODELS, "head": HEADS, "optim.schedule": SCHEDULES, "optim": OPTIMIZERS,
    }  # fmt: skip


def validate(config: Mapping[str, Any]) -> FrozenConfigDict:
    """Return `config` frozen, or raise `BadInput` naming the first key that is missing, misspelt or out of range."""
    from imbalance.judge.metrics import check_metric_name
    from imbalance.models import COSINE

    try:
        config = FrozenConfigDict(ConfigDict(config))
    except ValueError as error:  # a section in a tuple
        raise BadInput(f"config: {error}") from None
    plain = config.to_dict()
    check_fields("", plain, get_type_hints(Experiment, include_extras=True))
    for path, section in (("trainer", Trainer), ("callbacks", Callbacks), ("logger", Logger)):
        check_fields(path, plain[path], get_type_hints(section, include_extras=True))
    schedule = plain["optim"].pop("schedule", None)
    for path, table in tables().items():
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
    if config.head.name != "none" and config.model.name in COSINE:
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

    What a method is stands on the method itself: see `imbalance.methods.tags`.
    """
    from imbalance.methods.provided import PROVIDED
    from imbalance.methods.tags import tags_of

    entries = {path: entry(table, _section(config, path).name) for path, table in tables().items()}
    for path, function in entries.items():
        if unknown := sorted(asks(function) - PROVIDED[path]):
            raise BadInput(
                f"config.{path}.name: {_section(config, path).name!r} asks for {unknown[0]!r}; there are "
                + ", ".join(sorted(PROVIDED[path]))
            )
    check_balanced_once(config.sampler.name, config.weights.name)
    staged = [path for path, function in entries.items() if tags_of(function).first_run]
    if len(staged) > 1:
        raise BadInput(f"config.{staged[1]}.name: has a first run, and so has config.{staged[0]}; a run can have one")


def measured_by(config: ConfigDict) -> tuple[str, ...]:
    """The metrics that only runs with methods of `config` have."""
    from imbalance.methods.tags import tags_of

    entries = [entry(table, _section(config, path).name) for path, table in tables().items()]
    return tuple(dict.fromkeys(name for function in entries for name in tags_of(function).measures))


def check_balanced_once(sampler: str, weights: str) -> None:
    """Raise `BadInput` for a sampler and weights that would both even out the same classes or groups."""
    from imbalance.methods.tags import tags_of

    samplers, weightings = tables()["sampler"], tables()["weights"]
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
    from imbalance.methods.tags import tags_of

    for path, table in tables().items():
        if derive := tags_of(entry(table, _section(config, path).name)).first_run:
            return derive(config)
    return None


def load(path: str | Path) -> ConfigDict:
    """What `get_config()` of a config file returns, or what the config.json of a run directory holds."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("it holds no object")
            return ConfigDict(_with_saved_modules(_with_tuples(as_now(values)), path.parent / "modules"))
        top_level = ast.parse(text).body
    except OSError as error:
        raise BadInput(f"--config: cannot read {path}: {error.strerror}") from None
    except SyntaxError as error:
        raise BadInput(f"--config: {path}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # the latter two of what is nested without end
        raise BadInput(f"--config: {path} is no config: {error}") from None
    if not any("get_config" in _names(statement) for statement in top_level):  # before it is run: it may be any program
        raise BadInput(f"--config: {path} is no config: it has no get_config()")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:
        raise of_own_code(path, error) from error
    if not isinstance(config, ConfigDict):
        raise BadInput(f"--config: get_config() of {path} returns {type(config).__name__}, not a ConfigDict")
    return config


def as_now(saved: dict[str, Any]) -> dict[str, Any]:
    """What config.json of an older version says, as this one says it: what it could not ask for, it has not done.

    `trainer.compile` was true or false.
    """
    trainer, optim = saved.get("trainer"), saved.get("optim")
    if not isinstance(trainer, dict) or not isinstance(optim, dict):
        return saved  # no config, as will be said
    decayed = {} if own_module(str(optim.get("name"))) else {"decayed": "all"}
    trainer = {"clip_norm": 0.0, "tf32": "convolutions", "images_on_device": False} | trainer
    if isinstance(trainer.get("compile"), bool):
        trainer["compile"] = "default" if trainer["compile"] else "no"
    filled = {"trainer": trainer, "optim": decayed | optim}
    return {"groups": {"name": "data"}} | saved | filled


def _names(statement: ast.stmt) -> set[str]:
    """What a statement at the top of a file defines, where it can be seen."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def config_file(name: str | Path) -> Path:
    """The file that `name` names: a path, or the name of one in configs/ without the .py.

    Raises:
        BadInput: there is no such file; the message has the names that are nearest.
    """
    if not str(name):
        raise BadInput("--config: empty; name a file, or a config that `imbalance list configs` shows")
    given, there = Path(name), {path.stem: path for path in sorted(CONFIGS.rglob("*.py"))}
    if _is(given, "file") and given.suffix in (".py", ".json"):
        return given
    if str(name) in there:
        return there[str(name)]
    if _is(given, "file", "dir"):
        raise BadInput(f"--config: {name} is no config: it must be a .py or .json file")
    if flags := instead_of(given.stem):
        raise BadInput(f"--config: {name} is no config any more; type {flags} instead")
    near = difflib.get_close_matches(given.stem, there, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise BadInput(f"--config: no config {name}{hint}" + ("" if near else "; `imbalance list configs` shows all"))


def _is(path: Path, *kinds: str) -> bool:
    try:
        return any(getattr(path, f"is_{kind}")() for kind in kinds)
    except OSError:  # a name that is too long
        return False


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _with_saved_modules(value: Any, folder: Path) -> Any:
    """`value` with the copies of modules of one's own that a run has kept, where the modules themselves are gone."""
    if isinstance(value, dict):
        return {key: _with_saved_modules(item, folder) for key, item in value.items()}
    if isinstance(value, str) and (file := own_module(value)):
        saved = folder / Path(file).name
        return f"{saved}:{value.rpartition(':')[2]}" if saved.is_file() and not Path(file).is_file() else value
    return value


def own_modules(config: Mapping[str, Any]) -> list[Path]:
    """The files of one's own that sections of `config` name.

    Raises:
        BadInput: two of them have the same name, which would be one file in the run directory.
    """
    files = {own_module(value) for value in flatten(config).values() if isinstance(value, str)} - {""}
    by_name: dict[str, Path] = {}
    for file in sorted(map(Path, files)):
        if by_name.setdefault(file.name, file).resolve() != file.resolve():
            raise BadInput(f"config: {by_name[file.name]} and {file} are two modules of one name; rename one of them")
    return list(by_name.values())


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 0.1}}` as `{"optim.lr": 0.1}`."""
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping | ConfigDict) else {prefix + key: value}
    return flat


def experiment(config: ConfigDict) -> dict[str, Any]:
    """The part of a config that decides what the run computes, as JSON has it (tuples as lists).

    Of a module of one's own the file's name counts, not where it lies.
    """

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return Path(value).name if isinstance(value, str) and own_module(value) else value

    return json.loads(json.dumps({k: named(v) for k, v in config.to_dict().items() if k not in NOT_THE_EXPERIMENT}))


def origin(path: Path) -> tuple[str, tuple[str, ...]]:
    """The name and the overrides that a config file stands for: its stem and none, or those of the run that wrote it."""
    parts = path.resolve().parts
    if path.name != "config.json" or len(parts) < 4 or not parts[-2].startswith("seed="):
        return path.stem, ()
    return parts[-4], () if parts[-3] == "default" else (parts[-3],)


def run_directory(
    config: ConfigDict, name: str = "", base: ConfigDict | None = None, overrides: tuple[str, ...] = ()
) -> Path:
    """`<work_dir>/<name>/<overrides, or "default">/seed=<n>/`.

    Args:
        config: the config to run.
        name: the config file's stem.
        base: the config as its file has it. Without one (a config made in Python) its data and loss stand in for the
            name, and a hash of it for the overrides.
        overrides: of the run whose config.json the file is; see `origin`.
    """
    if base is None:
        same = {key: value for key, value in experiment(config).items() if key != "seed"}
        name = name or "_".join(_as_file_name(same[section]["name"]) for section in ("data", "loss"))
        folder = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
    else:
        before, after = flatten(experiment(base)), flatten(experiment(config))
        changed = (key for key in sorted(after) if key != "seed" and (key not in before or after[key] != before[key]))
        changes = (f"{key}={_as_file_name(after[key])}" for key in changed)
        folder = ",".join([*overrides, *changes]) or "default"
        written = folder.encode(errors="surrogateescape")
        if len(folder) > 200 or len(written) > 255:  # file systems end names at 255 bytes
            folder = written[:180].decode(errors="ignore") + "-" + hashlib.sha256(written).hexdigest()[:12]
    return Path(config.work_dir) / name / folder / f"seed={config.seed}"


def _as_file_name(value: Any) -> str:
    """`0.1`, `cat+dog` for `("cat", "dog")`, and no character that a shell or a file system minds.

    What this drops is distinguished by a hash: `a_b.csv` is `a_b.csv`, and `a b.csv` is `a_b.csv-` and eight digits.
    """
    text = str(value).replace(", ", "+") if isinstance(value, list) else str(value)
    text = re.sub(r"[^\w.+-]+", "_", re.sub(r"[][()'\"]", "", text))
    plain = _plain(value, r"[\w.+-]*")
    if isinstance(
        value, list
    ):  # whose items are joined by +; a list of lists shows where each ends if all have one item
        items = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in value]
        plain = all(_plain(item, r"[\w.-]+") for item in items)
        plain &= len({isinstance(item, list) for item in value}) <= 1
    return text if plain else f"{text}-{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]}"


def _plain(value: Any, characters: str) -> bool:
    return re.fullmatch(characters, value) is not None if isinstance(value, str) else not isinstance(value, list)
