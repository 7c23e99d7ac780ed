"""Whatever the input, the exit status is 0, 2 or 3, with one line where it is not 0: a sample, or for `--fuzz-minutes`.

Whatever the arguments, a function of the API answers as a slow computation does, or raises `BadInput`.
"""

import json

import fuzz
import pytest
from fuzz_api import API_KINDS
from helpers.server import SERVER

EXAMPLES = {"configs": 30, "overrides": 30, "tables": 30, "pictures": 150}  # a few seconds
EXAMPLES |= dict.fromkeys(API_KINDS, 200)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_any_input_is_trained_with_or_refused_in_one_line(kind, tmp_path, request, capsys):
    minutes = request.config.getoption("--fuzz-minutes") / len(EXAMPLES)
    process = SERVER.Process(target=fuzz.hunt, args=(kind, tmp_path, EXAMPLES[kind], minutes), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    report = json.loads((tmp_path / "report.json").read_text())
    with capsys.disabled():
        print(f"\n{sum(report['counts'].values())} {kind} in {report['seconds']:.0f} s: {report['counts']}")
    failures = (
        f"{outcome} ({number} times), the shortest:\n{case}\n{wrong}"
        for outcome, (number, case, wrong) in report["failures"].items()
    )
    assert not report["failures"], "\n\n".join(failures)
