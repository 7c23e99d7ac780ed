"""Extract the features of a network for each example of a data set, so that new heads train in seconds.

    imbalance features --config=waterbirds_erm --output=data/waterbirds_resnet50
    imbalance features --run=runs/fashion_erm/default/seed=0 --output=data/fashion_convnet
    imbalance compare --config=features_erm,features_poly,features_dfr --config.data.folder=waterbirds_resnet50

Without --run, the network is that of config.model before training, which may have pretrained weights. With --run, it is
the network that the run has trained. The network is in evaluation mode, and images are not augmented. If the command is
interrupted, the same command resumes; if the features exist already, it writes nothing and says so. An output folder
with features of other network weights, another preprocessing or other data is refused.

Started by torchrun, the processes compute a batch each in turn, and the first process writes:

    torchrun --standalone --nproc_per_node 8 -m imbalance features --config=waterbirds_erm --output=data/waterbirds_resnet50
"""

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import config_file, resolve
from imbalance.config.schema import build
from imbalance.config.user_modules import user_module_file
from imbalance.data import Dataset
from imbalance.data.identity import differences, digest
from imbalance.data.population import SPLITS
from imbalance.data.sets.features import close_features, crc, describe_section, open_features, partial_folder
from imbalance.data.splits import Split
from imbalance.data.stores import build_lock
from imbalance.deploy.load import TrainedModel
from imbalance.deploy.load import load as load_run
from imbalance.errors import BadInput, Damaged, is_out_of_memory
from imbalance.methods.batch import Inputs
from imbalance.models import MODELS
from imbalance.models.artifact import check_same_inputs, describe_run, description, prepared_as_in_run
from imbalance.training.distributed.processes import from_main_with_help, start_accelerator
from imbalance.training.learner import load_dataset
from imbalance.training.read_ahead import batch_reader
from imbalance.utils.budget import MemoryBudget
from imbalance.utils.files import sync_folder, write_atomic
from imbalance.utils.malloc import keep_freed_memory
from imbalance.utils.memory import available_memory
from imbalance.utils.output import duration, print_safely
from imbalance.utils.read import map_array, read_bytes, read_json, seal, short_hash

ComputeAll = Callable[[Sequence[tuple[str, int]]], Iterator[Tensor]]
SAVE_SECONDS = 10  # time between two saves of the progress, so the most that an interrupted extraction loses


def features(*, config: str | None, run: str | None, output: str, overrides: Mapping[str, Any]) -> str:
    """Run `imbalance features`: write the features of a config's data into the folder `output`.

    Args:
        config: the name or file of a config; None for the config of `run`.
        run: the directory of a finished run whose network computes the features; None for the network of the config.
        output: the folder to write.
        overrides: new values of config keys.

    Returns:
        The message that the command prints.
    """
    if not config and not run:
        raise BadInput(
            "--config: missing; name a config, or give --run=<run directory> to use the data and network of a run"
        )
    if not Path(output).name:
        raise BadInput(f"--output: {output!r} given; name a folder that does not exist yet")
    if run and not (Path(run) / "config.json").is_file():
        raise BadInput(f"--run: {run}: {describe_run(Path(run))}")
    file = config_file(config or Path(run or "") / "config.json")
    resolved, _ = resolve(file, overrides)
    if resolved.debug:
        raise BadInput("config.debug: True given; it must be False, because features are extracted from all examples")
    accelerator = start_accelerator(resolved)
    dataset = load_dataset(resolved)
    dataset = dataset if run else prepared_as_in_run(resolved.model, dataset)
    if dataset.probe:
        raise BadInput(
            f"config.data.name: {resolved.data.name!r} given, which evaluates on other classes than it trains on; name the data "
            "set of config.data.source instead"
        )
    device = accelerator.device
    model = run_model(run, dataset, device) if run else config_model(resolved, dataset, device)
    into = Path(output)

    def write(compute_all: ComputeAll) -> str:
        made_of = {
            "model": model.about["model"],
            "weights": weights_digest(model.network.get_submodule("features")),
            "inputs": {key: model.about[key] for key in ("preprocessing", "mean", "std", "dtype")}
            | {key: getattr(resolved.trainer, key) for key in ("mixed_precision", "tf32")}
            | code_of(model.about["model"]),
            "data": digest(dataset),
        }
        made_of = json.loads(json.dumps(made_of))  # JSON turns tuples into lists, as in a saved store.json
        with build_lock(into):
            if (into / "store.json").exists():
                check_same(into, made_of)
                return f"{into}: done before, so nothing is written; {training_hint(into)}"
            if into.exists() and (not into.is_dir() or any(into.iterdir())):
                raise BadInput(
                    f"--output: {into} already holds other files, and no features; name a new or empty folder"
                )
            extract(resolved, dataset, made_of, into, compute_all)
        return f"{into}: {sum(len(getattr(dataset, name)) for name in SPLITS):,} examples; {training_hint(into)}"

    try:
        return from_main_with_help(
            accelerator, write, make_compute(resolved, dataset, model, accelerator.num_processes)
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BadInput("out of memory; set a smaller config.trainer.eval_batch_size") from None
    except OSError as error:
        raise BadInput(f"--output: cannot write {into}: {error.strerror or error}; name another folder") from None


def training_hint(folder: Path) -> str:
    """Return the end of the message that the command prints: the flags with which to train on the features."""
    return f"to train on the features, use --config=features_erm --config.data.folder={folder.absolute()}"


def config_model(config: Experiment, dataset: Dataset, device: torch.device) -> TrainedModel:
    """Return the network of `config` before training: with random weights, or with the pretrained weights it names."""
    torch.manual_seed(config.seed)
    shape = dict(input_shape=dataset.input_shape, vocabulary=dataset.vocabulary, num_classes=dataset.num_classes)
    with MemoryBudget("config.model", available_memory()):
        network = build(MODELS, config.model, architecture=None, **shape)
    return on_device(network, description(config, dataset, network), device)


def run_model(run: str, dataset: Dataset, device: torch.device) -> TrainedModel:
    """Return the network of the finished run `run`, which must have been trained on inputs like those of `dataset`.

    Raises:
        BadInput: the inputs of `run` had another size, normalisation, decoding or tokenizer, or were other columns.
    """
    model = load_run(run)
    about = {key: tuple(value) if isinstance(value, list) else value for key, value in model.about.items()}
    data: dict[str, Any] = {"images of size": dataset.input_shape, "images normalised by": (dataset.mean, dataset.std)}
    trained: dict[str, Any] = {
        "images of size": about["input_shape"],
        "images normalised by": (about["mean"], about["std"]),
    }
    # The preprocessing of a table has the statistics of its data, so it may differ; that of images and texts must not.
    if dataset.preprocessing.get("kind") != "columns":
        data["images decoded by"] = json.loads(json.dumps(dict(dataset.preprocessing)))
        trained["images decoded by"] = about["preprocessing"]
    check_same_inputs("--run", run, model.about["preprocessing"], dataset.preprocessing)
    for kind, value in data.items():
        if json.dumps(value) != json.dumps(trained[kind]):
            raise BadInput(
                f"--run: {run} was trained on {kind} {trained[kind]}, but those of config.data are {value}; both must "
                "be equal; change config.data, or name another run"
            )
    return on_device(model.network, model.about, device)


def on_device(network: nn.Module, about: Mapping[str, Any], device: torch.device) -> TrainedModel:
    """Move `network` to a device, and return it as a `TrainedModel` in evaluation mode.

    Args:
        about: the description of the model, in the form of model.json.
    """
    network = network.to(device, getattr(torch, about["dtype"])).eval().requires_grad_(False)
    return TrainedModel(network, about, device)


def code_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digest of the user's own module that defines a network, in a dictionary to add to `made_of["inputs"]`.

    Return {} if the network is not from a user's module.

    Args:
        section: the config section that names the network.
    """
    file = user_module_file(section["name"])
    return {"code of the network": short_hash(read_bytes(file))} if file else {}


def weights_digest(module: nn.Module) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def check_same(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Raise `BadInput` if the features in `folder` are damaged, or if their store.json has another `made_of`.

    Args:
        made_of: descriptions of the model, weights, inputs and data from which this command computes features.
    """
    before = open_features(folder).description["made_of"]
    changes = []
    if before["weights"] != made_of["weights"]:
        models = describe_section(before["model"]), describe_section(made_of["model"])
        changes.append(f"other network weights (before: {models[0]}; now: {models[1]})")
    changed = [key for key in made_of["inputs"] if before["inputs"].get(key) != made_of["inputs"][key]]
    changes += [f"another {key}" for key in changed]
    changes += differences(before["data"], made_of["data"])
    if changes:
        raise BadInput(f"--output: {folder} holds other features: {'; '.join(changes)}; name another folder")


def extract(
    config: Experiment, dataset: Dataset, made_of: Mapping[str, Any], into: Path, compute_all: ComputeAll
) -> None:
    """Write the features of all splits into a temporary folder, and rename the folder to `into` at the end.

    If an interrupted call with the same `made_of` has left a temporary folder, continue there.

    Args:
        made_of: descriptions of the model, weights, inputs and data, for store.json.
        into: the folder of the complete features.
        compute_all: computes batches of features, as for `feature_batches`.
    """
    splits: list[Split] = [getattr(dataset, name) for name in SPLITS]
    indices, partial = torch.cat([split.indices for split in splits]), partial_folder(into)
    done, array = open_partial(partial, made_of, len(indices))
    progress, checksums = Progress(len(indices), done), np.zeros(len(indices), dtype=np.uint32)
    running = 0  # CRC-32 of all rows that are done
    if array is not None:
        checksums[:done] = [crc(row) for row in array[:done]]
        running = crc(array[:done])
    for first, values in feature_batches(config, dataset, compute_all, done):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise BadInput(
                f"config.model: the features of row {indices[first + row]} of the data are not finite; use other weights, or "
                "config.trainer.mixed_precision='no'"
            )
        if array is None:
            array = allocate(partial, made_of, (len(indices), values.shape[1]), values.dtype)
        assert first == done, "feature_batches leaves out no row, or its features would stay zero"
        done = first + len(values)
        array[first:done] = values
        checksums[first:done] = [crc(row) for row in values]
        running = zlib.crc32(np.ascontiguousarray(values).data, running)
        if progress.report(done):
            array.flush()
            save_progress(partial, made_of, done, running)
    assert array is not None and done == len(array)  # no split of a checked data set is empty
    array.flush()
    close_features(partial, dataset, made_of, checksums)
    (partial / "done.json").unlink()
    if into.exists():
        into.rmdir()  # an empty folder, or the caller would have refused it
    partial.rename(into)
    sync_folder(into.absolute().parent)


def make_compute(
    config: Experiment, dataset: Dataset, model: TrainedModel, processes: int = 1
) -> Callable[[tuple[str, int]], Tensor]:
    """Return a function that computes the features of a batch, from a tuple: the name of a split, and the first row there.

    Args:
        processes: number of processes that compute the batches in turn.
    """
    if model.device.type == "cpu":
        keep_freed_memory()
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    model.network.to(memory_format=layout)  # pyright: ignore[reportCallIssue] (torch's stub lacks this keyword)
    if config.trainer.compile != "no":
        model.network.get_submodule("features").compile()
    half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.trainer.mixed_precision]
    size, on_device = config.trainer.eval_batch_size, dataset.to(model.device, model.dtype)
    readers: dict[str, Callable[[slice], Inputs]] = {}

    def compute(batch: tuple[str, int]) -> Tensor:
        name, start = batch
        split: Split = getattr(on_device, name)
        if name not in readers:  # with several processes, each computes every `processes`-th batch
            starts = range(start, len(split), size * processes)
            readers[name] = batch_reader(split.inputs, [slice(first, first + size) for first in starts])
        with torch.autocast(model.device.type, half) if half else nullcontext():
            return model.features(readers[name](slice(start, start + size)))

    return compute


def feature_batches(
    config: Experiment, dataset: Dataset, compute_all: ComputeAll, done: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield, for each batch, a tuple: the number of its first example, and the (B, D) features.

    The examples of train, val and test are numbered one after another, from 0.

    Args:
        compute_all: function from a list of batches, each the name of a split and a first row, to an iterator over the
            features of each batch.
        done: the number of examples to skip, because their features exist already. The first batch begins there, so
            that no example is left out if `config.trainer.eval_batch_size` has changed since.
    """
    batches, first = {}, 0
    for name in SPLITS:
        length = len(getattr(dataset, name))
        starts = range(max(0, done - first), length, config.trainer.eval_batch_size)
        batches |= {first + start: (name, start) for start in starts}
        first += length
    pending: list[tuple[int, Tensor]] = []
    for batch in zip(batches, compute_all(list(batches.values())), strict=True):
        pending.append(batch)
        if len(pending) == 2:  # the GPU computes the second batch while the first is copied
            yield copy_to_cpu(*pending.pop(0))
    yield from (copy_to_cpu(*last) for last in pending)


def copy_to_cpu(first: int, values: Tensor) -> tuple[int, np.ndarray]:
    """Copy the features `values` of a batch to a (B, D) NumPy array of float32 or float64.

    Return a tuple: `first` (the number of the first example of the batch), unchanged, and the array.
    """
    values = values.flatten(1)
    return first, (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def open_partial(partial: Path, made_of: Mapping[str, Any], rows: int) -> tuple[int, np.memmap | None]:
    """Open the temporary folder of an interrupted call; return the number of finished examples, and the (N, D) array.

    If the folder is missing, damaged or made of something other than `made_of`, remove it, and return 0 and None.

    Args:
        partial: the temporary folder.
        made_of: descriptions of the model, weights, inputs and data.
        rows: N, the number of examples of the data.
    """
    reason = "it holds the features of other data, network weights or preprocessing"
    try:
        state = read_json(partial / "done.json")
        if state.get("made_of") == made_of:
            done, array = state["done"], map_array(partial / "features.npy", "r+")
            if array.ndim == 2 and len(array) == rows and 0 <= done <= rows and crc(array[:done]) == state["crc"]:
                print_safely(f"{partial}: resuming after {done:,} examples", sys.stderr)
                return done, array
            reason = "features.npy is damaged"
    except FileNotFoundError:
        reason = ""
    except (Damaged, OSError, KeyError, TypeError) as error:
        reason = f"damaged ({getattr(error, 'reason', error)})"
    if reason and partial.exists():
        print_safely(f"{partial}: starting anew, because {reason}", sys.stderr)
    shutil.rmtree(partial, ignore_errors=True)
    return 0, None


def save_progress(partial: Path, made_of: Mapping[str, Any], done: int, running: int) -> None:
    """Save how many examples are finished, for `open_partial`.

    Args:
        partial: the temporary folder.
        made_of: descriptions of the model, weights, inputs and data.
        done: the number of finished examples.
        running: CRC-32 of the features of the finished examples.
    """
    state = seal({"made_of": made_of, "done": done, "crc": running})
    write_atomic(partial / "done.json", json.dumps(state).encode())


def allocate(partial: Path, made_of: Mapping[str, Any], shape: tuple[int, int], dtype: np.dtype) -> np.memmap:
    """Make the temporary folder `partial` with a memory-mapped array of the shape (N, D), and return the array.

    All disk space is allocated at once, because a full disk would kill a process that writes to a memory map.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    free = shutil.disk_usage(partial.absolute().parent).free
    if size > free:
        raise BadInput(
            f"--output: the features need {size / 1e6:,.1f} MB, but the disk has {free / 1e6:,.1f} MB free; name a folder on "
            "another disk"
        )
    partial.mkdir()
    array = np.lib.format.open_memmap(partial / "features.npy", mode="w+", dtype=dtype, shape=shape)
    with open(partial / "features.npy", "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    save_progress(partial, made_of, 0, 0)
    return array


class Progress:
    """Progress that is printed on stderr: on a terminal one line that is updated, else a new line every `SAVE_SECONDS`.

    total: the number of examples.
    done: the number of examples that an interrupted call had finished before.
    """

    def __init__(self, total: int, done: int):
        self.total, self.begun, self.started = total, done, time.monotonic()
        self.reported, self.bar = self.started, sys.stderr.isatty()

    def report(self, done: int) -> bool:
        """Print the progress if `SAVE_SECONDS` have passed since the last print, or all examples are done.

        Return whether the progress was printed.

        Args:
            done: the number of finished examples.
        """
        now = time.monotonic()
        if done < self.total and now - self.reported < SAVE_SECONDS:
            return False
        self.reported = now
        rate = (done - self.begun) / max(1e-9, now - self.started)
        line = f"{done:,} of {self.total:,} examples, {rate:,.0f}/s, {duration((self.total - done) / rate)} left"
        ends = not self.bar or done == self.total
        print(f"\r\x1b[K{line}" if self.bar else line, end="\n" if ends else "", file=sys.stderr, flush=True)
        return True
