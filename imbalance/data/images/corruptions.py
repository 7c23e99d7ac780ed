"""Corrupt 32×32 images as the published code of CIFAR-10-C does (Hendrycks and Dietterich, ICLR 2019).

Each corruption takes (N, 32, 32, 3) float32 images from 0 to 1, a severity from 1 to 5, and a generator. It returns images
whose values may be below 0 or above 1. The published code draws random numbers for one image at a time, without a seed.
So the images here have the published distribution, not the published bits. The motion blur follows ImageMagick, which the
published code calls; all other corruptions are the published formulas.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator


def gaussian_noise(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Add normal noise."""
    return images + rng.normal(scale=(0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1], size=images.shape)


def shot_noise(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Replace each value by a scaled Poisson count whose mean is the value, as if a sensor counted photons."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return rng.poisson(images * photons) / photons


def impulse_noise(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Replace a random share of all values by 0 or 1."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    drawn = rng.random(images.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, images))


def speckle_noise(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Add normal noise that is proportional to the value."""
    return images * (1 + rng.normal(scale=(0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1], size=images.shape))


def gaussian_blur(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Blur with a Gaussian kernel."""
    return blurred(images, (0.4, 0.6, 0.7, 0.8, 1)[severity - 1])


def defocus_blur(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Blur with a disk whose edge is softened."""
    from scipy.ndimage import convolve, convolve1d

    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    rows, columns = np.mgrid[-8:9, -8:9]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    for axis in range(2):
        disk = convolve1d(disk, soft / soft.sum(), axis=axis)
    kernel = np.asarray(disk)[None, 6:11, 6:11, None]
    return convolve(images, kernel / kernel.sum(), mode="mirror")


def glass_blur(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Blur, replace each pixel by a random neighbour, and blur again.

    The published code tries to swap two pixels, but copies one over the other, because it swaps two views of one array.
    This function copies, too.
    """
    sigma, distance, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[severity - 1]
    images = np.floor(blurred(images, sigma) * 255) / 255
    every = np.arange(len(images))
    for _ in range(rounds):
        for row in range(32 - distance, distance, -1):
            for column in range(32 - distance, distance, -1):
                across, down = rng.integers(-distance, distance, size=(2, len(images)))
                images[every, row, column] = images[every, row + down, column + across]
    return blurred(images, sigma)


def motion_blur(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Blur each image along a line; its direction is drawn from −45° to 45° for each image."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    steps = np.arange(2 * radius + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    angles = np.radians(rng.uniform(-45, 45, size=len(images)))
    result, every, place = np.zeros_like(images), np.arange(len(images))[:, None, None], np.arange(32)
    for step, share in zip(steps, kernel / kernel.sum()):
        down, right = (np.ceil(step * f(angles) - 0.5).astype(np.int64)[:, None, None] for f in (np.sin, np.cos))
        rows = np.clip(place[None, :, None] + down, 0, 31)
        columns = np.clip(place[None, None, :] + right, 0, 31)
        result += share.astype(np.float32) * images[every, rows, columns]
    return result


def zoom_blur(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Average each image with enlargements of its middle."""
    from scipy.ndimage import zoom

    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    total = images.copy()
    for factor in factors:
        size = int(np.ceil(32 / factor))
        start = (32 - size) // 2
        # Linear interpolation multiplies rows and columns by one matrix. Doing so is many times as fast as `zoom` on images.
        matrix = np.asarray(zoom(np.eye(32, dtype=np.float32)[start : start + size], (factor, 1), order=1))
        trim = (len(matrix) - 32) // 2
        matrix = matrix[trim : trim + 32]
        across = np.matmul(matrix, images)  # images (N, row, column, channel): each row's columns
        total += np.matmul(matrix, across.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    return total / (len(factors) + 1)


def original(images: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Return the images unchanged."""
    return images


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return the images after a Gaussian blur of rows and columns; pixels beyond the edge equal those at the edge."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


# The ten corruptions that Nam et al. ("Learning from Failure", NeurIPS 2020) call type 1, in the order of their code.
TYPE_1: dict[str, Callable[[np.ndarray, int, Generator], np.ndarray]] = {
    "Gaussian noise": gaussian_noise,
    "shot noise": shot_noise,
    "impulse noise": impulse_noise,
    "speckle noise": speckle_noise,
    "Gaussian blur": gaussian_blur,
    "defocus blur": defocus_blur,
    "glass blur": glass_blur,
    "motion blur": motion_blur,
    "zoom blur": zoom_blur,
    "original": original,
}


def corrupted(images: np.ndarray, name: str, severity: int, rng: Generator) -> np.ndarray:
    """Apply the corruption `name` of `TYPE_1` to (N, 32, 32, 3) uint8 images; return uint8 images."""
    changed = TYPE_1[name](images.astype(np.float32) / 255, severity, rng)
    # "original" returns the uint8 images themselves, because 255 · (x / 255) can be just below x and would be rounded down.
    return images if name == "original" else (np.clip(changed, 0, 1) * 255).astype(np.uint8)
