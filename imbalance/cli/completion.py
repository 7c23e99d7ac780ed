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
    """Return the script that a shell must run."""
    return SCRIPTS[shell]


def candidates(*, line: str, whole: bool) -> str:
    """Return the words that the last word of `line` can become, one on each line.

    Args:
        whole: return whole words; otherwise only the part after their last =, at which bash breaks words.
    """
    *before, word = line.split(" ")[1:] or [""]
    before = [part for part in before if part]
    start = 0 if whole or "=" not in word else word.rindex("=") + 1
    return "\n".join(candidate[start:] for candidate in next_words(before, word) if candidate.startswith(word))


def next_words(before: list[str], word: str) -> list[str]:
    """Return every word that may follow the words `before`; `word` is the start of it."""
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
        from imbalance.config.resolve import CONFIGS

        complete_names = word.rpartition(",")[0]
        start = f"{complete_names}," if complete_names else "--config="
        return [start + path.stem for path in sorted(CONFIGS.rglob("*.py"))]
    if command.overrides and word.startswith("--config."):
        return [f"--config.{key}=" for key in config_keys(before)]
    options = ["" if action.nargs == 0 else "=" for action in parser_of(name)._actions for _ in action.option_strings]
    return [flag + equals for flag, equals in zip(flags, options)] + (["--config."] if command.overrides else [])


def config_keys(before: list[str]) -> list[str]:
    """Return the keys of the config that the line names."""
    from imbalance.config.resolve import config_file, load
    from imbalance.config.schema import flatten

    names = [part.removeprefix("--config=").split(",")[0] for part in before if part.startswith("--config=")]
    return sorted(flatten(load(config_file(Path(names[-1]))))) if names else []
