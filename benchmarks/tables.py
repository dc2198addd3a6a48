"""Tables, aims and the arithmetic behind them. In: numbers. Out: plain text, Markdown, JSON values. Knows no arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]  # the first one is text, the others are numbers
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Lay the table out for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        laid = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))  # noqa: B905  # rows are as long as the head
            for line in lines
        ]
        return "\n".join([self.title, "", *(line.rstrip() for line in laid)])

    def markdown(self) -> str:
        head = [_row(self.columns), _row(["---", *["---:"] * (len(self.columns) - 1)])]
        return "\n".join([f"**{self.title}**", "", *head, *map(_row, self.rows)])


@dataclass(frozen=True, slots=True)
class Aim:
    """What was to be reached, and what was: `got` is None where it was not measured."""

    what: str
    bound: float
    got: float | None
    at_most: bool = False  # otherwise at least

    @property
    def is_met(self) -> bool | None:
        if self.got is None:
            return None
        return self.got <= self.bound if self.at_most else self.got >= self.bound

    def line(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        sign = "at most" if self.at_most else "at least"
        return f"{self.what}: {number(self.got)}, aim {sign} {number(self.bound)}: {word}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of a benchmark has to say, as it is kept in `results/`."""

    name: str
    command: str
    machine: tuple[str, ...]
    tables: tuple[Table, ...]
    aims: tuple[Aim, ...]
    notes: tuple[str, ...]  # how to read this run: what was extrapolated, seeds, noise
    measured: Any  # JSON: everything the tables were made of

    def text(self) -> str:
        parts = ["\n".join(self.machine), *(table.text() for table in self.tables)]
        return "\n\n".join([*parts, "\n".join(aim.line() for aim in self.aims), "\n".join(self.notes)]).strip()

    def markdown(self) -> str:
        """Render what stands in docs/benchmarks.md between the marks."""
        parts = [f"`{self.command}`", "; ".join(self.machine), *(table.markdown() for table in self.tables)]
        said = [*(f"- {aim.line()}" for aim in self.aims), *(f"- {note}" for note in self.notes)]
        return "\n\n".join([*parts, "\n".join(said)]).strip()

    def values(self) -> dict[str, Any]:
        return asdict(self)


def read_report(values: Mapping[str, Any]) -> Report:
    """Make a report of what `Report.values` gave and JSON has kept."""
    tables = (
        Table(table["title"], tuple(table["columns"]), tuple(map(tuple, table["rows"]))) for table in values["tables"]
    )
    return Report(
        name=values["name"],
        command=values["command"],
        machine=tuple(values["machine"]),
        tables=tuple(tables),
        aims=tuple(Aim(**aim) for aim in values["aims"]),
        notes=tuple(values["notes"]),
        measured=values["measured"],
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a sweep cost, or would have cost."""

    trials: int
    training_cpu_s: float | None  # inside the trials, from the beginning of training to the last evaluation's end
    cpu_s: float  # of the process and all its descendants, start and imports included
    wall_s: float
    is_extrapolated: bool = False


def extrapolate(spent: Spent, trials: int, *, cpu_s_of_trials: float, wall_s_of_trials: float) -> Spent:
    """Tell what `trials` would have cost from the few that ran.

    Only what the trials themselves cost is multiplied, `cpu_s_of_trials` and `wall_s_of_trials` of the whole; the rest
    (starting, tokenising, stopping) is paid once.
    """
    if trials <= spent.trials:
        return spent
    times = trials / spent.trials
    return Spent(
        trials=trials,
        training_cpu_s=None if spent.training_cpu_s is None else spent.training_cpu_s * times,
        cpu_s=spent.cpu_s + cpu_s_of_trials * (times - 1),
        wall_s=spent.wall_s + wall_s_of_trials * (times - 1),
        is_extrapolated=True,
    )


def ratio(peer: float | None, ours: float | None) -> float | None:
    return peer / ours if peer is not None and ours else None


def number(value: float | None, *, about: bool = False) -> str:
    """Write a number with three digits or so, as the eye needs them; `about` marks what was extrapolated."""
    if value is None:
        return "–"
    if value == 0:
        text = "0"
    elif abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    elif abs(value) >= 1:
        text = f"{value:.2f}"
    elif abs(value) >= 0.001:
        text = f"{value:.3f}"
    else:
        text = f"{value:.1e}"
    return f"~{text}" if about else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
