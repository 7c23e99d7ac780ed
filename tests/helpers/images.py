"""Expectations of stored images that hold on every device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from imbalance.data.images.stored_images import StoredImages
from imbalance.errors import BadInput


def assert_images_live_where_they_fit(device: str) -> None:
    """Copy stored images to a device, and expect a refusal of images that no device has room for."""
    images = np.random.default_rng(0).integers(0, 256, (512, 3, 64, 64), dtype=np.uint8)
    stored = StoredImages(images, np.zeros(512, np.uint32), torch.arange(512), torch.device(device))
    assert torch.equal(stored.as_tensor().cpu(), torch.from_numpy(images))
    many = replace(stored, rows=torch.zeros(1, dtype=torch.int64).expand(10**9))
    needed = (
        f"1,000,000,000 images need 12,288.0 GB, and {device} has .* GB free; set config.trainer.images_on_device=False"
    )
    with pytest.raises(BadInput, match=needed):
        many.as_tensor()
