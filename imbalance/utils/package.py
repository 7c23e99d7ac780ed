"""Version and root folder of the package."""

from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).parent.parent.parent  # the top folder of a clone, or site-packages
