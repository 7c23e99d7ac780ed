"""Train and judge one config: `python main.py --config=configs/digits_poly.py --config.optim.lr=0.05`.

Exit status: 0 done, 2 bad usage, config or data, 3 non-finite loss, 130/143 interrupted with a checkpoint written. The
last line on stdout is one JSON object: run directory, status and score. `--config=<run directory>/config.json` runs a
saved config again.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; --config.<key>=<value> overrides what it says."
)
RANK = int(os.environ.get("RANK", 0))  # of this process, where a launcher started several
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the config, print it and the run directory, and train nothing.")


def parse(argv: list[str]) -> list[str]:
    """absl's flag parsing, with one line instead of a traceback for what the user can mend."""
    path = config_path(argv)
    if not path or not Path(path).is_file():
        root = Path(__file__).parent
        there_are = ", ".join(sorted(str(file.relative_to(root)) for file in root.glob("configs/**/*.py")))
        fail(f"--config: {f'no file {path}' if path else 'missing'}; there are {there_are}")
    if path.endswith(".json"):
        saved = Path(__file__).parent / "imbalance" / "training" / "saved.py"
        forms = (path, f"--config={path}", f"-config={path}")
        argv = [arg.replace(path, f"{saved}:{path}") if arg in forms else arg for arg in argv]
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        fail(str(error))
    except Exception as error:  # of several kinds; those raised by the config file itself are its author's to see
        if any(frame.filename == path for frame in traceback.extract_tb(error.__traceback__)):
            raise
        fail("--config: " + " ".join(str(error).strip("'\"").replace("\\n", "; ").replace("\\'", "").split()))
    if rest[1:]:
        fail(f"{rest[1]!r}: unexpected argument; an override reads --config.<key>=<value>")
    return rest


def config_path(argv: list[str]) -> str | None:
    """The file that --config names, known before absl reads it."""
    for arg, following in zip(argv, [*argv[1:], None]):
        flag, equals, value = arg.partition("=")
        if flag in ("--config", "-config"):
            return value if equals else following
    return None


def main(argv: list[str]) -> int:
    from imbalance.config import load, origin, run_directory, validate
    from imbalance.errors import BadInput, Diverged, Interrupted

    path = Path(config_path(sys.argv))
    try:
        config = validate(CONFIG.value)
        name, overrides = origin(path)
        directory = run_directory(config, name, load(path), overrides)
        if DRY_RUN.value:
            if not RANK:
                print(f"{json.dumps(config.to_dict(), indent=2)}\n{directory}")
            return 0
        from imbalance.training.loop import train

        result = train(config, directory)
    except BadInput as error:
        fail(str(error))
    except OSError as error:  # a full disk, a data_dir that has gone
        fail(
            f"{error.filename or directory}: {error.strerror}; once mended, the same command goes on from the last checkpoint"
        )
    except (Diverged, Interrupted) as error:  # on all processes alike
        let_the_main_process_speak()
        if not RANK:
            print(error, file=sys.stderr, flush=True)
        print_result(str(directory), error.status, None)
        return error.exit_status
    except Exception:
        let_the_main_process_speak()
        raise
    print_result(result["run_directory"], result["status"], result["score"])
    return 0


def print_result(run_directory: str, status: str, score: float | None) -> None:
    if not RANK:
        print(json.dumps({"run_directory": run_directory, "status": status, "score": score}), flush=True)


def fail(message: str) -> None:
    """One line on stderr and exit status 2."""
    tell(message)
    sys.exit(2)


def tell(message: str) -> None:
    """One line on stderr, also where many processes have it to say."""
    let_the_main_process_speak()
    print(f"process {RANK}: {message}" if RANK else message, file=sys.stderr, flush=True)


def let_the_main_process_speak() -> None:
    """Wait on all processes but the main one, whose message comes first.

    Mostly it has the same to say, and once it has ended the launcher ends the others, too. What only another one has
    to say is seen after the wait; were that one to end first, the launcher might end the main one unheard.
    """
    if RANK:
        time.sleep(3)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
