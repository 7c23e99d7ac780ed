import torch
from conftest import imported_by


def test_importing_the_package_and_its_config_imports_nothing_heavy():
    heavy = {"torch", "torchvision", "wandb", "sklearn", "matplotlib", "accelerate"}
    assert not heavy & imported_by("import imbalance, imbalance.config.experiment, imbalance.errors")


def test_the_loop_needs_no_torchvision_wandb_or_scikit_learn():
    assert not {"torchvision", "wandb", "sklearn", "matplotlib"} & imported_by("import imbalance.training.loop")


def test_a_run_needs_no_compiler_and_no_scikit_learn(tmp_path):
    """Which take longer to import than torch; many of torch's and accelerate's functions do so on the quiet."""
    code = f"""
from imbalance.config.resolve import load
from imbalance.training.loop import run
config = load("configs/digits_ce.py")
config.debug, config.work_dir = True, {str(tmp_path)!r}
run(config)"""
    assert not {"torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy.stats"} & imported_by(f"exec({code!r})")


def test_torchvision_imports_beside_this_torch():
    """Also where torchvision is a CUDA build and torch is not: its transforms and data sets work."""
    from imbalance.utils.torchvision_import import import_torchvision

    torchvision = import_torchvision()
    assert torchvision.transforms.functional.center_crop(torch.zeros(1, 8, 8), [4, 4]).shape == (1, 4, 4)
    assert torchvision.models.resnet18().fc.out_features == 1000
