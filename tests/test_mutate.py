"""The tests that tests/mutate.py runs for a module follow the folders of tests/."""

import mutate
import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("data/sets/waterbirds.py", "tests/data/sets/test_waterbirds.py"),
        ("methods/losses.py", "tests/methods/test_losses.py"),
        ("methods/losses.py", "tests/test_contract.py::test_three_parts_make_the_step_of_one"),
        ("utils/budget.py", "tests/models/test_resnet.py"),
    ],
)
def test_a_module_has_the_tests_of_its_name_or_that_import_it(module, file):
    assert file in mutate.tests_of(ROOT / "imbalance" / module)


def test_every_module_has_tests_that_are_there():
    for path in (ROOT / "imbalance").rglob("*.py"):
        assert all((ROOT / file.partition("::")[0]).is_file() for file in mutate.tests_of(path)), path
