"""Weights that a network starts from, and features that training does not change."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from imbalance.errors import BadInput
from imbalance.models.artifact import read
from imbalance.utils.files import check_regular


class Frozen(nn.Module):
    """Features that training does not change: no gradients, and batch norm and dropout always as in evaluation."""

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
    """Load weights into `network`, which has no head, and check that they are finite.

    Args:
        pretrained: the path of a state dict (.pth, or .safetensors), or the directory of a finished run that trained
            this network; the name of published weights if `published` is given.
        published: a function that returns the published weights.
        head: the prefix of the names of the head's weights, which are left out.

    Raises:
        BadInput: there are no such weights, they belong to another network, or they are damaged.
    """
    try:
        if published:
            state = published()
        elif Path(pretrained).is_dir():
            state = trained_features(Path(pretrained))
        elif pretrained.endswith(".safetensors"):
            from safetensors.torch import load_file

            check_regular(pretrained)
            state = load_file(pretrained)
        else:
            check_regular(pretrained)
            state = torch.load(pretrained, map_location="cpu", weights_only=True)
        network.load_state_dict({key: value for key, value in state.items() if not head or not key.startswith(head)})
    except Exception as error:  # a missing, damaged or foreign file can fail in any way
        needed = "it must hold a state dict of this network, or be a run of it"
        hint = "give the path of a file with them" if published else needed
        raise weights_error(pretrained, error, hint) from None
    check_finite(network, pretrained)


def weights_error(pretrained: str, error: Exception, hint: str) -> BadInput:
    """Return the error for weights that cannot be loaded."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()).split(". ")[0][:200]
    return BadInput(
        f"config.model.pretrained: no weights from {pretrained!r} ({reason or type(error).__name__}); {hint}"
    )


def check_finite(network: nn.Module, pretrained: str) -> None:
    """Raise `BadInput` if a weight of the network is not finite."""
    bad = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise BadInput(f"config.model.pretrained: {pretrained!r} holds weights that are not finite ({bad[0]})")


def trained_features(run_directory: Path) -> dict[str, Tensor]:
    """Read the weights of a run before the head, with the names that they have in this network."""
    _, state = read(run_directory)
    features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    return {
        key.removeprefix("features."): value for key, value in features.items()
    }  # frozen features have the prefix twice
