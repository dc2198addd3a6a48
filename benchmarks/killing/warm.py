"""What a driver needs, imported: drivers that are forked from here start at once. To be imported, no more."""

from __future__ import annotations

import optuna
import pandas
import rich.console

import finesweep.driver
import finesweep.export.record_text
import finesweep.results.frames
import finesweep.scheduling.inline
import finesweep.search.broker
import finesweep.search.mirror
import finesweep.sweeps
import finesweep.training.function
import finesweep.views.live
import finesweep.views.tables

__all__ = ["finesweep", "optuna", "pandas", "rich"]
