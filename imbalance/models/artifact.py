"""Trained models on disk: the files of a finished run with the description (model.json) and weights of its network."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.user_modules import user_module_file
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.utils.package import __version__

FORMAT = 1  # the version of the format of model.json


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
        "uint8": not (
            dataset.train.inputs.is_floating_point() or dataset.vocabulary
        ),  # images, normalised by mean and std
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
    try:
        about = json.loads((directory / "model.json").read_text())
        state = torch.load(directory / "checkpoints" / "selected.pt", map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"{directory}: no trained model: {Path(error.filename).name} is missing; {describe_run(directory)}"
        ) from None
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{directory}: damaged ({' '.join(str(error).split())[:200]}); restore model.json and checkpoints/selected.pt, "
            "or train the run again in another directory"
        ) from None
    if about.get("format") != FORMAT:
        raise BadInput(
            f"{directory / 'model.json'}: of format {about.get('format')}; this version reads format {FORMAT}; use the "
            "version of imbalance that trained the run"
        )
    for key in about.keys() & {"model", "head"}:
        section = about[key]
        # The user's file may have changed, so name its copy in the run directory.
        if own := user_module_file(section["name"]):
            section["name"] = f"{directory / 'modules' / Path(own).name}:{section['name'].rpartition(':')[2]}"
        about[key] = {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
    return about, state


def describe_run(directory: Path) -> str:
    """Return the end of the message that `directory` has no trained model: the reason, and which directory to give."""
    if not (directory / "config.json").is_file():
        return "this is no run directory; give one such as <work_dir>/<config>/<overrides>/seed=<n>"
    try:
        status = json.loads((directory / "summary.json").read_text())["status"]
    except (OSError, ValueError, KeyError):
        status = "unfinished"
    return f"the run is {status}; give a run that is done"
