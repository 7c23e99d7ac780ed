"""Load the model of a finished run and predict with it: `imbalance.load(run_directory).predict(images)`.

A finished run saves `model.json` beside the weights of the selected epoch. The file has the architecture, the classes, and
the preprocessing of inputs, so that a model can be used without its training data.
"""

import copy
import functools
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from imbalance.config.schema import build, short_repr
from imbalance.data.images.decode import Recipe, decode, image_pixels, loaded
from imbalance.data.images.normalise import pixel_normaliser
from imbalance.data.sets.image_folder import images_in, unread_note
from imbalance.data.sets.text import is_blank, text_columns
from imbalance.data.tables.columns import NAMELESS, Columns, array_columns, frame_columns, is_table, read_columns
from imbalance.data.tables.encoding import check_table, transform, transform_parts, unfamiliar_values
from imbalance.data.tables.values import check_unmasked
from imbalance.data.texts.tokenizers import from_json
from imbalance.data.texts.tokens import CHUNK, Texts, tokenise
from imbalance.errors import BadInput
from imbalance.methods.batch import Inputs
from imbalance.methods.heads.last_layer import linear
from imbalance.methods.heads.registry import untrained_head
from imbalance.methods.prior import class_shares, em_prior, log_ratio
from imbalance.models import MODELS
from imbalance.models.artifact import read
from imbalance.utils.arrays import as_floats

if TYPE_CHECKING:
    from tokenizers import Tokenizer


SURROGATE = re.compile("[\ud800-\udfff]")
Prior = str | Sequence[float] | np.ndarray | Tensor  # class shares of a population, see `TrainedModel.predict`


class Predictions(NamedTuple):
    """Predictions for N examples.

    probabilities: (N, K) float32. Without the argument `prior` of `predict` they are the softmax of the logits. If the
        model was trained with importance weights, with a balancing sampler, or with a loss that shifts logits by class,
        these probabilities do not follow the class frequencies of the training data.
    classes: for each example, the name of the class with the largest probability.
    """

    probabilities: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network in evaluation mode, with the weights of the selected epoch and the preprocessing of inputs.

    network: the network, which takes normalised inputs and returns logits (N, K).
    about: the content of model.json.
    device: the device of the network.
    """

    network: nn.Module
    about: Mapping[str, Any]
    device: torch.device

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return tuple(self.about["classes"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.about["input_shape"])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network weights."""
        return getattr(torch, self.about["dtype"])

    def predict(self, examples: Any, batch_size: int = 256, prior: Prior | None = None) -> Predictions:
        """Predict the class and the class probabilities of each example.

        Args:
            examples: depends on the training data of the model:

                - images: paths of image files, the path of a folder of such files, or Pillow images; or a uint8 array or
                  tensor (N, *input_shape);
                - arrays: a float array or tensor (N, *input_shape) that is not normalised;
                - columns: a data frame, a structured array, or a mapping from names to columns; an array also if the
                  model takes a single column, which has numbers;
                - texts: texts, or tuples of two for pairs of texts; or a data frame or mapping with the columns of
                  texts.

                You can also pass a single path, image or text, or an array of shape `input_shape`.
            batch_size: the number of examples on the device at a time; it changes only speed and memory.
            prior: the class shares of the population that the examples come from; see `imbalance.methods.prior`. None
                for the softmax of the logits; "natural" for the shares of the training set; "uniform" for equal shares;
                a sequence with a share for each class; or "estimated" for shares that `em_prior` estimates from the
                examples, which must then be a sample of the population.

        Raises:
            BadInput: the model cannot take an example, or `prior` is given and the model's probabilities have no known
                prior.

        Warns:
            UserWarning: a column has a category that no training example had, or a missing value although none was
                missing in training; or a text is empty.
        """
        self.check_prior(prior)
        kind = self.about["preprocessing"].get("kind")
        # The checks below read the examples too, and an iterator can be read once only.
        examples = self.as_table(list(examples) if isinstance(examples, Iterator) else examples)
        if kind == "columns" and is_table(examples):
            examples = frame_columns(examples)
            for line in self.unfamiliar_values(examples):
                warnings.warn(line, stacklevel=2)
        elif kind == "texts":
            for line in self.empty_texts(examples):
                warnings.warn(line, stacklevel=2)
        parts = list(self.batched_logits(examples, batch_size))
        logits = torch.cat(parts) if parts else torch.empty(0, len(self.class_names))
        shares = self.estimated(logits) if is_estimated(prior) else prior
        probabilities = at_prior(logits, self.prior_shift(shares))
        return Predictions(probabilities.numpy(), [self.class_names[i] for i in probabilities.argmax(1).tolist()])

    def estimated_shares(self, examples: Any, batch_size: int = 256) -> np.ndarray:
        """Return the (K,) class shares that `predict` uses for the examples if `prior` is "estimated".

        Args:
            examples, batch_size: as in `predict`.

        Raises:
            BadInput: there are no examples, or the prior of the model's probabilities is not known.
        """
        self.check_prior("estimated")
        return self.estimated(
            torch.cat([torch.empty(0, len(self.class_names)), *self.batched_logits(examples, batch_size)])
        )

    def batched_logits(self, examples: Any, batch_size: int) -> Iterator[Tensor]:
        """Yield, batch by batch, the (B, K) float32 logits of the `examples` that `predict` takes; they are on the CPU.

        Raises:
            BadInput: a value is too large for the type in which the model computes.
        """
        start = 0
        for batch in self.batches(examples, batch_size):
            logits = self.logits(batch).float().cpu()
            finite = logits.softmax(1).isfinite().all(1)
            if not finite.all():
                row = start + int((~finite).nonzero()[0])
                raise BadInput(
                    f"row {row}: a value is too large for the model, which computes in {self.about['dtype']}; remove or "
                    "replace it"
                )
            start += len(logits)
            yield logits

    def check_prior(self, prior: Prior | None, names: str = "'natural', 'uniform', 'estimated'") -> None:
        """Raise `BadInput` if `prior` is invalid, or if it is not None and the prior of the model's probabilities is unknown.

        Args:
            names: the valid names of a prior in the caller, for messages.
        """
        if prior is None:
            return
        known = self.known_prior(prior)
        if not is_estimated(prior):  # check the numbers before anything is computed
            class_shares(prior, torch.tensor(known["natural"]), names)
            self.prior_shift(prior)

    def known_prior(self, prior: Prior) -> Mapping[str, list[float]]:
        """Return the class shares of the training set, "natural", and those that the model's probabilities assume, "model".

        Args:
            prior: the prior that the caller was given, for the message.

        Raises:
            BadInput: the prior of the model's probabilities is not known.
        """
        entry = self.about.get("prior")
        if entry is None or entry["model"] is None:
            reason = "its model.json is of an older version; train it again" if entry is None else entry["reason"]
            raise BadInput(
                f"prior: {prior!r} given, and the prior of this model's probabilities is not known: {reason}; leave the prior out"
            )
        return entry

    def prior_shift(self, prior: Prior | None) -> Tensor | None:
        """Return the (K,) float64 numbers to add to the logits for class shares `prior`; None if `prior` is None.

        Args:
            prior: as in `predict`, but not "estimated".

        Raises:
            BadInput: `prior` is invalid, or the prior of the model's probabilities is not known.
        """
        if prior is None:
            return None
        known = self.known_prior(prior)
        natural, model = (torch.tensor(known[key], dtype=torch.float64) for key in ("natural", "model"))
        return log_ratio(class_shares(prior, natural), model)

    def estimated(self, logits: Tensor) -> np.ndarray:
        """Return the (K,) class shares of a population, estimated by `em_prior` from the (N, K) logits of a sample.

        Raises:
            BadInput: `logits` have another shape, or the prior of the model's probabilities is not known.
        """
        known, values = self.known_prior("estimated"), torch.from_numpy(as_floats("logits", logits, 2))
        if values.shape[1] != len(self.class_names):
            raise BadInput(
                f"logits: {values.shape[1]} columns given; give {len(self.class_names)}, a column for each class"
            )
        return em_prior(values.double().softmax(1).numpy(), known["model"])

    def at_prior(self, prior: Prior) -> "TrainedModel":
        """Return a copy of the model whose logits give, by softmax, the probabilities for the class shares `prior`.

        Args:
            prior: as in `predict`, but not "estimated".

        Raises:
            BadInput: `prior` is "estimated", has a share of 0, or the prior of the model's probabilities is not known.
        """
        if is_estimated(prior):
            raise BadInput("prior: 'estimated' given, which needs examples; give the class shares as numbers")
        self.check_prior(prior, "'natural', 'uniform'")
        shift, head = self.prior_shift(prior), self.network.get_submodule("head")
        if shift is None:
            raise BadInput("prior: None given; give 'natural', 'uniform' or the class shares as numbers")
        if not shift.isfinite().all():
            raise BadInput(f"prior: {prior!r} given; every class that was trained on needs a share above 0")
        if type(head) is not nn.Linear:
            raise BadInput(
                f"prior: {prior!r} given; it changes the bias of the last layer, and this model has none; leave the prior out"
            )
        network = copy.deepcopy(self.network)
        network.head = linear(head.weight, head.bias + shift.to(head.bias)).requires_grad_(False)
        shares = class_shares(prior, torch.tensor(self.about["prior"]["natural"])).tolist()
        return replace(self, network=network, about={**self.about, "prior": {**self.about["prior"], "model": shares}})

    @torch.inference_mode()
    def logits(self, batch: Inputs) -> Tensor:
        """Return the (B, K) logits on the model's device.

        Args:
            batch: inputs before normalisation, as in `inputs` of `imbalance.data.Split`.
        """
        return self.network(self.normalised(batch))

    @torch.inference_mode()
    def features(self, batch: Inputs) -> Tensor:
        """Return the (B, D) features that the last layer takes; `batch` is as in `logits`."""
        return self.network.get_submodule("features")(self.normalised(batch))

    def normalised(self, batch: Inputs) -> Inputs:
        """Return `batch` on the device of the model: images normalised, floats in the type of the network weights.

        Raises:
            BadInput: `batch` is no tensor or array of inputs, or an input has another shape or type than in training.
        """
        if isinstance(batch, Mapping) and self.about.get("vocabulary"):
            return {name: tensor.to(self.device) for name, tensor in batch.items()}
        if self.about.get("vocabulary") or is_table(batch):
            raise BadInput(
                f"{type(batch).__name__} given; give a batch that `batches` yields, or pass the examples to `predict`"
            )
        if not isinstance(batch, Tensor):
            batch = self.as_array(batch)
        if tuple(batch.shape[1:]) != self.input_shape or (batch.dtype == torch.uint8) != self.about["uint8"]:
            raise BadInput(
                f"inputs of {str(batch.dtype).removeprefix('torch.')} of shape {tuple(batch.shape)} given; this network takes "
                f"{'uint8' if self.about['uint8'] else 'floats'} of shape (N, {', '.join(map(str, self.input_shape))})"
            )
        batch = batch.to(self.device)
        if not self.about["uint8"]:
            return batch.to(self.dtype)
        return pixel_normaliser(self.about["mean"], self.about["std"], self.device, self.dtype)(batch.contiguous())

    def batches(self, examples: Any, size: int) -> Iterator[Inputs]:
        """Split the `examples` that `predict` takes into batches of inputs on the CPU, for `logits`.

        Args:
            size: the number of examples in a batch.
        """
        if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= size < 2**31:
            raise BadInput(f"batch_size: {short_repr(size)} given; an integer from 1 on is needed")
        if self.about["preprocessing"].get("kind") == "texts":
            texts = self.as_texts(examples)
            at_a_time = size * ceil(CHUNK / size)  # whole batches, so that no batch has other padding
            for first in range(0, len(texts), at_a_time):
                tokens = tokenise(texts[first : first + at_a_time], self.tokenizer)
                yield from (tokens[start : start + size] for start in range(0, len(tokens), size))
            return
        examples = self.as_table(examples)
        if isinstance(examples, str | Path) and os.path.isdir(examples):  # noqa: PTH112 (a Path raises if too long)
            folder, unread = Path(examples), []
            examples = images_in(folder, unread)
            for line in unread_note(folder, unread):
                warnings.warn(line, stacklevel=2)
            if not examples:
                raise BadInput(f"{folder}: a folder without image files; this model takes {self.expected()}")
        if isinstance(examples, str | Path) or hasattr(examples, "getbands"):
            examples = [examples]
        examples = as_list(examples) if self.about["uint8"] else examples
        if isinstance(examples, Columns):
            for part in self.encoded_parts(examples):
                yield from part.split(size)
        elif is_table(examples):
            yield from self.encode_columns(examples).split(size)
        elif isinstance(examples, Sequence) and not isinstance(examples, Tensor | np.ndarray):
            for start in range(0, len(examples), size):
                yield torch.from_numpy(np.stack([self.pixels(example) for example in examples[start : start + size]]))
        else:
            yield from self.as_array(examples).split(size)

    @functools.cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of a model of texts."""
        return from_json(self.about["preprocessing"]["tokenizer"])

    def as_texts(self, examples: Any) -> Texts:
        """Convert `examples`, an argument of `predict`, to a sequence of texts or of pairs of texts."""
        if self.about["preprocessing"].get("kind") != "texts":
            raise BadInput(f"texts given; this model takes {self.expected()}")
        names = self.about["preprocessing"]["columns"]
        if is_table(examples):
            return checked_texts(text_columns(frame_columns(examples), names, any_type=True))
        is_single = isinstance(examples, str) or (len(names) == 2 and isinstance(examples, tuple))
        if isinstance(examples, bytes) or not (is_single or isinstance(examples, Iterable)):
            raise BadInput(f"{type(examples).__name__} given; this model takes {self.expected()}")
        examples = [examples] if is_single else list(examples)
        for row, example in enumerate(examples):
            parts = (example,) if len(names) == 1 else example if isinstance(example, list | tuple) else ()
            if len(parts) != len(names) or not all(isinstance(part, str) for part in parts):
                raise BadInput(f"example {row} is {type(example).__name__}; this model takes {self.expected()}")
        return checked_texts(examples if len(names) == 1 else [(first, second) for first, second in examples])

    def empty_texts(self, examples: Any) -> list[str]:
        """Return a list with one warning if texts in `examples` are empty; else an empty list.

        Args:
            examples: as in `predict`.
        """
        texts = self.as_texts(examples)
        rows = [row for row, text in enumerate(texts) if is_blank(text)]
        if not rows:
            return []
        return [
            f"{len(rows):,} of {len(texts):,} rows have an empty text (row {rows[0]} is the first); the prediction for an "
            "empty text depends on no word"
        ]

    def encode_columns(self, frame: Any) -> Tensor:
        """Turn N rows of a table into (N, D) inputs of the model, with the preprocessing of the training data.

        Args:
            frame: a data frame, a mapping from names to columns, or `Columns`.
        """
        encoding = self.column_encoding()
        return torch.from_numpy(transform(frame_columns(frame), encoding))

    def encoded_parts(self, columns: Columns) -> Iterator[Tensor]:
        """Yield the result of `encode_columns` for some rows at a time, so that a table can be larger than the memory."""
        encoding, columns = self.column_encoding(), frame_columns(columns)
        check_table(columns, encoding)
        yield from (torch.from_numpy(part) for _, part in transform_parts(columns, encoding))

    def unfamiliar_values(self, columns: Columns) -> list[str]:
        """Return a warning for each column with values that no training example had, such as new categories."""
        return unfamiliar_values(frame_columns(columns), self.column_encoding())

    def read_columns(self, file: str | Path) -> Columns:
        """Read a table from a CSV, Parquet or Arrow file, with the types that the columns had in the training data."""
        if not isinstance(file, str | os.PathLike):
            raise BadInput(f"file: {short_repr(file)} given; the path of a file is needed")
        file, preprocessing = Path(file), self.about["preprocessing"]
        if preprocessing.get("kind") == "texts":
            columns = read_columns(file, preprocessing["delimiter"], preprocessing["columns"])
            return replace(columns, is_training_data=False)
        encoding = self.column_encoding()
        categorical = [column["column"] for column in encoding["categorical"]]
        columns = read_columns(file, preprocessing["delimiter"], categorical, encoding["missing"])
        columns = replace(columns, is_training_data=False)
        if file.suffix.lower() == ".npy" and list(columns.values) == [NAMELESS]:
            return array_columns(
                file, {name: np.asarray(array) for name, array in self.as_table(columns[NAMELESS]).items()}
            )
        return columns

    def column_encoding(self) -> dict[str, Any]:
        """Return the encoding of the columns of a table, see `imbalance.data.tables.encoding`.

        Raises:
            BadInput: the model takes no tables.
        """
        preprocessing = self.about["preprocessing"]
        if preprocessing.get("kind") != "columns":
            raise BadInput(f"a table given; this model takes {self.expected()}")
        return preprocessing["features"]

    def as_table(self, examples: Any) -> Any:
        """Return an array of examples as a mapping from names to columns if the model takes tables; else `examples`.

        A plain array is the values of the model's column if the model has one column, which has numbers. So an array is
        encoded as in training, and is never taken for columns that are encoded already.

        Raises:
            BadInput: the model takes other columns than the values of a plain array.
        """
        is_array = isinstance(examples, np.ndarray | Tensor)
        if self.about["preprocessing"].get("kind") != "columns" or not is_array or is_table(examples):
            return examples
        if isinstance(examples, np.ndarray) and examples.dtype.names:
            return {name: examples[name] for name in examples.dtype.names}
        array = examples.detach().cpu().numpy() if isinstance(examples, Tensor) else examples
        encoding = self.column_encoding()
        size = len(encoding["numeric"][0]["mean"]) if encoding["numeric"] else 0  # the numbers of an example
        fits = array.ndim <= 2 and (array.shape[-1:] == (size,) or array.ndim == size == 1)
        if len(encoding["numeric"]) != 1 or encoding["categorical"] or not fits:
            raise BadInput(
                f"an array of {array.dtype} of shape {array.shape} given; this model takes {self.expected()}"
            )
        return {encoding["numeric"][0]["column"]: array.reshape(-1) if size == 1 else array.reshape(-1, size)}

    def as_array(self, examples: Any) -> Tensor:
        """Check an array or tensor of examples, or of a single example, and return it as a tensor (N, …)."""
        if isinstance(examples, np.ndarray) and examples.dtype.kind in "biuf":
            check_unmasked(examples)
            # torch takes no negative strides, and no bytes in another order than that of the machine.
            examples = np.ascontiguousarray(examples, examples.dtype.newbyteorder("="))
            if not examples.flags.writeable:  # torch would warn
                examples = examples.copy()
        try:
            array = torch.as_tensor(examples)
        except (TypeError, ValueError, RuntimeError):
            array = None
        if array is None or array.is_complex() or array.layout != torch.strided:
            kind = getattr(examples, "dtype", type(examples).__name__)
            raise BadInput(f"{kind} given; this model takes {self.expected()}")
        array = array[None] if tuple(array.shape) == self.input_shape else array
        if tuple(array.shape[1:]) != self.input_shape or (array.dtype == torch.uint8) != self.about["uint8"]:
            kind = str(array.dtype).removeprefix("torch.")
            raise BadInput(
                f"an array of {kind} of shape {tuple(array.shape)} given; this model takes {self.expected()}"
            )
        if self.about["uint8"]:
            return array
        array = array.to(self.dtype)  # 1e300 is inf in float32
        bad = ~array.isfinite().flatten(1).all(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise BadInput(
                f"row {row}: a value is not finite, or too large for {self.about['dtype']}; remove or replace it"
            )
        return array

    def pixels(self, example: Any) -> np.ndarray:
        """Return the (C, H, W) uint8 pixels of an image file or a Pillow image, resized and cropped as in training."""
        is_image = hasattr(example, "getbands")
        name = "image" if is_image else str(example)
        if not is_image and not isinstance(example, str | Path):
            raise BadInput(f"{type(example).__name__} given; this model takes {self.expected()}")
        preprocessing = self.about["preprocessing"]
        if not self.about["uint8"]:
            kind = "an image" if is_image else "the name of a file"
            raise BadInput(f"{name}: {kind} given; this model takes {self.expected()}")
        mode = preprocessing.get("mode", "L" if self.input_shape[0] == 1 else "RGB")
        # A model that was trained on arrays has no steps; convert every image mode, because no config value refuses one.
        recipe = Recipe(mode, tuple((step, size) for step, size in preprocessing.get("steps", [("convert", 0)])))
        try:
            is_file = isinstance(example, str | Path)
            pixels = decode(example, recipe) if is_file else image_pixels(loaded(example), recipe)
        except ValueError as error:
            raise BadInput(f"{name}: {error}") from None
        # Possible only after training on arrays, because then there is no recipe to resize by
        if pixels.shape != self.input_shape:
            raise BadInput(
                f"{name}: {describe_shape(pixels.shape)}; this model takes images of {describe_shape(self.input_shape)}"
            )
        return pixels

    def expected(self) -> str:
        """Return a description of the examples that `predict` takes, for messages."""
        kind = self.about["preprocessing"].get("kind")
        if kind == "texts":
            names = self.about["preprocessing"]["columns"]
            texts = "texts" if len(names) == 1 else "pairs of texts"
            return f"{texts}, or tables with {'a column' if len(names) == 1 else 'columns'} {', '.join(names)}"
        if kind == "columns":
            features = self.about["preprocessing"]["features"]
            names = [column["column"] for column in (*features["numeric"], *features["categorical"])]
            return f"tables with columns {', '.join(names)}"
        arrays = (
            f"arrays (N, {', '.join(map(str, self.input_shape))}) of {'uint8' if self.about['uint8'] else 'floats'}"
        )
        return f"image files or {arrays}" if self.about["uint8"] else arrays

    def export(self, path: str | Path, prior: Prior | None = None) -> None:
        """Write the model to the file `path` (.pt2, .onnx or .safetensors), for other programs, and check the file.

        See `imbalance.deploy.export`.

        Args:
            prior: class shares, as in `predict` but without "estimated"; the softmax of the exported model's logits is
                for these shares. None for the logits of this model.
        """
        from imbalance.deploy.export import export

        if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
            raise BadInput(f"path: {short_repr(path)} given; the path of a file is needed")
        export(self if prior is None else self.at_prior(prior), Path(path))


def is_estimated(prior: Prior | None) -> bool:
    """Return whether `prior` is "estimated", also for a NumPy array, which `==` compares element by element."""
    return isinstance(prior, str) and prior == "estimated"


def at_prior(logits: Tensor, shift: Tensor | None) -> Tensor:
    """Return the (N, K) float32 softmax of the logits plus `shift`.

    Args:
        shift: result of `TrainedModel.prior_shift`; None for none.
    """
    return logits.softmax(1) if shift is None else (logits + shift).softmax(1).float()


def checked_texts(texts: Texts) -> Texts:
    """Return `texts`, or raise `BadInput` if one has half of a surrogate pair, which no tokenizer takes."""
    for row, text in enumerate(texts):
        if SURROGATE.search(text if isinstance(text, str) else "".join(text)):
            raise BadInput(f"example {row} has half of a surrogate pair, which is no character; remove or replace it")
    return texts


def as_list(examples: Any) -> Any:
    """Return a column of file names or images, such as a Series of pandas, as a list; return other examples unchanged."""
    to_list = next((name for name in ("to_pylist", "to_list", "tolist") if hasattr(examples, name)), None)
    if to_list is None or isinstance(examples, Tensor) or is_table(examples):
        return examples
    array = np.asarray(examples)
    return getattr(examples, to_list)() if array.ndim == 1 and array.dtype.kind in "OUT" else examples


def describe_shape(shape: Sequence[int]) -> str:
    """Describe the shape (C, H, W) of an image in words."""
    return f"{shape[2]}×{shape[1]} pixels in {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def load(run_directory: str | Path, device: str | torch.device | None = None) -> TrainedModel:
    """Load the trained model of a finished run, with the weights of the selected epoch.

    If the model is defined in a module of your own, this call executes the copy of the module in the run directory. So load
    run directories only from people whose code you would run.

    Args:
        run_directory: the directory of a finished run.
        device: the device of the model; by default a GPU if there is one.

    Raises:
        BadInput: the directory has no finished run, or its files are damaged.
    """
    if not isinstance(run_directory, str | os.PathLike) or "\0" in os.fspath(run_directory):
        raise BadInput(f"run_directory: {short_repr(run_directory)} given; the path of a run directory is needed")
    about, state = read(Path(run_directory))
    try:
        network = build_network(about, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{run_directory}: the weights do not fit the model that model.json describes ({reason}); restore model.json and checkpoints/selected.pt of the same run"
        ) from None
    target = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(target).eval().requires_grad_(False)
    return TrainedModel(network, about, target)


def build_network(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Build the network that the content `about` of model.json describes, with the weights `state`.

    Raises:
        RuntimeError: the weights do not fit the network.
    """
    section = dict(about["model"]) | ({"pretrained": ""} if "pretrained" in about["model"] else {})
    shape = {"input_shape": about["input_shape"], "vocabulary": about.get("vocabulary", 0)}
    network = build(MODELS, section, num_classes=len(about["classes"]), **shape)
    if "head" in about:  # missing in a model.json of older versions, which had only linear heads
        network.head = untrained_head(cast("nn.Linear", network.head), about["head"])
    network = network.to(getattr(torch, about["dtype"]))  # first, or float64 weights would be rounded to float32
    # `state` may have more weights than the network, because a method may train a second network, too.
    network.load_state_dict({key: value for key, value in state.items() if key in network.state_dict()})
    return network


def usable_device(device: str | torch.device) -> torch.device:
    """Return `device` as a `torch.device`; raise `BadInput` if this machine cannot compute on it."""
    try:
        torch.ones(1, device=device).item()
    except Exception as error:  # torch raises many kinds of exceptions here
        reason = str(error).splitlines()[0][:100]
        raise BadInput(f"device: {str(device)!r} given, which this machine cannot use ({reason}); use 'cpu'") from None
    return torch.device(device)
