"""What is shown while a job runs and after it: lines, bars, a live table of members, short tables."""

from __future__ import annotations

import pathlib
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg import jobs
from jaxrl_reg.errors import need

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 16  # members in the live table


class Display:
    """Lines, progress bars and a table of members on a terminal; lines only where the output is not one."""

    def __init__(self, console: Any = None) -> None:
        need("rich")
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(highlight=False, soft_wrap=True) if console is None else console
        self.live = self.console.is_terminal
        self._members: Sequence[jobs.Standing] = ()
        self._tasks: dict[str, Any] = {}
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self._screen = Live(console=self.console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Display:
        if self.live:
            self._screen.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._members = ()  # the report has them all
        if self.live:
            self._screen.stop()

    def _render(self) -> Any:
        need("rich")
        from rich.console import Group
        from rich.table import Table

        if not self._members:
            return self._bar
        rows = member_rows(self._members, max(3, min(MOST_SHOWN, self.console.height - 8)))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for i, heading in enumerate(rows[0]):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        return Group(self._bar, table)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def tick(self, tick: jobs.Tick) -> None:
        if not self.live:
            if tick.done:
                self.say(f"{tick.stage}: {progress_text(tick)}")
            return
        self._members = tick.members
        if tick.stage not in self._tasks:
            self._tasks[tick.stage] = self._bar.add_task(tick.stage, total=tick.total, text="")
        self._bar.update(self._tasks[tick.stage], total=tick.total, completed=tick.done, text=progress_text(tick))
        self._screen.refresh()


def progress_text(tick: jobs.Tick) -> str:
    """``2,000 of 20,000  1,234 updates/s  0:42 left  score 12.3``"""
    if not tick.done:
        return "compiled, first part under way"
    minutes, seconds = divmod(round(tick.eta_seconds), 60)
    left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
    parts = [f"{tick.done:,} of {tick.total:,}", f"{tick.per_second:,.0f} {tick.unit}/s", f"{left} left"]
    if tick.score is not None:
        parts.append(f"{tick.score_name} {tick.score:,.1f}")
    return "  ".join(parts)


def member_rows(members: Sequence[jobs.Standing], most: int) -> list[list[str]]:
    """The best ``most`` members as rows of text, headings first, and how many there are besides."""
    rows = [["member", "seed", "updates", "score", ""]]
    for one in members[:most]:
        score = f"{one.score:,.1f}" if one.score == one.score else ""
        rows.append([one.label, str(one.seed), f"{one.updates:,}", score, one.state])
    if len(members) > most:
        states = [one.state for one in members[most:]]
        words = [f"{states.count(state)} {state}" for state in ("diverged", "stopped", "waiting") if state in states]
        rows.append([f"and {len(members) - most:,} more" + (f", {', '.join(words)}" if words else ""), "", "", "", ""])
    return rows


def print_table(display: Display, table: pd.DataFrame, directory: pathlib.Path) -> None:
    """The report's table in short, as many columns as the terminal has room for, and where the report is; before it,
    of a run that went on from another task, the returns in all tasks, and in a world with levels, how many are solved.
    """
    from jaxrl_reg.evaluation.report import brief

    for name in ("met", "sets"):
        if name in table.attrs:
            print_rows(display, table.attrs[name])
    print_rows(display, brief(table), directory)


def print_rows(display: Display, rows: Sequence[Sequence[str]], directory: pathlib.Path | None = None) -> None:
    """Rows of text with the headings first, and where the report is, if it is named."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    shown, room = 1, display.console.width if display.live else 10_000
    while shown < len(widths) and sum(widths[: shown + 1]) + 2 * shown <= room:
        shown += 1
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in range(1, shown))]
        display.say("  ".join(cells).rstrip())
    if directory is not None:
        display.say(f"report: {directory / 'report.html'}")


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Left-aligned columns; the last one is wrapped to the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    start = len(indent) + sum(width + 2 for width in widths)
    room = max(30, min(shutil.get_terminal_size((110, 20)).columns, 140) - start)
    lines = []
    for row in rows:
        head = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        for i, line in enumerate(textwrap.wrap(row[-1], room) or [""]):
            lines.append((head if i == 0 else " " * start) + line)
    return "\n".join(line.rstrip() for line in lines)
