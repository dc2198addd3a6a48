"""Devices and slots: which GPUs this sweep may use, and how many trials run side by side on what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from finesweep.errors import ResourcesError
from finesweep.spec.sweep import Resources

# A GPU with more than this share of its memory taken is somebody else's.
BUSY_SHARE = 0.1
# Without GPUs, more trials at once than this rarely pays: each holds a model and its optimizer in host memory.
MOST_CPU_SLOTS = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int  # as nvidia-smi counts: by PCI bus
    uuid: str
    name: str
    memory_mib: int
    used_mib: int

    @property
    def is_busy(self) -> bool:
        return self.used_mib > BUSY_SHARE * self.memory_mib


@dataclass(frozen=True, slots=True)
class Slots:
    """How a box is divided among trials. `devices` are GPU indices, empty on a machine that trains on its CPU."""

    devices: tuple[int, ...]
    gpus_per_trial: float
    cpus_per_trial: int
    n_slots: int
    notes: tuple[str, ...] = ()


def plan_slots(resources: Resources, *, gpus: tuple[Gpu, ...], n_cpus: int, visible: str | None) -> Slots:
    """Divide this box.

    Args:
        gpus: those the machine has.
        visible: the value of CUDA_VISIBLE_DEVICES, None if it is not set. Its devices are the only ones ever used.

    Raises:
        ResourcesError: a device asked for does not exist or is not visible, or all are busy.
    """
    notes: list[str] = []
    devices = _choose_devices(resources, gpus, visible, notes)
    if devices:
        per_device = max(1, int(1 / resources.gpus_per_trial + 1e-9))
        n_slots = len(devices) * per_device
        share = resources.gpus_per_trial
    else:
        n_slots = max(
            1, n_cpus // resources.cpus_per_trial if resources.cpus_per_trial else min(n_cpus, MOST_CPU_SLOTS)
        )
        share = 0.0
    if resources.max_parallel is not None:
        n_slots = min(n_slots, resources.max_parallel)
    cpus_per_trial = resources.cpus_per_trial or max(1, n_cpus // n_slots)
    return Slots(devices, share, cpus_per_trial, n_slots, tuple(notes))


def cluster_slots(resources: Resources, there: Mapping[str, float]) -> Slots:
    """Divide a Ray cluster as it is now; Ray itself gives each trial its devices.

    Args:
        there: what the cluster has, as ray.cluster_resources() counts it.

    Raises:
        ResourcesError: not even one trial fits.
    """
    n_cpus, n_gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    gpus_per_trial = resources.gpus_per_trial if n_gpus and resources.devices != "cpu" else 0.0
    n_by_gpu = int(n_gpus / gpus_per_trial + 1e-9) if gpus_per_trial else None
    cpus_per_trial = resources.cpus_per_trial or max(1, int(n_cpus // n_by_gpu) if n_by_gpu else 1)
    n_slots = min(int(n_cpus // cpus_per_trial), int(n_cpus) if n_by_gpu is None else n_by_gpu)
    if n_slots < 1:
        raise ResourcesError(
            f"a trial takes {cpus_per_trial} CPU and {gpus_per_trial:g} GPU; the Ray cluster has {n_cpus:g} CPU and "
            f"{n_gpus:g} GPU. Lower resources.cpus_per_trial or gpus_per_trial, or add nodes."
        )
    return Slots((), gpus_per_trial, cpus_per_trial, min(n_slots, resources.max_parallel or n_slots))


def find_gpus() -> tuple[Gpu, ...]:
    """Ask nvidia-smi for the machine's GPUs; none where there is no such program.

    Raises:
        ResourcesError: nvidia-smi is there but fails.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "index,uuid,name,memory.total,memory.used"
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError) as error:
        raise ResourcesError(
            f"nvidia-smi does not answer ({error}). Mend the driver, or set resources.devices to cpu."
        ) from error
    return tuple(_parse(line) for line in answer.splitlines() if line.strip())


def device_environment(slots: Slots, *, only_first: bool = False) -> Mapping[str, str]:
    """Tell CUDA to show just the chosen devices, counted as nvidia-smi counts them."""
    devices = slots.devices[:1] if only_first else slots.devices
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in devices),
    }


def n_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose_devices(
    resources: Resources, gpus: tuple[Gpu, ...], visible: str | None, notes: list[str]
) -> tuple[int, ...]:
    if resources.devices == "cpu":
        return ()
    allowed = [gpu for gpu in gpus if _is_visible(gpu, visible)]
    if resources.devices == "auto":
        idle = [gpu for gpu in allowed if not gpu.is_busy]
        notes += [
            f"GPU {gpu.index} ({gpu.name}) is left alone: {gpu.used_mib:,} of {gpu.memory_mib:,} MiB are in use. "
            f"To use it all the same, name it: resources.devices: [{gpu.index}]"
            for gpu in allowed
            if gpu.is_busy
        ]
        if allowed and not idle:
            raise ResourcesError("every GPU is in use by other processes.\n" + "\n".join(notes))
        return tuple(gpu.index for gpu in idle)
    there = {gpu.index: gpu for gpu in allowed}
    for index in resources.devices:
        if index not in there:
            known = ", ".join(map(str, there)) or "none"
            limit = "" if visible is None else f" within CUDA_VISIBLE_DEVICES={visible}"
            raise ResourcesError(
                f"resources.devices: GPU {index} is not there{limit}. Known: {known}. Name one of these, auto, or cpu."
            )
    return tuple(resources.devices)


def _is_visible(gpu: Gpu, visible: str | None) -> bool:
    if visible is None:
        return True
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return any(name == str(gpu.index) or gpu.uuid.startswith(name) for name in names)


def _parse(line: str) -> Gpu:
    index, uuid, name, total, used = (part.strip() for part in line.split(","))
    try:
        return Gpu(int(index), uuid, name, int(total), int(used))
    except ValueError:  # "[N/A]" on devices that share the host's memory, or are divided
        return Gpu(int(index), uuid, name, memory_mib=1, used_mib=0)
