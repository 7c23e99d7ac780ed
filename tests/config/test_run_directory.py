"""Files of a run directory that cannot be read."""

from imbalance.config.run_directory import FILES, damaged_files


def test_a_file_that_the_system_cannot_read_is_damaged_with_its_reason(tmp_path):
    (tmp_path / "model.json").symlink_to("model.json")
    assert damaged_files(tmp_path, {FILES: {"model.json": "0"}}) == {"model.json": "Too many levels of symbolic links"}
