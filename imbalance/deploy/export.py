"""A trained model for other programs: torch.export, ONNX, or its weights as safetensors, each checked once written."""

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from imbalance.errors import BadInput
from imbalance.methods.batch import Inputs

if TYPE_CHECKING:
    from imbalance.deploy.predict import TrainedModel

TOLERANCE = 1e-4  # of the largest logit: what another order of summation may change


class Exported(nn.Module):
    """From inputs as the data set had them, uint8 images or floats, to logits."""

    def __init__(self, model: "TrainedModel"):
        super().__init__()
        self.network, self.dtype, self.pixels = model.network, model.dtype, model.about["uint8"]
        if self.pixels:
            for name in ("mean", "std"):
                values = torch.tensor(model.about[name], dtype=model.dtype).view(-1, 1, 1) * 255
                self.register_buffer(name, values.to(model.device))

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.dtype)
        return self.network((inputs - self.mean) / self.std if self.pixels else inputs)


def export(model: "TrainedModel", path: Path) -> None:
    """Write `model` to `path`, in the format that its name ends in.

    `.pt2` and `.onnx` take a batch of any size, of inputs as the data set had them (`inputs`: uint8 images or floats),
    and return logits. `.safetensors` has the weights alone, under the names of the network's state. What model.json says
    is in all of them: the extra file `model.json`, the metadata `model`.

    Raises:
        BadInput: the name ends otherwise, a package is missing, or the file cannot be written.
        ArithmeticError: what was written computes something else than the model; it is removed.
    """
    if path.suffix not in WRITERS:
        raise BadInput(f"{path}: ends in none of {', '.join(WRITERS)}, which say in what format to export")
    if model.about.get("vocabulary") and path.suffix != ".safetensors":
        raise BadInput(
            f"{path}: a model of texts takes tokens, not texts, in other programs; .safetensors has its weights"
        )
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    if path.is_dir():  # before it takes long
        raise BadInput(f"{path}: is a folder; name a file")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot make its folder: {error.strerror or error}") from None
    try:
        outputs_of = WRITERS[path.suffix](model, temporary, json.dumps(model.about))
        for batch in (examples(model, 5), examples(model, 1)):
            expected, found = model.logits(batch).cpu(), outputs_of(batch)
            difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
            if not difference <= TOLERANCE:
                raise ArithmeticError(f"{path}: its outputs differ from the model's by {difference:.2g}; not written")
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def examples(model: "TrainedModel", number: int) -> Inputs:
    """(number, *input_shape) of inputs as the data set had them, at random; (number, 7) of tokens."""
    if vocabulary := model.about.get("vocabulary"):
        tokens = torch.randint(vocabulary, (number, 7), generator=torch.Generator().manual_seed(number))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    random, shape = torch.Generator().manual_seed(number), (number, *model.input_shape)
    if model.about["uint8"]:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    return torch.randn(shape, generator=random).to(model.dtype)


def write_torch(model: "TrainedModel", path: Path, about: str) -> Callable[[Tensor], Tensor]:
    """`torch.export`, to be loaded as `torch.export.load(path).module()`."""
    torch.export.save(exported_program(model), path, extra_files={"model.json": about})
    loaded = torch.export.load(path).module()
    return lambda batch: loaded(batch)


def exported_program(model: "TrainedModel") -> torch.export.ExportedProgram:
    """The graph of a batch of any size, on the CPU."""
    module = copy.deepcopy(Exported(model)).to("cpu").eval()
    # An example of several: torch.export takes a size of one for a constant.
    return torch.export.export(module, (examples(model, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def write_onnx(model: "TrainedModel", path: Path, about: str) -> Callable[[Tensor], Tensor]:
    """ONNX, with input `inputs` and output `logits`."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInput(f"{path}: ONNX needs {error.name}: pip install 'imbalance[onnx]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own inside
        program = torch.onnx.export(
            exported_program(model), input_names=["inputs"], output_names=["logits"], dynamo=True, verbose=False
        )
    program.save(path, external_data=False)
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"model": about})
    onnx.save(graph, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(["logits"], {"inputs": batch.numpy()})[0])


def write_safetensors(model: "TrainedModel", path: Path, about: str) -> Callable[[Tensor], Tensor]:
    """The weights alone."""
    from safetensors.torch import load_file, save_file

    state = {key: value.cpu().contiguous() for key, value in model.network.state_dict().items()}
    save_file(state, path, metadata={"model": about})
    network = copy.deepcopy(model.network)
    network.load_state_dict(load_file(path))
    return lambda batch: replace(model, network=network).logits(batch).cpu()


WRITERS = {".pt2": write_torch, ".onnx": write_onnx, ".safetensors": write_safetensors}
