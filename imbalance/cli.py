"""The command line: `imbalance <command> --help`, or `python -m imbalance <command> --help`.

Every command is a function in the module that does its work, imported when it is called: help and mistakes answer at
once. `--config.<key>=<value>` overrides a config wherever one is named.
"""

import argparse
import difflib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.output import guard_streams, one_line
from imbalance.training.interrupt import on_stop

RANK = int(os.environ.get("RANK", 0))  # of this process, where a launcher started several


class Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong in one line and leaves it to `main` to end."""

    def error(self, message: str) -> None:
        raise BadInput(message.removeprefix("argument "))

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; {self.prog} takes {', '.join(flags)}"
            raise BadInput(f"{unknown[0]}: unknown{hint}")
        return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    guard_streams()
    on_stop(stop_before_anything)
    try:
        return train(list(sys.argv[1:] if argv is None else argv)[1:])
    except BadInput as error:
        return fail(str(error))


def train(argv: list[str]) -> int:
    """Train and judge one config."""
    from imbalance.config import config_file, load, origin, run_directory, validate
    from imbalance.overrides import override, split

    parser = Parser(prog="main.py", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--dry_run", action="store_true")
    overrides, rest = split(argv)
    arguments = parser.parse_args(rest)
    file = config_file(arguments.config)
    base = load(file)
    config = validate(override(base, overrides, written=True))
    name, before = origin(file)
    directory = run_directory(config, name, base, before)
    if arguments.dry_run:
        if not RANK:
            print(f"{json.dumps(config.to_dict(), indent=2)}\n{directory}")
        return 0
    return run(config, directory)


def run(config, directory: Path) -> int:
    """Train `config` in `directory`, and say how it ended."""
    from imbalance.training.loop import train

    try:
        result = train(config, directory)
    except (Diverged, Interrupted) as error:  # on all processes alike
        let_the_main_process_speak()
        if not RANK:
            print(one_line(str(error)), file=sys.stderr, flush=True)
        print_result(str(directory), error.status, None)
        return error.exit_status
    except BadInput:
        raise
    except OSError as error:  # a full disk, a data_dir that has gone
        return fail(
            f"{error.filename or directory}: {error.strerror or error}; once mended, the same command goes on from the "
            "last checkpoint"
        )
    except Exception as error:
        if out_of_memory(error):
            return fail(
                f"out of memory ({str(error).splitlines()[0]}); a smaller config.model, config.trainer.batch_size or "
                "eval_batch_size, or more parts of a batch (config.trainer.accumulation) need less"
            )
        let_the_main_process_speak()
        raise
    print_result(result["run_directory"], result["status"], result["score"])
    return 0


def out_of_memory(error: Exception) -> bool:
    """Of Python's kind, or torch's, which on a CPU is a RuntimeError like any other."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("can't allocate memory", "out of memory", "Storage size calculation overflowed"))
    )  # fmt: skip


def print_result(run_directory: str, status: str, score: float | None) -> None:
    """The last line on stdout; a score that is not a number is null."""
    if not RANK:
        score = score if score is not None and abs(score) < float("inf") else None
        print(json.dumps({"run_directory": run_directory, "status": status, "score": score}), flush=True)


def fail(message: str) -> int:
    """One line on stderr, also where many processes have it to say; returns exit status 2."""
    let_the_main_process_speak()
    print(f"process {RANK}: {one_line(message)}" if RANK else one_line(message), file=sys.stderr, flush=True)
    return 2


def let_the_main_process_speak() -> None:
    """Wait on all processes but the main one, whose message comes first.

    Mostly it has the same to say, and once it has ended the launcher ends the others, too. What only another one has
    to say is seen after the wait; were that one to end first, the launcher might end the main one unheard.
    """
    if RANK:
        time.sleep(3)


def stop_before_anything(signum: int, frame) -> None:
    """Where a signal comes while there is nothing to save: before a run, or after it."""
    let_the_main_process_speak()
    error = Interrupted(signum)
    if not RANK:
        os.write(2, f"{error}\n".encode())
        os.write(1, b'{"run_directory": null, "status": "interrupted", "score": null}\n')
    os._exit(error.exit_status)
