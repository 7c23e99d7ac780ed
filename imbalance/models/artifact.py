"""Trained models on disk: the files of a finished run with the description (model.json) and weights of its network."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.run_directory import read_summary, recorded_digests
from imbalance.config.user_modules import forget_changed_modules, user_module_file
from imbalance.data import Dataset
from imbalance.errors import BadInput, Damaged
from imbalance.utils.package import __version__
from imbalance.utils.read import read_bytes, read_json, read_torch

FORMAT = 1  # the version of the format of model.json
SELECTED = "checkpoints/selected.pt"  # file of the weights of the selected epoch, in the run directory


def description(config: Experiment, dataset: Dataset, network: nn.Module) -> dict[str, Any]:
    """Return the content of model.json: a description of the network and its inputs, to build the network again."""
    # `encoder` and `pretrained` set it to the section that builds the network without its pretrained weights.
    section = getattr(getattr(network, "features", None), "section", None)
    return {
        "format": FORMAT,
        "imbalance": __version__,
        "model": section or dict(config.model),
        "head": dict(name="none") if config.debug else dict(config.head),
        "dtype": config.trainer.dtype,
        "input_shape": dataset.input_shape,
        "vocabulary": dataset.vocabulary,  # the number of different tokens of texts; 0 for other inputs
        # Images, normalised by mean and std
        "uint8": not (dataset.train.inputs.is_floating_point() or dataset.vocabulary),
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": dataset.class_names,
        "groups": dataset.group_names,
        "preprocessing": dataset.preprocessing,
    }


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the trained model of a finished run: the content of model.json, and the state dict of the selected epoch.

    Args:
        directory: the run directory.

    Raises:
        BadInput: the directory has no trained model, or its files are damaged or have another format.
    """
    hint = f"type imbalance train --config={directory / 'config.json'} to write it again from the last checkpoint"
    try:
        about = read_json(directory / "model.json")
        check_description(about, directory / "model.json")
        state = read_torch(directory / SELECTED, about.get("weights"))
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise Damaged(directory / SELECTED, "no state dict")
        for key in about.keys() & {"model", "head"}:
            section = about[key]
            # The user's file may have changed, so name its copy in the run directory.
            if own := user_module_file(section["name"]):
                copy = Path("modules") / Path(own).name
                read_bytes(directory / copy, recorded_digests(directory).get(str(copy)))  # compares the digest
                section["name"] = f"{directory / copy}:{section['name'].rpartition(':')[2]}"
                forget_changed_modules(section)  # another run may have had this directory before
            about[key] = with_tuples(section)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"{directory}: no trained model: {Path(error.filename).name} is missing; {describe_run(directory)}"
        ) from None
    except Damaged as error:
        raise Damaged(error.args[0], error.reason, hint) from None
    except OSError as error:
        raise BadInput(f"{error.filename or directory}: {error.strerror}; {hint}") from None
    return about, state


def prepared_as_in_run(section: Mapping[str, Any], dataset: Dataset) -> Dataset:
    """Return `dataset` with the normalisation of images of the run that `config.model` starts from.

    Return `dataset` unchanged if the model starts from no run, or if the run was not trained on images.

    Args:
        section: `config.model`.

    Raises:
        BadInput: the run was trained on other columns of a table, or on texts with another tokenizer.
    """
    network = section.get("network")
    path = section.get("pretrained") or (network.get("pretrained") if isinstance(network, Mapping) else "")
    directory = Path(str(path or ""))
    if not path or not (directory / "model.json").is_file():
        return dataset
    about = read_json(directory / "model.json")
    check_description(about, directory / "model.json")
    check_same_inputs("config.model.pretrained", directory, about["preprocessing"], dataset.preprocessing)
    if not about["uint8"] or len(about["mean"]) != len(dataset.mean):
        return dataset
    return replace(dataset, mean=tuple(about["mean"]), std=tuple(about["std"]))


def check_same_inputs(key: str, run: str | Path, trained: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `BadInput` if a network would read new inputs as other columns of a table, or as other words, than in training.

    Args:
        key: the flag or config key that names the run, for messages.
        run: the directory of the run that trained the network.
        trained, new: `preprocessing` of the data set of the run, and of the new data set.
    """
    if "tokenizer" in new and new["tokenizer"] != trained.get("tokenizer"):
        raise BadInput(
            f"{key}: {run} was trained with another tokenizer than that of config.data; both must be the same, because the "
            "number of a token means another word in another vocabulary; set config.data.tokenizer, train on the same "
            "training texts, or name another run"
        )
    if "columns" not in (trained.get("kind"), new.get("kind")) or trained.get("kind") != new.get("kind"):
        return
    before, now = (input_columns(preprocessing["features"]) for preprocessing in (trained, new))
    if before != now:
        pair = next(pair for pair in zip_longest(before, now, fillvalue="no column") if pair[0] != pair[1])
        old, other = (shorten(text, 80, placeholder=" …") for text in pair)
        raise BadInput(
            f"{key}: {run} was trained on other inputs: where it has {old}, config.data has {other}; name the same columns in the "
            "same order in config.data.numeric and categorical, or name another run"
        )


def input_columns(encoding: Mapping[str, Any]) -> list[str]:
    """Return a description of each column of an encoding: its name and, of a column of categories, their names."""
    numeric = [column["column"] for column in encoding["numeric"]]
    return numeric + [f"{column['column']} ({' '.join(column['values'])})" for column in encoding["categorical"]]


def with_tuples(value: Any) -> Any:
    """Return `value`, from a JSON file, with each list as a tuple, as in a config; nested lists become tuples, too."""
    if isinstance(value, dict):
        return {name: with_tuples(item) for name, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def check_description(about: Mapping[str, Any], path: Path) -> None:
    """Raise `BadInput` unless `about`, the content of the model.json at `path`, can describe a model."""
    if about.get("format") != FORMAT:
        raise BadInput(
            f"{path}: of format {about.get('format')}; this version reads format {FORMAT}; use the version of imbalance that "
            "trained the run"
        )

    def list_of(*kinds: type) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, list) and all(type(item) in kinds for item in value)

    def section(value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("name"), str)

    required: dict[str, Callable[[Any], bool]] = {
        "model": section,
        "dtype": lambda value: value in ("float32", "float64"),
        "input_shape": list_of(int),
        "uint8": lambda value: isinstance(value, bool),
        "mean": list_of(int, float),
        "std": list_of(int, float),
        "classes": list_of(str),
        "preprocessing": lambda value: isinstance(value, dict),
    }
    optional = {
        "head": section,
        "vocabulary": lambda value: type(value) is int,
        "weights": lambda v: isinstance(v, str),
    }
    valid = {key: key in about and holds(about[key]) for key, holds in required.items()}
    valid |= {key: holds(about[key]) for key, holds in optional.items() if key in about}
    if wrong := [key for key, holds in valid.items() if not holds]:
        raise Damaged(path, f"the value of {wrong[0]!r} cannot be that of a model")


def describe_run(directory: Path) -> str:
    """Return the end of a message about a directory without a trained model: the reason, and what to name instead."""
    if not (directory / "config.json").is_file():
        return "this is no run directory; give one such as <work_dir>/<config>/<overrides>/seed=<n>"
    try:
        status = read_summary(directory)["status"]
    except (OSError, Damaged):
        status = "unfinished"
    if status == "done":
        return (
            "the run is done, but this file was removed, or left out by `imbalance keep --to`, which copies no model; give the "
            "directory in which the run was trained"
        )
    return f"the run is {status}; give a run that is done"
