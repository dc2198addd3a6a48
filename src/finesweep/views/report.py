"""A sweep as one HTML file that needs nothing else: what it says in words, plots, trials, failures, provenance.

Plotly's script is in the file, so it opens without a network; whatever names, labels and tracebacks hold is text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.results.frames import Results
from finesweep.spec.sweep import model_name
from finesweep.verification.outcome import known_outcome
from finesweep.views.failures import failure_groups
from finesweep.views.findings import findings
from finesweep.views.plots import Plots, importance_figure, plotly_script
from finesweep.views.printing import html_table
from finesweep.views.selection import Selection
from finesweep.views.tables import leaderboard
from finesweep.views.verified import verification_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TRIALS = 1000  # in the table, the best first
MOST_GROUPS = 10  # of failures, by reason

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.what { color: var(--quiet); }
.advice { display: block; font-family: ui-monospace, monospace; font-size: .9em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem .15rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
figure { margin: 1.5rem 0; background: white; color: black; } figcaption { padding: .5rem; }
pre { overflow-x: auto; font-size: .8rem; }
"""


def report_html(
    results: Results, sweep: str, importances: pd.DataFrame, *, clock: Callable[[], float] = time.time
) -> str:
    """Write the report of a sweep. Raises ResultsError without plotly, SweepNameError for an unknown sweep."""
    spec = results.spec(sweep)
    what = [spec.task, model_name(spec), spec.study.objective.metric]
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(clock()))
    parts = [
        f"<h1>{escape(sweep)}</h1>",
        f'<p class="what">{escape(" · ".join(part for part in what if part))} · {made}</p>',
        _abstract(results, sweep, importances),
        _verification(results, sweep),
        *_figures(results, sweep, importances),
        _trials(results, sweep),
        _failures(results, sweep),
        _provenance(results, sweep),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(sweep)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n<script>{plotly_script()}</script>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _abstract(results: Results, sweep: str, importances: pd.DataFrame) -> str:
    items = []
    for found in findings(results, sweep, importances):
        advice = "" if found.advice is None else f'<span class="advice">{escape(found.advice)}</span>'
        items.append(f"<li>{escape(found.text)}{advice}</li>")
    return f"<ul>\n{chr(10).join(items)}\n</ul>"


def _verification(results: Results, sweep: str) -> str:
    outcome = known_outcome(results, sweep)
    if outcome is None:
        return ""
    return f'<h2>Verification</h2>\n<div class="wide">{html_table(verification_table(outcome))}</div>'


def _figures(results: Results, sweep: str, importances: pd.DataFrame) -> Iterator[str]:
    plots = Plots(results)
    curves_note = "The incumbent is bold, pruned trials are thin, rungs are dotted."
    note = "Over COMPLETE trials alone: what pruning took out is not seen."
    drawings: tuple[tuple[str, str, Callable[[], Figure]], ...] = (
        ("Learning curves", curves_note, lambda: plots.curves(sweep)),
        ("Parallel coordinates", "COMPLETE trials, over the ranges of the study.", lambda: plots.parallel(sweep)),
        ("Importance", note, lambda: importance_figure(sweep, importances)),
        ("Front", "Trials that no other beats are diamonds.", lambda: plots.pareto(sweep)),
        ("Timeline", "Which trial was where when; a gap is idle time.", lambda: plots.timeline(sweep)),
    )
    for title, caption, draw in drawings:
        try:
            drawn = draw()
        except ResultsError:  # there is nothing to show of it
            continue
        html = drawn.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
        yield f"<h2>{title}</h2>\n<figure>{html}<figcaption>{escape(caption)}</figcaption></figure>"


def _trials(results: Results, sweep: str) -> str:
    n_trials = len(results.trials(sweep))
    table = leaderboard(results, sweep, selection=Selection(top=MOST_TRIALS))
    cut = f"<p>The first {MOST_TRIALS:,} of {n_trials:,}, best first.</p>" if n_trials > MOST_TRIALS else ""
    return f'<h2>Trials</h2>\n{cut}<div class="wide">{html_table(table)}</div>'


def _failures(results: Results, sweep: str) -> str:
    groups = failure_groups(results.trials(sweep), results.attempts(sweep))
    items = [
        f"<details><summary>{len(group.numbers)} × {escape(group.reason)}</summary>"
        f"<p>Trials {', '.join(map(str, group.numbers))}.</p>"
        f"<pre>{escape(group.traceback or 'No traceback was kept.')}</pre></details>"
        for group in groups[:MOST_GROUPS]
    ]
    return "\n".join(["<h2>Failures</h2>", *items]) if items else ""


def _provenance(results: Results, sweep: str) -> str:
    known = {"provenance": dict(results.provenance(sweep)), "sweep": results.spec(sweep).model_dump(mode="json")}
    text = json.dumps(known, indent=2, ensure_ascii=False, default=str)
    summary = "Versions, data, model, settings"
    return f"<h2>Provenance</h2>\n<details><summary>{summary}</summary><pre>{escape(text)}</pre></details>"
