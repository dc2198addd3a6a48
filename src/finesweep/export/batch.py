"""How the effective batch of a trial is spread over devices: the same examples in an optimizer step, on how many ever.

In: a record, a number of devices. Out: rows of a device and steps of accumulation, or why there are none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finesweep.errors import ExportError
from finesweep.export.record import ExportRecord
from finesweep.spec.settings import largest_divisor

_MOST_NAMED = 8  # numbers in a message


@dataclass(frozen=True, slots=True)
class Spread:
    """batch_size = n_devices * device_batch_size * accumulation."""

    batch_size: int
    n_devices: int
    device_batch_size: int
    accumulation: int


def spread(record: ExportRecord, n_devices: int) -> Spread:
    """Give a device as many rows at once as it took in the trial, or the most below that keep the batch.

    Raises ExportError where the devices do not divide the batch.
    """
    batch_size = int(record.settings["batch_size"])
    if batch_size % n_devices:
        counts = _some(n for n in range(1, batch_size + 1) if batch_size % n == 0)
        below, above = batch_size // n_devices * n_devices, -(-batch_size // n_devices) * n_devices
        sizes = _some(size for size in (below, above) if size)
        raise ExportError(
            f"settings.batch_size: {batch_size} examples of an optimizer step cannot be shared alike by {n_devices} "
            f"devices. Use {counts} devices; or train with a batch_size such as {sizes}, which is another trial."
        )
    share = batch_size // n_devices
    most = _rows_at_once(record, batch_size)
    device_batch_size = largest_divisor(share, most=most)
    return Spread(batch_size, n_devices, device_batch_size, share // device_batch_size)


def _rows_at_once(record: ExportRecord, batch_size: int) -> int:
    """Return what a device took in the trial: less than was allowed, where memory ran out."""
    told = record.facts.get("device_batch_size")
    return told if isinstance(told, int) else record.settings.get("device_batch_size") or batch_size


def _some(numbers: Iterable[int]) -> str:
    given = [str(number) for number in numbers]
    shown = given if len(given) <= _MOST_NAMED else [*given[: _MOST_NAMED - 1], "...", given[-1]]
    return f"{', '.join(shown[:-1])} or {shown[-1]}" if len(shown) > 1 else shown[0]
