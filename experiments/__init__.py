"""The experiments of this project: each file defines the runs for one claim, and the table or figure of their results.

The commands are `imbalance reproduce <name>`, `imbalance protocol` and `imbalance findings`.
"""

import sys


def refuse_to_run(module: str) -> None:
    """Print the command to type instead of `python -m <module>`, which runs nothing, and exit with status 2."""
    from imbalance.cli.commands import COMMANDS

    full_name = f"imbalance.{module.removeprefix('imbalance.')}"
    names = [name for name, command in COMMANDS.items() if command.function.partition(":")[0] == full_name]
    hint = " or ".join(f"imbalance {name}" for name in names) or "imbalance --help for a list of commands"
    print(f"python -m {module} runs nothing; type {hint}", file=sys.stderr)
    raise SystemExit(2)


if sys.argv[:1] == ["-m"]:  # Python has this value in sys.argv while it imports the packages of a module to run
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
    if module.removeprefix("imbalance.").partition(".")[0] == "experiments":
        refuse_to_run(module)
