"""Run the command line: `imbalance <command> --help`, or `python -m imbalance <command> --help`.

A command is a function with one flag for each of its keyword-only arguments. The module of the function is imported
only when the command runs, so that help and error messages appear at once. `imbalance.cli.commands` lists all commands.
"""

import argparse
import ast
import difflib
import importlib
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from imbalance.cli.commands import COMMANDS, RENAMED_FLAGS, Command
from imbalance.errors import RESUME_HINT, BadInput, Diverged, Interrupted, LostPeer, is_out_of_memory
from imbalance.training.distributed.interrupt import on_stop
from imbalance.utils.launch import check_launch, check_single_process
from imbalance.utils.output import guard_streams, one_line, print_safely
from imbalance.utils.package import __version__

# A process that still beats when another one has ended would print torch's stack trace below the message that counts.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
RANK = int(os.environ.get("RANK", "0")) if os.environ.get("RANK", "0").isdecimal() else 0  # `call` refuses other texts
OVERRIDES = (
    "  --config.<key>=<value>  override a value of the config; may be repeated. If the name of a section\n"
    "                          changes, as in --config.loss.name=vs, type every key of that section"
)
SAME_COMMAND = f"the same command {RESUME_HINT}"
GROUPS = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS if " " in name)  # first words of two-word commands

# First words of the commands that train; other commands leave no checkpoint to resume from.
RESUMES = ("train", "sweep", "compare", "protocol", "select", "reproduce", "features")

# First words of the commands that a launcher may start several times: they share their work, or only print. Any other
# command would train its runs in parts, or write a file twice at once.
MANY_PROCESSES = ("train", "features", "list", "completion")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with safe output streams and signal handlers, and return the exit status."""
    guard_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    on_stop(lambda signum, frame: exit_on_signal(signum, trains=argv[:1] == ["train"]))
    return call(argv)


def call(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status, as `main` does, but leave streams and signals alone."""
    try:
        if argv == ["--version"]:
            print(__version__)
            return 0
        name, rest = command_of(argv)
        if name is None:
            print(overview(argv[0] if argv and argv[0] in GROUPS else ""))
            return 0
        if {"-h", "--help"} & set(rest):
            print(help_of(name))
            return 0
        check_launch()
        if name.partition(" ")[0] not in MANY_PROCESSES:
            check_single_process(name)
        arguments = arguments_of(name, rest)
        check_configs(arguments)
        if announcement := COMMANDS[name].announce(arguments):  # before imports and checks take seconds
            print(one_line(f"{name}: {announcement}"), file=sys.stderr, flush=True)
        return run_command(COMMANDS[name], arguments)
    except BadInput as error:
        has_more = len(getattr(error, "problems", ())) > 1
        return refuse(f"{error}; imbalance data verify lists all" if has_more else str(error))
    except LostPeer as error:
        return refuse(f"{error}; {SAME_COMMAND}")
    except OSError as error:  # a full disk, or a data_dir that was removed
        cause = f"{error.filename or 'imbalance'}: {error.strerror or error}"
        resumes = argv[0] in RESUMES
        return refuse(f"{cause}; fix that, and {SAME_COMMAND if resumes else 'type the command again'}")


def command_of(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split `argv` into the name of a command, such as "train" or "data verify", and the words after the name.

    The name is None if `argv` is empty, or asks for help on all commands (`--help`) or on some (`data --help`).

    Raises:
        BadInput: no command has this name.
    """
    words = [word for word in argv[:2] if not word.startswith("-")]
    for count in (2, 1):
        if " ".join(words[:count]) in COMMANDS and len(words) >= count:
            return " ".join(words[:count]), list(argv[count:])
    if ({"-h", "--help"} & set(argv) or not argv) and (not words or words[0] in GROUPS):
        return None, []
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")] if words and words[0] in GROUPS else []
    unknown = " ".join(words[: 2 if group else 1]) or argv[0]
    hint = f"type {' or '.join(group)}" if group and len(words) == 1 else did_you_mean(unknown, group or COMMANDS)
    raise BadInput(f"{unknown}: no such command; {hint or 'imbalance --help lists them'}")


def did_you_mean(word: str, valid: Collection[str]) -> str:
    """Return "did you mean …?" with up to three words of `valid` that are spelt similarly to `word`.

    If none is similar, suggest all of `valid`, or return "" if these are more than eight.
    """
    near = difflib.get_close_matches(word, valid) or (list(valid) if len(valid) <= 8 else [])
    return f"did you mean {' or '.join(near)}?" if near else ""


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `BadInput` instead of printing the usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise BadInput(message.replace("ignored explicit argument", "takes no value, and was given"))


def parser_of(name: str) -> Parser:
    """Return the parser of a command, with its flags."""
    command = COMMANDS[name]
    parser = Parser(prog=f"imbalance {name}", add_help=False, allow_abbrev=False)
    for flag in command.flags:
        parser.add_argument(*flag.names, **flag.options)
    return parser


def arguments_of(name: str, argv: list[str]) -> dict[str, Any]:
    """Return the arguments with which to call the function of the command `name`.

    Raises:
        BadInput: a flag is unknown, missing, given twice, or lacks a value that it takes.
    """
    from imbalance.config.override_flags import PREFIX, split_overrides

    command, parser = COMMANDS[name], parser_of(name)
    overrides, rest = split_overrides(argv) if command.overrides else ({}, argv)
    for action in parser._actions:  # argparse would drop the first of two values without a message
        if action.option_strings and not isinstance(action, argparse._AppendAction):
            uses = [word for word in rest if word.partition("=")[0] in action.option_strings]
            if len(uses) > 1:
                takes_list = isinstance(action.metavar, str) and ",…" in action.metavar
                hint = "put commas between the values" if takes_list else "leave one of them out"
                raise BadInput(f"{uses[1]}: {uses[0]} was given before it; {hint}")
    arguments, unknown = parser.parse_known_args(rest)
    if unknown:
        raise BadInput(f"{unknown[0]}: unknown; {_hint_for_unknown(unknown[0], name, parser, PREFIX)}")
    values = vars(arguments)
    if "jobs" in values and values["jobs"] is None:
        values["jobs"] = max(1, (os.cpu_count() or 1) // values.get("processes_per_run", 1))
    return values | ({"overrides": overrides} if command.overrides else {})


def check_configs(arguments: Mapping[str, Any]) -> None:
    """Raise `BadInput` if a config that the arguments name does not exist; this needs no import of the command's module."""
    from imbalance.config.files import config_file

    names = arguments.get("config") or ()
    for name in (names,) if isinstance(names, str) else names:
        config_file(name)


def _hint_for_unknown(word: str, name: str, parser: Parser, prefix: str) -> str:
    """Return a hint on what to type instead of `word`, an argument that the command `name` does not have.

    Args:
        prefix: the beginning of overrides, `--config.`.
    """
    if word.startswith(prefix):
        return f"imbalance {name} takes no overrides of a config, so leave it out"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    if not word.startswith("-") and COMMANDS[name].overrides:
        named = "" if "=" in word else f"name a config as --config={word}, and "
        return f"{named}type an override as {prefix}<key>=<value>"
    old, equals, value = word.partition("=")
    old = f"--{old[2:].replace('-', '_')}" if old.startswith("--") else old
    if (new := RENAMED_FLAGS.get(old, "")) in flags:
        return f"{old} is now called {new}; type {new}{equals}{value} instead"
    is_near = bool(difflib.get_close_matches(old, flags))  # then answer without the slow import of the config
    if not is_near and COMMANDS[name].overrides and (key := config_key(old)):
        return f"type {prefix}{key}={value or '<value>'}"
    near = did_you_mean(old, flags) if word.startswith("-") else ""
    return near or f"imbalance {name} --help lists its arguments"


def config_key(flag: str) -> str:
    """Return the key of a config that a flag such as "--epochs" means, "trainer.epochs"; "" if no key has this name."""
    from imbalance.config.experiment import Callbacks, Experiment, Trainer
    from imbalance.config.registries import ENTRY_POINTS

    keys = {"lr": "optim.lr", "learning_rate": "optim.lr", "weight_decay": "optim.weight_decay"}
    for section, kind in (("", Experiment), ("trainer.", Trainer), ("callbacks.", Callbacks)):
        keys |= {field.name: section + field.name for field in fields(kind)}
    keys |= {section: f"{section}.name" for section in ENTRY_POINTS if "." not in section}
    del keys["trainer"], keys["callbacks"]
    return keys.get(flag.removeprefix("--"), "")


def run_command(command: Command, arguments: Mapping[str, Any]) -> int:
    """Call the function of `command`, and return the exit status.

    If the function returns a string, print it and return 0; if it returns a number, that is the exit status.
    """
    from imbalance.config.user_modules import user_code_errors

    module, _, function = command.function.partition(":")
    try:
        with user_code_errors():
            result = getattr(importlib.import_module(module), function)(**arguments)
    except (Interrupted, KeyboardInterrupt):
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if type(error).__name__ != "BrokenProcessPool":
            raise
        print("a worker was killed (for lack of memory?); the same command resumes", file=sys.stderr)
        return 1
    if isinstance(result, str):
        if not RANK:
            print(result)
        return 0
    return result or 0


# Help


def overview(group: str) -> str:
    """Return the list of commands, with one line for each.

    Args:
        group: first word of the commands to list, such as "data"; "" lists all commands.
    """
    names = [name for name in COMMANDS if name.startswith(group) and not COMMANDS[name].hidden]
    width = max(map(len, names)) + 2
    lines = [f"usage: imbalance {group or '<command>'} … [--help]{'' if group else ' [--version]'}", ""]
    lines += [f"  {name:{width}}{COMMANDS[name].about}" for name in names]
    return "\n".join([*lines, "", "Name a config by its file or its name: --config=configs/digits_poly.py, --config=digits_poly."])  # fmt: skip


def help_of(name: str) -> str:
    """Return the help of a command: its purpose and its flags. The command's module is not imported."""
    command, parser = COMMANDS[name], parser_of(name)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = module_docstring(command) or command.about
    parser.epilog = OVERRIDES if command.overrides else None
    return parser.format_help().rstrip()


def module_docstring(command: Command) -> str:
    """Return the docstring of the module with the function of `command`, for the help; "" if `documented` is False."""
    if not command.documented:
        return ""
    spec = find_spec(command.function.partition(":")[0])
    assert spec is not None and spec.origin is not None  # never None for a module that is a file
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


# One run


def train(*, config: str, dry_run: bool, overrides: Mapping[str, Any]) -> int:
    """Train and evaluate one config; with `dry_run`, do all checks that come before the first step, and stop."""
    from imbalance.config.resolve import resolve

    experiment, directory = resolve(config, overrides)
    if not dry_run:
        return run(experiment, directory)
    from imbalance.training.loop import dry_run as check_run

    check_run(experiment, directory)
    if not RANK:
        print(f"{json.dumps(experiment.to_dict(), indent=2)}\n{directory}")
    return 0


def run(config: Any, directory: Path) -> int:
    """Train `config` in `directory`, print the result, and return the exit status."""
    from imbalance.training.distributed import heartbeat
    from imbalance.training.loop import train

    def report_loss(error: LostPeer) -> None:
        print_result(str(directory), "interrupted", None, printing_rank=next_rank(error.ranks))

    def end_on_loss(error: LostPeer) -> NoReturn:
        report_loss(error)
        refuse(f"{error}; {SAME_COMMAND}")
        os._exit(2)

    heartbeat.on_loss = end_on_loss
    try:
        result = train(config, directory)
    except LostPeer as error:
        report_loss(error)
        raise
    except (Diverged, Interrupted) as error:  # every rank raises it, so only rank 0 prints it
        wait_for_main_process()
        tell_torchrun(one_line(str(error)))
        if not RANK:
            print(one_line(str(error)), file=sys.stderr, flush=True)
        print_result(str(directory), error.status, None)
        return error.exit_status
    except (BadInput, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise BadInput(
                f"out of memory ({str(error).splitlines()[0]}); choose a smaller config.model, "
                "config.trainer.batch_size or eval_batch_size, or a larger config.trainer.accumulation"
            ) from None
        wait_for_main_process()
        raise
    print_result(result["run_directory"], result["status"], result["score"])
    return 0


def next_rank(lost: Sequence[int]) -> int:
    """Return the lowest rank of a process that is alive; `lost` has the ranks of processes that have ended."""
    return next(rank for rank in range(len(lost) + 1) if rank not in lost)


def print_result(run_directory: str | None, status: str, score: float | None, printing_rank: int = 0) -> None:
    """Print the last line of stdout, one JSON object, on the rank `printing_rank` only. A non-finite score becomes null."""
    if printing_rank == RANK:
        score = score if score is not None and abs(score) < float("inf") else None
        print_safely(json.dumps({"run_directory": run_directory, "status": status, "score": score}), sys.stdout)


# Early ends


def refuse(message: str) -> int:
    """Print `message` as one line on stderr, and return exit status 2. Ranks above 0 put their rank before it."""
    wait_for_main_process()
    line = f"process {RANK}: {one_line(message)}" if RANK else one_line(message)
    print_safely(line, sys.stderr)
    tell_torchrun(line)
    return 2


def tell_torchrun(line: str) -> None:
    """Write `line` to the file that torchrun reads after a failure, so that torchrun's own last lines repeat `line`."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))


def wait_for_main_process() -> None:
    """Wait 3 seconds on every rank but 0, so that rank 0 prints its message first.

    Usually all ranks have the same message. Rank 0 prints it and ends, and the launcher then ends the waiting ranks. A
    rank that alone has a message prints it after the wait. Without the wait that rank could end first, and the launcher
    would end rank 0 before rank 0 has printed its message.
    """
    if RANK:
        time.sleep(3)


def exit_on_signal(signum: int, trains: bool) -> NoReturn:
    """End the process after a signal that came before or after training, when there is nothing to save.

    Args:
        signum: the number of the signal; it decides the exit status.
        trains: true for the command `train`, which must print a JSON object as the last line on stdout.
    """
    wait_for_main_process()
    if util := sys.modules.get("multiprocessing.util"):
        util._run_finalizers(0)  # removes the semaphores of workers, or Python would print a warning about leaked ones
    error = Interrupted(signum)
    if not RANK:
        os.write(2, f"{error if trains else 'stopped; the same command resumes'}\n".encode())
        if trains:
            os.write(1, b'{"run_directory": null, "status": "interrupted", "score": null}\n')
    os._exit(error.exit_status)
