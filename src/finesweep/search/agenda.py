"""What is tried where no sampler is asked: a plan that hears how its trials end, and may wait for that.

The seam between the broker and such plans, of which a verification's race is one.
"""

from __future__ import annotations

from typing import Protocol

from finesweep.events import Configuration


class Agenda(Protocol):
    """Gives configurations, each once. Rebuilt after a restart by being told what was given and how it ended."""

    def take(self) -> Configuration | None:
        """Give the next configuration; None: nothing more until a trial has ended, or nothing at all."""

    def note_given(self, configuration: Configuration) -> None:
        """Hear of a trial of an earlier drive, in place of giving it."""

    def note_ended(self, configuration: Configuration, value: float | None) -> None:
        """Hear how a trial ended: the value of the leading objective; None unless it is COMPLETE."""

    @property
    def n_left(self) -> int:
        """Count what may still be given; 0 once nothing will be, whatever the trials that run come to."""
