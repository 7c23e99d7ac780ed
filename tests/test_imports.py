from graphlib import TopologicalSorter

import grimp
import torch
from conftest import ROOT, imported_by


def test_no_modules_import_each_other_in_a_circle():
    """Within a room too, but for types; pyproject.toml has the contract between rooms, which `lint-imports` checks."""
    graph = grimp.build_graph("imbalance", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 150
    TopologicalSorter(imports).prepare()  # a CycleError shows the circle


def test_few_files_lie_at_the_top_of_the_package():
    """Every other file has a room; see the contract in pyproject.toml."""
    assert len(list((ROOT / "imbalance").glob("*.py"))) <= 6


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
