"""Trained models on disk: `model.json` beside the selected weights of a finished run."""

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.user_modules import user_module_file
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.utils.package import __version__

if TYPE_CHECKING:
    pass

FORMAT = 1  # of model.json


def description(config: Experiment, dataset: Dataset, network: nn.Module) -> dict[str, Any]:
    """What model.json says of the model that a run trains."""
    section = getattr(getattr(network, "features", None), "section", None)  # see `imbalance.models.pretrained`
    return {
        "format": FORMAT,
        "imbalance": __version__,
        "model": section or dict(config.model),
        "head": dict(name="none") if config.debug else dict(config.head),
        "dtype": config.trainer.dtype,
        "input_shape": dataset.input_shape,
        "vocabulary": dataset.vocabulary,  # tokens of texts; 0 for other inputs
        "uint8": not (dataset.train.inputs.is_floating_point() or dataset.vocabulary),  # images, normalised by these:
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": dataset.class_names,
        "groups": dataset.group_names,
        "preprocessing": dataset.preprocessing,
    }


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What model.json says, and the selected weights, of a finished run."""
    try:
        about = json.loads((directory / "model.json").read_text())
        state = torch.load(directory / "checkpoints" / "selected.pt", map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"{directory}: no trained model: {Path(error.filename).name} is missing; {ending(directory)}"
        ) from None
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{directory}: damaged ({' '.join(str(error).split())[:200]})") from None
    if about.get("format") != FORMAT:
        raise BadInput(f"{directory / 'model.json'}: of format {about.get('format')}; this version reads {FORMAT}")
    for key in about.keys() & {"model", "head"}:
        section = about[key]
        if own := user_module_file(section["name"]):  # the run's own copy, whatever has become of the file since
            section["name"] = f"{directory / 'modules' / Path(own).name}:{section['name'].rpartition(':')[2]}"
        about[key] = {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
    return about, state


def ending(directory: Path) -> str:
    """How far the run in a directory came, for messages."""
    if not (directory / "config.json").is_file():
        return "this is no run directory (<work_dir>/<config>/<overrides>/seed=<n>)"
    try:
        status = json.loads((directory / "summary.json").read_text())["status"]
    except (OSError, ValueError, KeyError):
        status = "unfinished"
    return f"the run is {status}; one that is done has it"
