"""Complete commands in a shell: type `source <(imbalance completion bash)`, or put this line in .bashrc."""

from pathlib import Path

SCRIPTS = {
    "bash": """_imbalance() {
    local IFS=$'\\n'
    COMPREPLY=($(imbalance complete -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    compopt -o nospace
}
complete -o default -F _imbalance imbalance""",
    "zsh": """#compdef imbalance
_imbalance() { compadd -Q -S '' -- ${(f)"$(imbalance complete --whole -- "${BUFFER[1,CURSOR]}" 2>/dev/null)"} }
compdef _imbalance imbalance""",
    "fish": "complete -c imbalance -a '(imbalance complete --whole -- (commandline -cp) 2>/dev/null)'",
}


def script(*, shell: str) -> str:
    """Return the script that the shell named `shell` must run to complete commands."""
    return SCRIPTS[shell]


def candidates(*, line: str, whole: bool) -> str:
    """Return the words that can complete the last word of a command line, as text with one word a line.

    Args:
        line: the command line as typed so far.
        whole: return each completed word in full; otherwise only its text after the last =, because bash breaks words
            at =.
    """
    *before, word = line.split(" ")[1:] or [""]
    before = [part for part in before if part]
    start = 0 if whole or "=" not in word else word.rindex("=") + 1
    return "\n".join(candidate[start:] for candidate in next_words(before, word) if candidate.startswith(word))


def next_words(before: list[str], word: str) -> list[str]:
    """Return all words that can be typed next, whatever `word` is; the caller keeps those that start with `word`.

    Args:
        before: the complete words between `imbalance` and `word`.
        word: the last word as typed so far; `--config=` asks for config names, and `--config.` for config keys.
    """
    from imbalance.cli.commands import COMMANDS
    from imbalance.cli.main import command_of, parser_of
    from imbalance.errors import BadInput

    try:
        name, _ = command_of(before)
    except BadInput:
        name = None
    if name is None:
        start = " ".join([*before, ""])
        names = [name for name, command in COMMANDS.items() if not command.hidden and name.startswith(start)]
        return sorted({name.removeprefix(start).split(" ")[0] + " " for name in names})
    command = COMMANDS[name]
    flags = [flag for action in parser_of(name)._actions for flag in action.option_strings]
    if word.startswith("--config="):
        from imbalance.config.files import config_files_by_name

        complete_names = word.rpartition(",")[0]
        start = f"{complete_names}," if complete_names else "--config="
        return [start + name for name in config_files_by_name()]
    if command.overrides and word.startswith("--config."):
        return [f"--config.{key}=" for key in config_keys(before)]
    options = ["" if action.nargs == 0 else "=" for action in parser_of(name)._actions for _ in action.option_strings]
    return [flag + equals for flag, equals in zip(flags, options)] + (["--config."] if command.overrides else [])


def config_keys(before: list[str]) -> list[str]:
    """Return all keys of the config that is named by the word `--config=…` in `before`; [] if there is no such word."""
    from imbalance.config.resolve import config_file, load
    from imbalance.config.schema import flatten

    names = [part.removeprefix("--config=").split(",")[0] for part in before if part.startswith("--config=")]
    return sorted(flatten(load(config_file(Path(names[-1]))))) if names else []
