"""torchvision, also where its compiled part does not match torch."""

from types import ModuleType

import torch

_declared: list[torch.library.Library] = []  # the declarations last as long as the object


def import_torchvision() -> ModuleType:
    """Import torchvision beside a CPU-only torch even if torchvision is a CUDA build, as PyPI's is on Linux.

    Its extension then fails to load, silently, and the import dies on registering shapes for two operators that the
    extension would have declared. Declaring them is enough for data sets, transforms and models; what really needs
    the extension (`ops.nms`, detection, `io.decode_image`) raises when it is called.
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
