"""Claims and the runs that show them: what `imbalance sweep`, `compare`, `reproduce` and others call (see `imbalance --help`)."""

import sys


def refuse_to_be_a_program(module: str) -> None:
    """`python -m imbalance.sweep.sweep` would do nothing, and say nothing: say what to type instead."""
    from imbalance.cli.commands import COMMANDS

    own = f"imbalance.{module.removeprefix('imbalance.')}"
    names = [
        name for name, command in COMMANDS.items() if f"{command.function.partition(':')[0]}.".startswith(f"{own}.")
    ]
    hint = f"say {' or '.join(f'imbalance {name}' for name in names)}" if len(names) < 3 and names else ""
    print(f"python -m {module}: no program; {hint or 'imbalance --help lists the commands'}", file=sys.stderr)
    raise SystemExit(2)


if sys.argv[:1] == ["-m"]:  # what Python says while it looks for the module that it was told to run
    told = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
    if told.removeprefix("imbalance.").partition(".")[0] == "experiments":
        refuse_to_be_a_program(told)
