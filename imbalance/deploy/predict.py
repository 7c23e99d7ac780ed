"""Using what was trained: `imbalance.load(run_directory).predict(images)`, and `imbalance predict` and `export`.

A run that is done leaves `model.json` beside the weights that it selected: architecture, classes, and what was done to
inputs before the model saw them. With those two files a model can be used where its training data is not.
"""

import csv
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.schema import build
from imbalance.data.images.decode import Recipe, decode, pixels_of
from imbalance.data.images.normalise import pixel_normaliser
from imbalance.data.sets.folder import images_in
from imbalance.data.tables.columns import Columns, of_frame, read_columns
from imbalance.data.tables.encoding import transform
from imbalance.data.texts.tokenizers import from_json
from imbalance.data.texts.tokens import of_texts
from imbalance.errors import BadInput
from imbalance.methods.batch import Inputs
from imbalance.methods.heads.registry import in_place_of
from imbalance.models import MODELS
from imbalance.models.artifact import read

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TABLES = (".csv", ".gz", ".tsv", ".txt", ".parquet", ".npz", ".npy")


class Predictions(NamedTuple):
    """Of N examples.

    probabilities: (N, K) float32, the softmax of the logits. They are as well calibrated as the loss left them: one
        that shifts logits by class, or weights examples, shifts them too.
    classes: N names, of the largest probability.
    """

    probabilities: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class TrainedModel:
    """A network with its selected weights, in evaluation mode, and what must be done to its inputs.

    network: from normalised inputs to logits (N, K).
    about: what model.json says.
    """

    network: nn.Module
    about: Mapping[str, Any]
    device: torch.device

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.about["classes"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.about["input_shape"])

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.about["dtype"])

    def predict(self, examples: Any, batch_size: int = 256) -> Predictions:
        """Probabilities and classes.

        Args:
            examples: paths of image files, or one; Pillow images, or one; an array or tensor (N, *input_shape), or one
                example, of uint8 where the model was trained on images and of floats where not, neither of them
                normalised; for a model of columns, a data frame or a mapping of columns; for a model of texts, texts, or
                one, or such a table of them: where it was trained on pairs, tuples of two.
            batch_size: what the device takes at once; it changes the time alone.

        Raises:
            BadInput: an example is not what the model takes.
        """
        parts = [part.numpy() for part in self.batched_probabilities(examples, batch_size)]
        probabilities = np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), dtype=np.float32)
        return Predictions(probabilities, [self.class_names[i] for i in probabilities.argmax(1)])

    def batched_probabilities(self, examples: Any, batch_size: int) -> Iterator[Tensor]:
        """`predict`, batch by batch."""
        for batch in self.batches(examples, batch_size):
            yield self.logits(batch).float().softmax(1).cpu()

    @torch.inference_mode()
    def logits(self, batch: Inputs) -> Tensor:
        """(B, K), on the model's device, of inputs as its data set had them (`inputs` of `imbalance.data.Split`)."""
        return self.network(self.normalised(batch))

    @torch.inference_mode()
    def features(self, batch: Inputs) -> Tensor:
        """(B, D), what the last layer sees of them."""
        return self.network.features(self.normalised(batch))

    def normalised(self, batch: Inputs) -> Inputs:
        """What the network takes, on its device."""
        if isinstance(batch, Mapping):
            return {name: tensor.to(self.device) for name, tensor in batch.items()}
        batch = batch.to(self.device)
        if not self.about["uint8"]:
            return batch.to(self.dtype)
        return pixel_normaliser(self.about["mean"], self.about["std"], self.device, self.dtype)(batch.contiguous())

    def batches(self, examples: Any, size: int) -> Iterator[Inputs]:
        """`examples` as the model's data set had its own, on the CPU."""
        if self.about["preprocessing"].get("kind") == "texts":
            tokens = of_texts(self.texts(examples), self.tokenizer)
            yield from (tokens[start : start + size] for start in range(0, len(tokens), size))
            return
        if isinstance(examples, str | Path) or hasattr(examples, "getbands"):
            examples = [examples]
        if isinstance(examples, Columns | Mapping) or hasattr(examples, "columns") or hasattr(examples, "column_names"):
            yield from self.of_columns(examples).split(size)
        elif isinstance(examples, Sequence) and not isinstance(examples, Tensor | np.ndarray):
            for start in range(0, len(examples), size):
                yield torch.from_numpy(np.stack([self.pixels(example) for example in examples[start : start + size]]))
        else:
            yield from self.of_array(examples).split(size)

    @functools.cached_property
    def tokenizer(self) -> "Tokenizer":
        """That of a model of texts."""
        return from_json(self.about["preprocessing"]["tokenizer"])

    def texts(self, examples: Any) -> list[str] | list[tuple[str, str]]:
        """Texts, or pairs of them, of what `predict` is given."""
        names = self.about["preprocessing"]["columns"]
        if isinstance(examples, Columns | Mapping) or hasattr(examples, "columns") or hasattr(examples, "column_names"):
            columns = examples if isinstance(examples, Columns) else of_frame(examples)
            found = [columns.text(name).tolist() for name in names]
            return found[0] if len(names) == 1 else list(zip(*found))
        one = isinstance(examples, str) or (len(names) == 2 and isinstance(examples, tuple))
        examples = [examples] if one else list(examples)
        for row, example in enumerate(examples):
            parts = (example,) if len(names) == 1 else example
            if len(parts) != len(names) or not all(isinstance(part, str) for part in parts):
                raise BadInput(f"example {row} is {type(example).__name__}; this model takes {self.wanted()}")
        return examples if len(names) == 1 else [tuple(pair) for pair in examples]

    def of_columns(self, frame: Any) -> Tensor:
        """(N, D) of a data frame, a mapping of columns, or what `read_columns` makes of a file."""
        preprocessing = self.about["preprocessing"]
        if preprocessing.get("kind") != "columns":
            raise BadInput(f"a table given; this model takes {self.wanted()}")
        columns = frame if isinstance(frame, Columns) else of_frame(frame)
        return torch.from_numpy(transform(columns, preprocessing["features"]))

    def of_array(self, examples: Any) -> Tensor:
        """(N, …) of such an array, or of one example."""
        try:
            array = torch.as_tensor(examples)
        except (TypeError, ValueError, RuntimeError):
            kind = getattr(examples, "dtype", type(examples).__name__)
            raise BadInput(f"{kind} given; this model takes {self.wanted()}") from None
        array = array[None] if tuple(array.shape) == self.input_shape else array
        if tuple(array.shape[1:]) != self.input_shape or (array.dtype == torch.uint8) != self.about["uint8"]:
            kind = str(array.dtype).removeprefix("torch.")
            raise BadInput(f"an array of {kind} of shape {tuple(array.shape)} given; this model takes {self.wanted()}")
        bad = ~array.isfinite().flatten(1).all(1) if array.is_floating_point() else array.new_zeros(0)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise BadInput(f"row {row}: a value is not finite; the probabilities of that example would mean nothing")
        return array

    def pixels(self, example: Any) -> np.ndarray:
        """(C, H, W) uint8 of an image file or a Pillow image, decoded, resized and cropped as in training."""
        is_image = hasattr(example, "getbands")
        name = "image" if is_image else str(example)
        if not is_image and not isinstance(example, str | Path):
            raise BadInput(f"{type(example).__name__} given; this model takes {self.wanted()}")
        preprocessing = self.about["preprocessing"]
        if not self.about["uint8"]:
            raise BadInput(f"{name}: no image goes into this model; it takes {self.wanted()}")
        mode = preprocessing.get("mode", "L" if self.input_shape[0] == 1 else "RGB")
        recipe = Recipe(mode, tuple(map(tuple, preprocessing.get("steps", ()))))
        try:
            pixels = pixels_of(example, recipe) if is_image else decode(example, recipe)
        except ValueError as error:
            raise BadInput(f"{name}: {error}") from None
        if pixels.shape != self.input_shape:  # only where the data set had arrays, and no recipe
            raise BadInput(
                f"{name}: of {size_of(pixels.shape)}; this model takes images of {size_of(self.input_shape)}"
            )
        return pixels

    def wanted(self) -> str:
        """What `predict` takes, for messages."""
        kind = self.about["preprocessing"].get("kind")
        if kind == "texts":
            names = self.about["preprocessing"]["columns"]
            what = "texts" if len(names) == 1 else "pairs of texts"
            return f"{what}, or tables with {'a column' if len(names) == 1 else 'columns'} {', '.join(names)}"
        if kind == "columns":
            features = self.about["preprocessing"]["features"]
            names = [column["column"] for column in (*features["numeric"], *features["categorical"])]
            return f"tables with columns {', '.join(names)}"
        arrays = (
            f"arrays (N, {', '.join(map(str, self.input_shape))}) of {'uint8' if self.about['uint8'] else 'floats'}"
        )
        return f"image files or {arrays}" if self.about["uint8"] else arrays

    def export(self, path: str | Path) -> None:
        """Write the model for other programs, and check what was written; see `imbalance.deploy.export`."""
        from imbalance.deploy.export import export

        export(self, Path(path))


def size_of(shape: Sequence[int]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def load(run_directory: str | Path, device: str | torch.device | None = None) -> TrainedModel:
    """The model that a run selected, from its directory alone.

    A model of a module of one's own is made by the copy of that module in the run directory, which is run: load such
    directories only of people whose code you would run.

    Args:
        run_directory: of a run that is done.
        device: by default a GPU if there is one.

    Raises:
        BadInput: there is no finished run, or its files are damaged.
    """
    about, state = read(Path(run_directory))
    section = dict(about["model"]) | ({"pretrained": ""} if "pretrained" in about["model"] else {})
    shape = {"input_shape": about["input_shape"], "vocabulary": about.get("vocabulary", 0)}
    network = build(MODELS, section, num_classes=len(about["classes"]), **shape)
    if "head" in about:  # of a version that had others than linear layers
        network.head = in_place_of(network.head, about["head"])
    try:
        # A method may have trained more than it evaluates, such as a second network.
        network.load_state_dict({key: value for key, value in state.items() if key in network.state_dict()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{run_directory}: the weights are not of the model of model.json ({reason})") from None
    device = usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(device, getattr(torch, about["dtype"])).eval().requires_grad_(False)
    return TrainedModel(network, about, device)


def usable(device: str | torch.device) -> torch.device:
    """The device, if something can be computed on it here."""
    try:
        torch.ones(1, device=device).item()
    except Exception as error:  # torch's own: of many kinds
        reason = str(error).splitlines()[0][:100]
        raise BadInput(f"device: {str(device)!r} given, which cannot be used here ({reason}); cpu can") from None
    return torch.device(device)


# Commands


def predict_files(*, run: str, files: Sequence[str], output: str, batch_size: int, device: str | None) -> str:
    """`imbalance predict RUN FILES… --output=predictions.csv`: what a trained model makes of files."""
    into = Path(output)
    if into.is_dir() or not into.absolute().parent.is_dir():
        raise BadInput(f"--output: {into} is {'a folder' if into.is_dir() else 'in a folder that is not there'}")
    if "" in files:  # which would be the current folder
        raise BadInput("FILE: '' given; name image files, folders of them, or tables")
    model = load(run, device)
    sources = list(found_files([Path(file) for file in files], model))
    temporary = into.with_name(into.name + ".tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as text:
            count = write_predictions(csv.writer(text), model, sources, batch_size)
        temporary.replace(into)
    except OSError as error:
        raise BadInput(f"--output: cannot write {into}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return f"{into}: {count:,} predictions"


def found_files(files: Sequence[Path], model: TrainedModel) -> Iterator[tuple[Path | None, Any]]:
    """(None, paths of images) for all images, then (file, its rows) for each table."""
    images, tables = [], []
    for file in files:
        if not file.exists():
            raise BadInput(f"{file}: no such file")
        inside = images_in(file) if file.is_dir() else []
        if inside:
            images += inside
        else:
            (tables if file.is_dir() or file.suffix.lower() in TABLES else images).append(file)
    if images and model.about["preprocessing"].get("kind") == "texts":
        raise BadInput(f"{images[0]}: this model takes {model.wanted()}: files that end in {', '.join(TABLES)}")
    if images:
        yield None, images
    for file in tables:
        if model.about["preprocessing"].get("kind") in ("columns", "texts"):
            yield file, read_columns(file, model.about["preprocessing"]["delimiter"])
        else:
            columns = read_columns(file)
            if len(columns.values) != 1:
                raise BadInput(f"{file}: {len(columns.values)} arrays; this model takes one, of {model.wanted()}")
            (array,) = columns.values.values()
            if not array.ndim:
                raise BadInput(f"{file}: a single number; this model takes {model.wanted()}")
            yield file, array


def write_predictions(
    writer: Any, model: TrainedModel, sources: Sequence[tuple[Path | None, Any]], batch_size: int
) -> int:
    """A line an example; returns how many."""
    writer.writerow(["file", "row", "class", *model.class_names])
    total, done, bar = sum(len(examples) for _, examples in sources), 0, sys.stderr.isatty()
    for file, examples in sources:
        row = 0
        for probabilities in model.batched_probabilities(examples, batch_size):
            for values in probabilities.tolist():
                name = model.class_names[values.index(max(values))]
                where = (file, row) if file else (examples[row], "")
                writer.writerow([*where, name, *(f"{value:.6g}" for value in values)])
                row += 1
            done += len(probabilities)
            if bar:
                print(f"\r\x1b[K{done:,} of {total:,}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    return done


def export_file(*, run: str, file: str) -> str:
    """`imbalance export RUN FILE`: a trained model as .pt2 (torch.export), .onnx, or .safetensors (weights alone)."""
    load(run, "cpu").export(file)
    return f"{file}: {Path(file).stat().st_size:,} bytes, with the outputs of {run}"
