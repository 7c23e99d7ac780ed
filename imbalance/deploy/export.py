"""Export a trained model with torch.export, as ONNX, or as safetensors, and check the written file."""

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
from imbalance.utils.files import contains, output_path
from imbalance.utils.optional import optional

if TYPE_CHECKING:
    # Not imported at run time, because `TrainedModel.export` imports this module
    from imbalance.deploy.load import TrainedModel

TOLERANCE = 1e-4  # allowed difference of a logit, as a share of the largest logit; another order of summation causes it


class Exported(nn.Module):
    """Network of a trained model that normalises uint8 images itself, and takes floats as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: "TrainedModel"):
        super().__init__()
        self.network, self.dtype, self.pixels = model.network, model.dtype, model.about["uint8"]
        if self.pixels:
            for name in ("mean", "std"):
                values = torch.tensor(model.about[name], dtype=model.dtype).view(-1, 1, 1) * 255
                self.register_buffer(name, values.to(model.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the (B, K) logits of a batch."""
        inputs = inputs.to(self.dtype)
        return self.network((inputs - self.mean) / self.std if self.pixels else inputs)


def export(model: "TrainedModel", path: Path) -> None:
    """Write `model` to the file `path`; the suffix of the file name chooses the format.

    A `.pt2` or `.onnx` file is a program that takes a batch of any size and returns logits. The batch has uint8 images,
    which the program normalises, or the floats that the network takes. A `.safetensors` file has only the network
    weights, named as in the network's state_dict. All formats include the content of model.json: `.pt2` as the extra
    file `model.json`, the others as the metadata `model`.

    Raises:
        BadInput: the suffix is unknown, a package is missing, or the file cannot be written.
        ArithmeticError: the exported model computes other logits than `model`; no file is left.
    """
    if path.suffix not in WRITERS:
        raise BadInput(f"{path}: the name must end in one of {', '.join(WRITERS)}, which chooses the format")
    if model.about.get("vocabulary") and path.suffix != ".safetensors":
        raise BadInput(
            f"{path}: a model of texts can only be exported as .safetensors, because {path.suffix} has no tokenizer; name a "
            "file that ends in .safetensors"
        )
    path, suffix = output_path(path, "FILE", is_export), path.suffix  # first, because the export takes long
    temporary = path.with_name(f"{path.stem}.tmp{suffix}")
    # A GPU may compute in TF32, which differs from the CPU by more than TOLERANCE, so compare with a copy on the CPU.
    model = replace(model, network=copy.deepcopy(model.network).to("cpu"), device=torch.device("cpu"))
    try:
        exported = WRITERS[suffix](model, temporary, json.dumps(model.about))
        for batch in (random_inputs(model, 5), random_inputs(model, 1)):
            expected, actual = model.logits(batch), exported(batch)
            difference = (actual - expected).abs().max() / expected.abs().max().clamp(min=1)
            if not difference <= TOLERANCE:
                raise ArithmeticError(
                    f"{path}: the logits of the exported model differ by {difference:.2g} of the largest logit, and at most "
                    f"{TOLERANCE} is allowed, so the file is not written; use another format"
                )
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; name a file that can be written") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_export(path: Path) -> bool:
    """Return whether `export` wrote the file: whether the file contains the text of a model.json."""
    return contains(path, b"preprocessing")


def random_inputs(model: "TrainedModel", number: int) -> Inputs:
    """Return a batch of `number` random inputs as they are before normalisation; each text has seven tokens."""
    if vocabulary := model.about.get("vocabulary"):
        tokens = torch.randint(vocabulary, (number, 7), generator=torch.Generator().manual_seed(number))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    random, shape = torch.Generator().manual_seed(number), (number, *model.input_shape)
    if model.about["uint8"]:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    return torch.randn(shape, generator=random).to(model.dtype)


def write_torch(model: "TrainedModel", path: Path, about: str) -> Callable[..., Tensor]:
    """Write the model with `torch.export`.

    Return a function from a batch to the logits that the written file computes.

    Args:
        about: content of model.json, as JSON.
    """
    torch.export.save(exported_program(model), path, extra_files={"model.json": about})
    loaded = torch.export.load(path).module()
    return lambda batch: loaded(batch)


def exported_program(model: "TrainedModel") -> torch.export.ExportedProgram:
    """Return the model as a `torch.export` program on the CPU, which takes batches of any size."""
    module = Exported(model).eval()
    # The example batch has five examples, because torch.export would make a batch size of one a constant of the graph.
    return torch.export.export(module, (random_inputs(model, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def write_onnx(model: "TrainedModel", path: Path, about: str) -> Callable[..., Tensor]:
    """Write the model as ONNX (input `inputs`, output `logits`).

    Return a function from a batch to the logits that the written file computes.

    Args:
        about: content of model.json, as JSON.
    """
    needed = ("onnx", "onnxruntime", "onnxscript")
    with optional(*needed, message=f"{path}: ONNX needs {', '.join(needed)}; type pip install 'imbalance[onnx]'"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            exported_program(model), input_names=["inputs"], output_names=["logits"], dynamo=True, verbose=False
        )
    assert program is not None  # torch returns a program where `dynamo` is set
    program.save(path, external_data=False)
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"model": about})
    onnx.save(graph, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(["logits"], {"inputs": batch.numpy()})[0])


def write_safetensors(model: "TrainedModel", path: Path, about: str) -> Callable[..., Tensor]:
    """Write the network weights as safetensors.

    Return a function from a batch to the logits that the network computes with the written weights.

    Args:
        about: content of model.json, as JSON.
    """
    from safetensors.torch import load_file, save_file

    state = {key: value.contiguous() for key, value in model.network.state_dict().items()}
    save_file(state, path, metadata={"model": about})
    network = copy.deepcopy(model.network)
    network.load_state_dict(load_file(path))
    return replace(model, network=network).logits


# A writer takes a model on the CPU, the path of the file to write, and `about`, the text of model.json. It writes the file, loads
# it again, and returns a function that takes a batch and returns the logits which the loaded file computes for it.
WRITERS = {".pt2": write_torch, ".onnx": write_onnx, ".safetensors": write_safetensors}
