from pathlib import Path

from setuptools import find_packages, setup

SWEEP = ["optuna>=4", "submitit>=1.5"]
REPORT = ["matplotlib>=3.8"]
PARQUET = ["pyarrow>=14"]

setup(
    name="imbalance",
    version="0.1.0",
    description="Training and judging classifiers under class imbalance and sub-population shift",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["imbalance", "imbalance.*"]),
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "accelerate>=1.0",
        "ml-collections>=1.0",
        "absl-py>=2.0",
        "numpy>=1.26",
        "scipy>=1.11",
        "wandb>=0.18",
        "pydantic>=2.7",  # checks the types and ranges of a config; wandb needs it too
        "scikit-learn>=1.4",  # the digits, which need no download
    ],
    extras_require={
        "sweep": SWEEP,
        "report": REPORT,
        "parquet": PARQUET,
        "dev": ["pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "ruff>=0.6", *SWEEP, *REPORT, *PARQUET],
    },
)
