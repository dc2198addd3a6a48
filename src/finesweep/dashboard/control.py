"""Buttons of a sweep's page: stop, resume, extend. There only with `--control`.

In: a form. Out: what the command line said, whose verbs do the work in a process of their own; this one writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from finesweep.dashboard.home import SweepLine
from finesweep.dashboard.page import results_of, sweep_link
from finesweep.dashboard.words import moment_text
from finesweep.spec.sweep import MOST_TRIALS

MOST_BYTES = 1000  # of a form

Verb = Callable[[Sequence[str]], str]  # words of the command line, without `finesweep` -> what it said


@dataclass(slots=True)
class Control:
    """Runs verbs and remembers what the last one of each sweep said."""

    verb: Verb
    clock: Callable[[], float] = time.time
    said: dict[str, str] = field(default_factory=dict)

    def act(self, sweep: str, words: Sequence[str]) -> None:
        """Run a verb on a sweep; whatever it says is kept for the page."""
        self.said[sweep] = f"{moment_text(self.clock())}: {self.verb(words)}"


async def act(request: Request) -> Response:
    """Do what a button asks for, and show the sweep's page again. Raises HTTPException for what no button sends."""
    control: Control = request.app.state.control
    form = await _form(request)
    sweep = str(request.path_params["sweep"])
    results = results_of(request)

    def do() -> None:
        results.mark(sweep)  # raises for a name that is not there
        control.act(sweep, _words(sweep, form))

    await run_in_threadpool(do)
    return RedirectResponse(sweep_link(sweep), 303)


def values(request: Request, line: SweepLine) -> dict[str, Any]:
    """Give what the buttons of a sweep's page need; `control` is None where there are none."""
    control: Control | None = request.app.state.control
    if control is None:
        return {"control": None}
    return {
        "control": {
            "can_stop": line.state == "RUNNING",
            "can_resume": line.state != "RUNNING" and (line.state != "FINISHED" or line.n_ended < line.n_budget),
            "n_budget": line.n_budget,
            "most": MOST_TRIALS,
            "said": control.said.get(line.name),
        }
    }


def _words(sweep: str, form: Mapping[str, str]) -> list[str]:
    match form.get("verb"):
        case "stop":
            return ["stop", sweep]
        case "resume":
            return ["resume", sweep, "--detach"]
        case "extend":
            trials = form.get("trials", "")
            if not (trials.isascii() and trials.isdecimal()) or len(trials) > 10:
                raise HTTPException(400, "The total of trials must be a whole number.")
            return ["extend", sweep, f"--trials={trials}"]
        case _:
            raise HTTPException(400, "There is no such button.")


async def _form(request: Request) -> Mapping[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "That is no form of this page.")
    return {name: found[-1] for name, found in parse_qs(body.decode("latin-1")).items()}
