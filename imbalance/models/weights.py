"""Load pretrained network weights, and freeze the features of a network, so that only its head is trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imbalance.errors import BadInput
from imbalance.models.artifact import SELECTED, read
from imbalance.utils.read import read_bytes, read_json, read_torch, short_hash


class Frozen(nn.Module):
    """Wrapper around the layers before the head; it keeps training from changing their weights.

    The parameters get no gradients, and batch normalisation and dropout are always in evaluation mode.

    section: the section `config.model` for model.json, which builds the same network without loading pretrained
        weights. Only some models set this attribute.
    """

    section: dict[str, Any]

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features.requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.features(inputs)


def load_weights(
    network: nn.Module,
    pretrained: str,
    published: Callable[[], Mapping[str, Tensor]] | None = None,
    head: str = "",
) -> None:
    """Load pretrained weights into `network`, and check that they are finite.

    Args:
        network: the layers before the head.
        pretrained: the path of a state dict (.pth, or .safetensors), or the directory of a finished run that trained
            the same network.
        published: a function that returns the state dict to load. Then `pretrained` is not read, but names the weights
            in messages.
        head: the prefix of the keys of the head in the state dict, which are not loaded; "" to load all keys.

    Raises:
        BadInput: the weights are missing, damaged, of another network, or not finite.
    """
    try:
        if published:
            state = published()
        elif Path(pretrained).is_dir():
            state = trained_features(Path(pretrained))
        elif pretrained.endswith(".safetensors"):
            from safetensors.torch import load

            state = load(read_bytes(pretrained))
        else:
            state = read_torch(pretrained)
        network.load_state_dict({key: value for key, value in state.items() if not head or not key.startswith(head)})
    except Exception as error:  # a missing, damaged or foreign file can fail in any way
        needed = "give the path of a state dict of this network, or the directory of a run that trained it"
        hint = "give the path of a file with these weights" if published else needed
        raise weights_error(pretrained, error, hint) from None
    check_finite(network, pretrained)


def weights_error(pretrained: str, error: Exception, hint: str) -> BadInput:
    """Return the `BadInput` to raise if weights cannot be loaded because of `error`.

    Args:
        pretrained: the name or path of the weights.
        hint: the end of the message, on what to give instead.
    """
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()).split(". ")[0][:200]
    return BadInput(
        f"config.model.pretrained: no weights from {pretrained!r} ({reason or type(error).__name__}); {hint}"
    )


def check_finite(network: nn.Module, pretrained: str) -> None:
    """Raise `BadInput` if a parameter or buffer of `network` is not finite.

    Args:
        network: a network with loaded weights.
        pretrained: the name or path of the weights, for the message.
    """
    bad = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise BadInput(
            f"config.model.pretrained: {pretrained!r} holds weights that are not finite ({bad[0]}); give other weights"
        )


def pretrained_digest(section: Mapping[str, Any]) -> str | None:
    """Return the digest of the pretrained weights on this machine that `config.model` names.

    Return None for a model without pretrained weights, for published weights, and for weights that cannot be read.

    Args:
        section: `config.model`.
    """
    path = Path(str(section.get("pretrained") or section.get("network") or ""))
    try:
        if (path / SELECTED).exists():
            recorded = read_json(path / "model.json").get("weights")  # saves reading the weights
            return recorded or short_hash(read_bytes(path / SELECTED))
        if path.is_file():
            return short_hash(read_bytes(path))
        if path.is_dir() and path.name:
            files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
            return short_hash("".join(f"{file.name} {short_hash(read_bytes(file))}\n" for file in files).encode())
    except (BadInput, OSError):
        return None
    return None


def trained_features(run_directory: Path) -> dict[str, Tensor]:
    """Return the trained weights of the layers before the last, from a finished run.

    The keys of this state dict lack the prefix `features.` that they have in the state dict of the whole network.
    """
    _, state = read(run_directory)
    features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    # The features of a frozen network have the prefix twice, because `Frozen` adds one, so remove it again.
    return {key.removeprefix("features."): value for key, value in features.items()}
