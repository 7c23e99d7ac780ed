"""The command line: `imbalance <command> --help`, or `python -m imbalance <command> --help`.

A command is a function in the module that does its work, with a flag for each of its keyword-only arguments. It is
imported when it is called, so that help and mistakes answer at once. `imbalance.cli.commands` lists all of them.
"""

import argparse
import ast
import difflib
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from imbalance.cli.commands import COMMANDS, RENAMED_FLAGS, Command
from imbalance.errors import BadInput, Diverged, Interrupted, is_out_of_memory
from imbalance.training.distributed.interrupt import on_stop
from imbalance.utils.output import guard_streams, one_line, print_safely

RANK = int(os.environ.get("RANK", 0))  # of this process, where a launcher started several
OVERRIDES = "  --config.<key>=<value>  overrides what a config says, and may be given many times; --config.loss.name=…\n                        starts that section afresh"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    guard_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    on_stop(lambda signum, frame: stop(signum, trains=argv[:1] == ["train"]))
    return call(argv)


def call(argv: Sequence[str]) -> int:
    """`main`, but for what it does to the process."""
    try:
        name, rest = command_of(argv)
        if name is None or {"-h", "--help"} & set(rest):
            print(overview(argv[0] if name is None and argv and argv[0] in GROUPS else "") if name is None else help_of(name))  # fmt: skip
            return 0
        return perform(COMMANDS[name], arguments_of(name, rest))
    except BadInput as error:
        return fail(str(error))
    except OSError as error:  # a full disk, a data_dir that has gone
        return fail(f"{error.filename or 'imbalance'}: {error.strerror or error}; once mended, the same command goes on from the last checkpoint")  # fmt: skip


GROUPS = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS if " " in name)


def command_of(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command, of one word or two, and what follows; None where help on all (of a group) is asked for.

    Raises:
        BadInput: there is no such command.
    """
    words = [word for word in argv[:2] if not word.startswith("-")]
    for count in (2, 1):
        if " ".join(words[:count]) in COMMANDS and len(words) >= count:
            return " ".join(words[:count]), list(argv[count:])
    if ({"-h", "--help"} & set(argv) or not argv) and (not words or words[0] in GROUPS):
        return None, []
    known = [name for name in COMMANDS if name.startswith(f"{words[0]} ")] if words and words[0] in GROUPS else []
    given = " ".join(words[: 2 if known else 1]) or argv[0]
    hint = f"say {' or '.join(known)}" if known and len(words) == 1 else did_you_mean(given, known or COMMANDS)
    raise BadInput(f"{given}: no such command; {hint or 'imbalance --help lists them'}")


def did_you_mean(word: str, valid: Sequence[str] | Mapping[str, Any]) -> str:
    """`did you mean …?` with the nearest three; all of few; nothing where none is near."""
    near = difflib.get_close_matches(word, valid, n=3) or (list(valid) if len(valid) <= 8 else [])
    return f"did you mean {' or '.join(near)}?" if near else ""


class Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong in one line and leaves it to `main` to end."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise BadInput(message.replace("ignored explicit argument", "takes no value, and was given"))


def parser_of(name: str) -> Parser:
    """A flag for each argument of a command."""
    command = COMMANDS[name]
    parser = Parser(prog=f"imbalance {name}", add_help=False, allow_abbrev=False)
    for flag in command.flags:
        parser.add_argument(*flag.names, **flag.options)
    return parser


def arguments_of(name: str, argv: list[str]) -> dict[str, Any]:
    """What the command's function is called with.

    Raises:
        BadInput: a flag is unknown, missing, or lacks a value that it takes.
    """
    from imbalance.config.overrides import PREFIX, split_overrides

    command, parser = COMMANDS[name], parser_of(name)
    overrides, rest = split_overrides(argv) if command.overrides else ({}, argv)
    for action in parser._actions:  # of two values the first would be lost, unseen
        if action.option_strings and not isinstance(action, argparse._AppendAction):
            given = [word for word in rest if word.partition("=")[0] in action.option_strings]
            if len(given) > 1:
                hint = "put commas between the values" if ",…" in (action.metavar or "") else "leave one of them out"
                raise BadInput(f"{given[1]}: {given[0]} was given before it; {hint}")
    arguments, unknown = parser.parse_known_args(rest)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        if unknown[0].startswith(PREFIX):
            raise BadInput(f"{unknown[0]}: unknown; imbalance {name} reads no config")
        old, equals, value = unknown[0].partition("=")
        if RENAMED_FLAGS.get(old) in flags:
            new = RENAMED_FLAGS[old]
            raise BadInput(f"{unknown[0]}: {old} is now called {new}; type {new}{equals}{value} instead")
        near = did_you_mean(unknown[0].partition("=")[0], flags) if unknown[0].startswith("-") else ""
        hint = near or f"imbalance {name} --help lists what it takes"
        if not unknown[0].startswith("-") and command.overrides:
            hint = f"an override reads {PREFIX}<key>=<value>"
        raise BadInput(f"{unknown[0]}: unknown; {hint}")
    return vars(arguments) | ({"overrides": overrides} if command.overrides else {})


def perform(command: Command, arguments: Mapping[str, Any]) -> int:
    """Call the command's function: what it returns is the exit status, a text to print, or nothing."""
    module, _, function = command.function.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**arguments)
    except (Interrupted, KeyboardInterrupt):
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if type(error).__name__ != "BrokenProcessPool":
            raise
        print("a worker was killed (for memory?); the same command goes on", file=sys.stderr)
        return 1
    if isinstance(result, str):
        print(result)
        return 0
    return result or 0


# Help


def overview(group: str) -> str:
    """Every command, with a line each."""
    names = [name for name in COMMANDS if name.startswith(group) and not COMMANDS[name].hidden]
    width = max(map(len, names)) + 2
    lines = [f"usage: imbalance {group or '<command>'} … [--help]", ""]
    lines += [f"  {name:{width}}{COMMANDS[name].about}" for name in names]
    return "\n".join([*lines, "", "Configs are named by file or by name: --config=configs/digits_poly.py, --config=digits_poly."])  # fmt: skip


def help_of(name: str) -> str:
    """What a command does and every flag that it reads, without importing what it needs."""
    command, parser = COMMANDS[name], parser_of(name)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = docstring(command) or command.about
    parser.epilog = OVERRIDES if command.overrides else None
    return parser.format_help().rstrip()


def docstring(command: Command) -> str:
    """Of the module that a command is in; nothing of this one, which is about all of them."""
    module = command.function.partition(":")[0]
    if not command.documented:
        return ""
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


# One run


def train(*, config: str, dry_run: bool, overrides: Mapping[str, Any]) -> int:
    """Train and evaluate one config, or check all that would be checked before its first step and print it."""
    from imbalance.config.resolve import resolve

    resolved, directory = resolve(config, overrides)
    if dry_run:
        from imbalance.training import checks

        checks.dry_run(resolved, directory)
        if not RANK:
            print(f"{json.dumps(resolved.to_dict(), indent=2)}\n{directory}")
        return 0
    return run(resolved, directory)


def run(config: Any, directory: Path) -> int:
    """Train `config` in `directory`, and say how it ended."""
    from imbalance.training.loop import train

    try:
        result = train(config, directory)
    except (Diverged, Interrupted) as error:  # on all processes alike
        let_the_main_process_answer_first()
        if not RANK:
            print(one_line(str(error)), file=sys.stderr, flush=True)
        print_result(str(directory), error.status, None)
        return error.exit_status
    except (BadInput, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise BadInput(
                f"out of memory ({str(error).splitlines()[0]}); a smaller config.model, config.trainer.batch_size or "
                "eval_batch_size, or more parts of a batch (config.trainer.accumulation) need less"
            ) from None
        let_the_main_process_answer_first()
        raise
    print_result(result["run_directory"], result["status"], result["score"])
    return 0


def print_result(run_directory: str | None, status: str, score: float | None) -> None:
    """The last line on stdout; a score that is not a number is null."""
    if not RANK:
        score = score if score is not None and abs(score) < float("inf") else None
        print_safely(json.dumps({"run_directory": run_directory, "status": status, "score": score}), sys.stdout)


# Ends


def fail(message: str) -> int:
    """One line on stderr, also where many processes have it to say; returns exit status 2."""
    let_the_main_process_answer_first()
    print_safely(f"process {RANK}: {one_line(message)}" if RANK else one_line(message), sys.stderr)
    return 2


def let_the_main_process_answer_first() -> None:
    """Wait on all processes but the main one, whose message comes first.

    Mostly it has the same to say, and once it has ended the launcher ends the others, too. What only another one has
    to say is seen after the wait; were that one to end first, the launcher might end the main one unheard.
    """
    if RANK:
        time.sleep(3)


def stop(signum: int, trains: bool) -> NoReturn:
    """Where a signal comes while there is nothing to save: before a run, or after it."""
    let_the_main_process_answer_first()
    error = Interrupted(signum)
    if not RANK:
        os.write(2, f"{error if trains else 'stopped; the same command goes on'}\n".encode())
        if trains:
            os.write(1, b'{"run_directory": null, "status": "interrupted", "score": null}\n')
    os._exit(error.exit_status)
