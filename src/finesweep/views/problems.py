"""What goes wrong beside the trials and harms none of them, told once: a tracker that cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finesweep.events import AttemptDescribed, Event

TRACKER_PROBLEMS = "tracker_problems"  # a fact of an attempt: tracker -> what went wrong


class TrackerProblems:
    """A listener that says of each tracker what went wrong there first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            problems = event.facts.get(TRACKER_PROBLEMS) if isinstance(event, AttemptDescribed) else None
            for tracker, problem in problems.items() if isinstance(problems, dict) else ():
                if tracker not in self._told:
                    self._told.add(tracker)
                    self._say(f"trial {event.number} is not shown in {tracker} any further, but goes on: {problem}")
