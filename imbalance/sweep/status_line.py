"""Show how many runs are done: on a terminal in one line that is rewritten in place, elsewhere in new lines."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, isnan

from imbalance.metrics.intervals import mean_with_diverged
from imbalance.utils.output import duration, one_line

INTERVAL = 2.0  # seconds between two updates
QUIET = 60.0  # seconds after which a line is printed without a terminal, although no other run is done


def status_text(
    total: int,
    done: int,
    done_before: int,
    running: int,
    scores: Mapping[str, Sequence[float]],
    seconds: float,
    lowest: float = 0.0,
) -> str:
    """Return the progress of a command that trains many runs, in words.

    For example: `12 of 40 runs done (3 before this command), 4 running; highest mean so far lr=0.1: 0.812 over 3 runs;
    2.3 runs a minute, 12m left`.

    Args:
        total: number of runs of the command.
        done: number of runs that are done, with those of `done_before`.
        done_before: number of runs that were done before this command began.
        running: number of runs that are being trained.
        scores: by setting (all config values but the seed), the score of each run that is done, or nan if the run
            diverged. Settings are compared by `mean_with_diverged`.
        seconds: time since this command began.
        lowest: smallest possible score.
    """
    parts = [f"{done} of {total} runs done" + (f" ({done_before} before this command)" if done_before else "")]
    if running:
        parts[0] += f", {running} running"
    means = {setting: mean_with_diverged(values, lowest) for setting, values in scores.items()}
    if sum(mean > -inf for mean in means.values()) > 1:
        best = max(means, key=means.__getitem__)
        valid = [score for score in scores[best] if not isnan(score)]
        n, diverged = len(valid), len(scores[best]) - len(valid)
        text = f"highest mean so far {best}: {sum(valid) / n:.3f} over {n} run{'s' * (n > 1)}"
        parts.append(text + (f", {diverged} diverged" if diverged else ""))
    if done > done_before and seconds > 0:
        rate = (done - done_before) / seconds
        pace = f"{60 * rate:.1f} runs a minute"
        parts.append(pace + (f", {duration((total - done) / rate)} left" if done < total else ""))
    elif running and seconds >= QUIET:
        parts.append(f"{duration(seconds)} so far; every run directory has a log.txt with the epochs")
    return "; ".join(parts)


class StatusLine:
    """Write the status to stderr: on a terminal in one line that rich rewrites, elsewhere in new lines."""

    def __init__(self) -> None:
        self.status, self.shown_at, self.started = None, -inf, time.monotonic()
        self.latest, self.latest_done = "", -1
        if sys.stderr.isatty():
            with suppress(ImportError):
                from rich.console import Console

                self.status = Console(stderr=True).status("")

    def __enter__(self) -> "StatusLine":
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    @property
    def seconds(self) -> float:
        """Return the seconds since this command began."""
        return time.monotonic() - self.started

    def show(self, text: str, done: int, last: bool = False) -> None:
        """Show the text in place of the previous text.

        If the output cannot overwrite a line, each text takes a new line. Then a text is skipped that comes within two
        seconds of the line before, or within a minute of it with the same number of runs done.

        Args:
            done: number of runs that are done.
            last: whether this is the final text, which is never skipped.
        """
        text = one_line(text)
        if self.status:
            from rich.text import Text

            self.status.update(Text(text))
        wait = INTERVAL if done != self.latest_done else QUIET
        if (last or (not self.status and time.monotonic() - self.shown_at >= wait)) and text != self.latest:
            self.shown_at, self.latest, self.latest_done = time.monotonic(), text, done
            print(text, file=sys.stderr, flush=True)
