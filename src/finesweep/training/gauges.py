"""What a device is doing while it trains: memory held, share of its time at work. In: a device. Out: numbers by name.

Units: memory in GiB (on a GPU what this process has reserved there, on a CPU its resident memory), use as a share of 1
since the last reading (of a GPU as its driver tells it, all processes together, where `nvidia-ml-py` is installed).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch

from finesweep.events import DEVICE_USE, MEMORY_GIB


class Gauges:
    """Reads a device, again and again."""

    def __init__(
        self,
        device: torch.device,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._device, self._clock, self._cpu_clock = device, clock, cpu_clock
        self._wall_s, self._cpu_s = clock(), cpu_clock()
        self._has_driver = True  # until it turns out that nothing here can ask it

    def read(self) -> dict[str, float]:
        """Give memory and use; what cannot be read is left out."""
        if self._device.type == "cuda":
            found = {MEMORY_GIB: torch.cuda.memory_reserved(self._device) / 2**30}
            use = self._gpu_use()
        else:
            found = {MEMORY_GIB: psutil.Process().memory_info().rss / 2**30}
            use = self._cpu_use()
        return found if use is None else {**found, DEVICE_USE: use}

    def _cpu_use(self) -> float | None:
        """Measure the share of this process's threads that computed since the last reading."""
        wall_s, cpu_s = self._clock(), self._cpu_clock()
        took_s, worked_s = wall_s - self._wall_s, cpu_s - self._cpu_s
        self._wall_s, self._cpu_s = wall_s, cpu_s
        return min(1.0, worked_s / (took_s * torch.get_num_threads())) if took_s > 0 else None

    def _gpu_use(self) -> float | None:
        if not self._has_driver:
            return None
        try:
            return float(torch.cuda.utilization(self._device)) / 100
        except Exception:  # the bindings are not installed, or this GPU (a slice of one) does not tell
            self._has_driver = False
            return None
