"""Import torchvision, even if its compiled extension does not match torch."""

from types import ModuleType

import torch

_declared: list[torch.library.Library] = []  # torch drops the declarations with the object, so keep it


def import_torchvision() -> ModuleType:
    """Import torchvision beside a CPU-only torch even if torchvision is a CUDA build, as PyPI's is on Linux.

    The extension of torchvision then fails to load without a message. The import fails when it registers the shapes of
    two operators that the extension would have declared. Declaring these operators here suffices for data sets,
    transforms and models. Functions that need the extension (`ops.nms`, detection, `io.decode_image`) raise when they
    are called.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or torch.version.cuda or torch.version.hip:
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision
    return torchvision
