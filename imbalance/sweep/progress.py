"""How many runs stand, while they are trained: a line that is rewritten on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isnan

from imbalance.training.logging.run_log import duration
from imbalance.utils.output import one_line

INTERVAL = 2.0  # seconds between plain lines


def standing(
    total: int, done: int, before: int, running: int, scores: Mapping[str, Sequence[float]], seconds: float
) -> str:
    """`12 of 40 runs (3 found done), 4 under way; best so far lr=0.1: 0.812 over 3; 2.3 a minute, 12m left`.

    Args:
        before: of those done, how many were so when this command began.
        running: how many are being trained.
        scores: of every setting's runs that are done; the best setting is that of the best mean over seeds.
        seconds: since this command began.
    """
    parts = [f"{done} of {total} runs" + (f" ({before} found done)" if before else "")]
    if running:
        parts[0] += f", {running} under way"
    there = {setting: [s for s in found if not isnan(s)] for setting, found in scores.items()}
    means = {setting: sum(found) / len(found) for setting, found in there.items() if found}
    if len(means) > 1:
        best = max(means, key=means.__getitem__)
        parts.append(f"best so far {best}: {means[best]:.3f} over {len(there[best])}")
    if done > before and seconds > 0:
        rate = (done - before) / seconds
        pace = f"{60 * rate:.1f} a minute"
        parts.append(pace + (f", {duration((total - done) / rate)} left" if done < total else ""))
    return "; ".join(parts)


class Line:
    """The line on stderr: rewritten by rich where that is a terminal, else printed every two seconds, and the last."""

    def __init__(self) -> None:
        self.status, self.shown_at, self.started, self.latest = None, 0.0, time.monotonic(), ""
        if sys.stderr.isatty():
            with suppress(ImportError):
                from rich.console import Console

                self.status = Console(stderr=True).status("")

    def __enter__(self) -> "Line":
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def show(self, text: str, last: bool = False) -> None:
        text = one_line(text)
        if self.status:
            from rich.text import Text

            self.status.update(Text(text))
        if (last or (not self.status and time.monotonic() - self.shown_at >= INTERVAL)) and text != self.latest:
            self.shown_at, self.latest = time.monotonic(), text
            print(text, file=sys.stderr, flush=True)
