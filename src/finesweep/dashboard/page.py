"""What every page is made with: templates whose values are escaped, tables as cells, links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request

from finesweep.dashboard.cached import CachedResults
from finesweep.results.url import redacted
from finesweep.views.printing import duration_text, is_left, shown_cells
from finesweep.views.tables import Table

_templates = Environment(
    loader=PackageLoader("finesweep.dashboard"),
    autoescape=True,  # whatever a sweep, a label or a traceback holds is text
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def sweep_link(sweep: str) -> str:
    return f"/sweep/{quote(sweep, safe='')}"


def trial_link(sweep: str, number: int) -> str:
    return f"{sweep_link(sweep)}/trial/{number}"


_templates.globals.update(sweep_link=sweep_link, trial_link=trial_link)
_templates.filters.update(duration=duration_text)


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    is_number: bool
    link: str | None = None
    state: str | None = None  # a state of a trial or sweep, which has a mark of its own


@dataclass(frozen=True, slots=True)
class Head:
    text: str
    is_number: bool
    key: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as a template writes it."""

    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]


def grid_of(table: Table, *, link: Callable[[Mapping[str, Any], str], str | None] | None = None) -> Grid:
    """Make a table's cells; `link` gives the address that a cell of a row leads to, by the column's key."""
    columns, cells = shown_cells(table)
    rows = [
        [
            Cell(
                text,
                is_number=not is_left(column),
                link=link(row, column.key) if link is not None and text else None,
                state=text if column.key == "state" else None,
            )
            for column, text in zip(columns, texts, strict=True)
        ]
        for row, texts in zip(table.rows, zip(*cells, strict=True), strict=True)
    ]
    return Grid([Head(column.header, not is_left(column), column.key) for column in columns], rows)


def rendered(template: str, request: Request, **values: Any) -> str:
    """Fill in a template. `values` are what it names."""
    shared = {"database": redacted(results_of(request).url), "path": request.url.path}
    return _templates.get_template(template).render(shared | values)


def results_of(request: Request) -> CachedResults:
    results: CachedResults = request.app.state.results
    return results


def with_query(path: str, pairs: Iterable[tuple[str, object]]) -> str:
    """Write an address with those parameters that have a value."""
    told = [(name, value) for name, value in pairs if value not in (None, "")]
    return f"{path}?{urlencode(told)}" if told else path
