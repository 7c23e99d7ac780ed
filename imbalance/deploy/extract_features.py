"""Features extracted once: a network's view of every example of a data set, for heads that train in seconds.

    imbalance features --config=waterbirds_erm --output=data/waterbirds_resnet50
    imbalance features --run=runs/fashion_ce/default/seed=0 --output=data/fashion_convnet
    imbalance compare --config=features_erm,features_poly,features_dfr --config.data.folder=waterbirds_resnet50

The network is that of config.model (with pretrained weights, where it says so), or the one that a finished run trained,
in evaluation mode and on images that are not augmented. The same command again goes on where it was stopped, and says so
where there is nothing left to do; features of other weights, another preprocessing or other data are refused.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment, validate
from imbalance.config.load import config_file
from imbalance.config.load import load as load_config
from imbalance.config.overrides import override
from imbalance.config.schema import build
from imbalance.data import Dataset
from imbalance.data.identity import differences, digest
from imbalance.data.images.store import locked
from imbalance.data.population import SPLITS
from imbalance.data.sets.features import close_features, crc, in_words, open_features, partial_folder
from imbalance.deploy.predict import TrainedModel
from imbalance.deploy.predict import load as load_run
from imbalance.errors import BadInput, out_of_memory
from imbalance.models import MODELS
from imbalance.models.artifact import description, ending
from imbalance.training.distributed.processes import set_arithmetic
from imbalance.training.learner import load_dataset
from imbalance.training.logging.run_log import duration
from imbalance.utils.budget import MemoryBudget
from imbalance.utils.files import sync, write_whole
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.memory import available_memory
from imbalance.utils.output import say

SAVE_SECONDS = 10  # at most so much work is lost when it is stopped


def features(*, config: str | None, run: str | None, output: str, overrides: Mapping[str, Any]) -> str:
    """`imbalance features`: write the features of a config's data into the folder `output`."""
    if not config and not run:
        raise BadInput("--config: missing; a config says data and network, --run=<run directory> takes that run's")
    if not Path(output).name:
        raise BadInput(f"--output: {output!r} given; name a folder that is not there yet")
    if run and not (Path(run) / "config.json").is_file():
        raise BadInput(f"--run: {run}: {ending(Path(run))}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise BadInput("launch: features are extracted by one process; start it without torchrun")
    file = config_file(config or Path(run) / "config.json")
    resolved = validate(override(load_config(file), overrides))
    if resolved.debug:
        raise BadInput("config.debug: True given; features are extracted of all examples, never of one batch")
    if resolved.trainer.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise BadInput("config.trainer.mixed_precision: 'fp16' given, which is for a GPU; use 'bf16' or 'no'")
    set_arithmetic(resolved)
    dataset = load_dataset(resolved)
    if dataset.probe:
        raise BadInput(f"config.data.name: {resolved.data.name!r} evaluates on other classes than it trains on; use their own data")  # fmt: skip
    model = trained(run, dataset) if run else configured(resolved, dataset)
    made_of = {
        "model": model.about["model"],
        "weights": weights_digest(model.network.features),
        "inputs": {key: model.about[key] for key in ("preprocessing", "mean", "std", "dtype")}
        | {key: resolved.trainer[key] for key in ("mixed_precision", "tf32")},
        "data": digest(dataset),
    }
    made_of = json.loads(json.dumps(made_of))  # tuples as lists
    into = Path(output)
    try:
        with locked(into):
            if (into / "store.json").is_file():
                check_same(into, made_of)
                return f"{into}: done before; {how_to_train(into)}"
            if into.exists() and (not into.is_dir() or any(into.iterdir())):
                raise BadInput(f"--output: {into} is there, and is no folder of features; name another")
            extract(resolved, dataset, model, made_of, into)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise BadInput("out of memory; a smaller config.trainer.eval_batch_size needs less") from None
    except OSError as error:
        raise BadInput(f"--output: cannot write {into}: {error.strerror or error}") from None
    return f"{into}: {sum(len(getattr(dataset, name)) for name in SPLITS):,} examples; {how_to_train(into)}"


def how_to_train(folder: Path) -> str:
    return f"--config=features_erm --config.data.folder={folder.absolute()} trains on them"


def configured(config: Experiment, dataset: Dataset) -> TrainedModel:
    """The network that a run of `config` starts from."""
    torch.manual_seed(config.seed)
    shape = dict(input_shape=dataset.input_shape, vocabulary=dataset.vocabulary, num_classes=dataset.num_classes)
    with MemoryBudget("config.model", available_memory()):
        network = build(MODELS, config.model, architecture=None, **shape)
    return on_device(network, description(config, dataset, network))


def trained(run: str, dataset: Dataset) -> TrainedModel:
    """The network of a finished run, which must take the data as they are."""
    model = load_run(run)
    about = {key: tuple(value) if isinstance(value, list) else value for key, value in model.about.items()}
    ours = {"images of size": dataset.input_shape, "images normalised by": (dataset.mean, dataset.std)}
    theirs = {"images of size": about["input_shape"], "images normalised by": (about["mean"], about["std"])}
    # A table's statistics are its own data's; how an image is decoded must be the same.
    if dataset.preprocessing.get("kind") != "columns":
        ours["images decoded by"] = json.loads(json.dumps(dict(dataset.preprocessing)))
        theirs["images decoded by"] = about["preprocessing"]
    if "tokenizer" in dataset.preprocessing and dataset.preprocessing["tokenizer"] != about["preprocessing"].get(
        "tokenizer"
    ):
        raise BadInput(f"--run: {run} was trained on texts of another tokenizer than that of config.data")
    for what, value in ours.items():
        if json.dumps(value) != json.dumps(theirs[what]):
            raise BadInput(f"--run: {run} was trained on {what} {theirs[what]}; those of config.data are {value}")
    return on_device(model.network, model.about)


def on_device(network: nn.Module, about: Mapping[str, Any]) -> TrainedModel:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, getattr(torch, about["dtype"])).eval().requires_grad_(False)
    return TrainedModel(network, about, device)


def weights_digest(module: nn.Module) -> str:
    """Of its parameters and buffers, by name and to the bit."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def check_same(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless the features in `folder` are whole and made of just that."""
    before = open_features(folder).description["made_of"]
    other = []
    if before["weights"] != made_of["weights"]:
        other.append(f"other weights (of {in_words(before['model'])}, then; now of {in_words(made_of['model'])})")
    changed = [key for key in made_of["inputs"] if before["inputs"].get(key) != made_of["inputs"][key]]
    other += [f"another {key}" for key in changed]
    other += differences(before["data"], made_of["data"])
    if other:
        raise BadInput(f"--output: {folder} holds features of {'; '.join(other)}; name another folder")


def extract(config: Experiment, dataset: Dataset, model: TrainedModel, made_of: Mapping[str, Any], into: Path) -> None:
    """Write the features of all splits, from where a stopped call has come to, and rename the folder into its place."""
    if model.device.type == "cpu":
        keep_freed_memory()
    splits = [getattr(dataset, name) for name in SPLITS]
    indices, partial = torch.cat([split.indices for split in splits]), partial_folder(into)
    done, found = resumed(partial, made_of)
    progress = Progress(len(indices), done)
    for first, values in computed(config, dataset, model, done):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise BadInput(f"config.model: its features of source row {indices[first + row]} are not finite")
        if found is None:
            found = allocated(partial, made_of, (len(indices), values.shape[1]), values.dtype)
        done = first + len(values)
        found[first:done] = values
        if progress.tell(done):
            found.flush()
            write_whole(partial / "done.json", json.dumps({"made_of": made_of, "done": done}).encode())
    found.flush()
    close_features(partial, dataset, made_of, np.array([crc(row) for row in found], dtype=np.uint32))
    (partial / "done.json").unlink()
    if into.exists():
        into.rmdir()  # which is empty
    partial.rename(into)
    sync(into.absolute().parent)


def computed(config: Experiment, dataset: Dataset, model: TrainedModel, done: int) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of train, val and test, one after another: their first row and their (B, D) features.

    Args:
        done: how many rows not to compute; where a batch ended.
    """
    device, size, first = model.device.type, config.trainer.eval_batch_size, 0
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    model.network.to(memory_format=layout)
    if config.trainer.compile != "no":
        model.network.features.compile()
    half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.trainer.mixed_precision]
    dataset, pending = dataset.to(model.device, model.dtype), []
    for split in (getattr(dataset, name) for name in SPLITS):
        for start in range(0, len(split), size):
            if first >= done:
                with torch.autocast(device, half) if half else nullcontext():
                    pending.append((first, model.features(split.inputs[start : start + size])))
            first += len(split.targets[start : start + size])
            if len(pending) == 2:  # a GPU is busy with the next batch while this one is fetched
                yield fetched(*pending.pop(0))
    yield from (fetched(*last) for last in pending)


def fetched(first: int, values: Tensor) -> tuple[int, np.ndarray]:
    values = values.flatten(1)
    return first, (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def resumed(partial: Path, made_of: Mapping[str, Any]) -> tuple[int, np.ndarray | None]:
    """How many rows a stopped call has written, and the (N, D) array that holds them; none of another call's."""
    try:
        state = json.loads((partial / "done.json").read_text())
        if state["made_of"] == made_of:
            say(f"{partial}: going on after {state['done']:,} examples", sys.stderr)
            return state["done"], np.load(partial / "features.npy", mmap_mode="r+", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):  # damaged: begin afresh
        pass
    shutil.rmtree(partial, ignore_errors=True)
    return 0, None


def allocated(partial: Path, made_of: Mapping[str, Any], shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The array on the disk, which is taken at once: a disk that fills up would kill the process that writes to it."""
    size = shape[0] * shape[1] * dtype.itemsize
    free = shutil.disk_usage(partial.absolute().parent).free
    if size > free:
        raise BadInput(f"--output: the features take {size / 1e6:,.1f} MB; there are {free / 1e6:,.1f} MB free")
    partial.mkdir()
    found = np.lib.format.open_memmap(partial / "features.npy", mode="w+", dtype=dtype, shape=shape)
    with open(partial / "features.npy", "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    write_whole(partial / "done.json", json.dumps({"made_of": made_of, "done": 0}).encode())
    return found


class Progress:
    """How far it is, on stderr: a line that a terminal sees change, and a log now and then."""

    def __init__(self, total: int, done: int):
        self.total, self.begun, self.started = total, done, time.monotonic()
        self.told, self.bar = self.started, sys.stderr.isatty()

    def tell(self, done: int) -> bool:
        """Whether it was time to say so."""
        now = time.monotonic()
        if done < self.total and now - self.told < SAVE_SECONDS:
            return False
        self.told = now
        rate = (done - self.begun) / max(1e-9, now - self.started)
        line = f"{done:,} of {self.total:,} examples, {rate:,.0f}/s, {duration((self.total - done) / rate)} left"
        ends = not self.bar or done == self.total
        print(f"\r\x1b[K{line}" if self.bar else line, end="\n" if ends else "", file=sys.stderr, flush=True)
        return True
