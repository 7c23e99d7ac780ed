import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "imbalance" / "utils" / "package.py").read_text(encoding="utf-8"))[
    1
]

EXTRAS = {
    "sweep": ["optuna>=4", "submitit>=1.5", "rich>=13"],  # hyperparameter search; Slurm; progress on a terminal
    "report": ["matplotlib>=3.8", "jinja2>=3.1"],  # figures, and the page
    "tensorboard": ["tensorboard>=2.15"],  # a copy of the metrics as TensorBoard reads it
    "parquet": ["pyarrow>=14"],  # Parquet files: tables of one's own, and of collected runs
    "vision": ["timm>=1.0", "transformers>=4.45"],  # their networks and weights; torchvision's need nothing
    "text": ["tokenizers>=0.20", "transformers>=4.45"],  # texts, and pretrained encoders of them
    "onnx": ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.18"],  # trained models as ONNX, checked once written
    "docs": [  # the site; myst-parser needs Python 3.11
        f'{package}; python_version >= "3.11"'
        for package in (
            "sphinx>=8.2",
            "myst-parser>=5",
            "furo>=2025.7",
            "sphinx-gallery>=0.19",
            "sphinx-copybutton>=0.5",
            "latex2mathml>=3.77",
            "codespell>=2.4",
        )
    ],
}
EXTRAS["docs"] += [*EXTRAS["report"], "tokenizers>=0.20"]  # which scripts of the gallery use
ALL = sorted({package for packages in EXTRAS.values() for package in packages})

setup(
    name="imbalance",
    version=VERSION,
    description="Training and evaluating classifiers under class imbalance and sub-population shift",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The imbalance developers",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={"Paper": "https://arxiv.org/abs/2112.12986"},
    keywords=["class imbalance", "long-tailed", "distribution shift", "group robustness", "importance weighting"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # imbalance/configs and imbalance/experiments are links to the folders at the top, so that a wheel has them too.
    packages=find_packages(include=["imbalance", "imbalance.*"]),
    package_data={
        "imbalance": ["py.typed", "configs/*.py"],
        "imbalance.experiments": ["*.csv", "*.yaml"],
        "imbalance.report.page": ["*.j2", "*.css", "*.js", "vendor/*"],
    },
    entry_points={"console_scripts": ["imbalance=imbalance.cli.main:main"]},
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
        "scikit-learn>=1.6",  # the digits, which need no download; the estimator, whose checks 1.6 made public
        "filelock>=3.13",  # what one process at a time may do; torch needs it too
        "safetensors>=0.4",  # weights for other programs; accelerate needs it too
    ],
    extras_require=EXTRAS
    | {
        "all": ALL,
        "dev": [
            "pytest>=8",
            "selenium>=4.20",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "basedpyright>=1.31",
            "import-linter>=2.5",
            *ALL,
        ],
    },
)
