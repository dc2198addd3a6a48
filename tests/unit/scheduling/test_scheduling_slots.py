from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import ResourcesError
from finesweep.scheduling.slots import (
    MOST_CPU_SLOTS,
    Gpu,
    Slots,
    cluster_slots,
    device_environment,
    find_gpus,
    n_cores,
    plan_slots,
)
from finesweep.spec.sweep import Resources

GPUS = tuple(Gpu(index, f"GPU-{index}{index}ab-cd", "H100", 80_000, used) for index, used in enumerate((0, 60_000, 10)))
IDLE = (GPUS[0], GPUS[2])


def plan(gpus: tuple[Gpu, ...] = (), *, n_cpus: int = 16, visible: str | None = None, **resources: Any) -> Slots:
    return plan_slots(Resources(**resources), gpus=gpus, n_cpus=n_cpus, visible=visible)


# --- GPUs of this box ---------------------------------------------------------------------------------------------


def test_a_gpu_that_somebody_fills_is_left_alone_and_that_is_said() -> None:
    slots = plan(GPUS)
    assert (slots.devices, slots.n_slots, slots.gpus_per_trial, slots.cpus_per_trial) == ((0, 2), 2, 1.0, 8)
    [note] = slots.notes
    assert note == (
        "GPU 1 (H100) is left alone: 60,000 of 80,000 MiB are in use. To use it all the same, name it: "
        "resources.devices: [1]"
    )


def test_a_named_gpu_is_used_whoever_fills_it() -> None:
    assert plan(GPUS, devices=(1,)).devices == (1,)
    assert plan(GPUS, devices=(1,)).notes == ()


def test_a_box_whose_gpus_are_all_in_use_is_refused_with_the_way_out() -> None:
    with pytest.raises(ResourcesError, match=r"every GPU is in use by other processes.\n.*resources.devices: \[1\]"):
        plan((GPUS[1],))


def test_a_gpu_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ResourcesError, match=r"^resources.devices: GPU 7 is not there. Known: 0, 1, 2. Name one"):
        plan(GPUS, devices=(0, 7))
    with pytest.raises(ResourcesError, match=r"GPU 2 is not there within CUDA_VISIBLE_DEVICES=0. Known: 0"):
        plan(GPUS, devices=(2,), visible="0")
    with pytest.raises(ResourcesError, match=r"GPU 0 is not there. Known: none."):
        plan(devices=(0,))


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("2", (2,)), (" 0, 2 ", (0, 2)), ("GPU-22ab-cd", (2,)), ("GPU-00", (0,)), ("", ()), ("-1", ()), (None, (0, 2))],
)
def test_only_visible_devices_are_used_by_index_or_uuid(visible: str | None, devices: tuple[int, ...]) -> None:
    assert plan(IDLE, visible=visible).devices == devices


@pytest.mark.parametrize(("share", "n_slots"), [(1.0, 2), (0.5, 4), (0.25, 8), (0.3, 6), (0.1, 20), (1 / 3, 6)])
def test_a_share_of_a_gpu_gives_so_many_slots(share: float, n_slots: int) -> None:
    slots = plan(IDLE, gpus_per_trial=share)
    assert (slots.n_slots, slots.gpus_per_trial) == (n_slots, share)


def test_cores_are_divided_among_slots() -> None:
    assert plan(IDLE, n_cpus=16, gpus_per_trial=0.5).cpus_per_trial == 4
    assert plan(IDLE, n_cpus=1).cpus_per_trial == 1
    assert plan(IDLE, n_cpus=16, cpus_per_trial=3).cpus_per_trial == 3
    assert plan(IDLE, n_cpus=16, gpus_per_trial=0.5, max_parallel=2).cpus_per_trial == 8


def test_a_limit_to_trials_at_once_holds() -> None:
    assert plan(IDLE, gpus_per_trial=0.25, max_parallel=3).n_slots == 3
    assert plan(max_parallel=3).n_slots == 3
    assert plan(max_parallel=99).n_slots == MOST_CPU_SLOTS


# --- CPUs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_cpus", "cpus_per_trial", "expected"),
    [(2, None, (2, 1)), (64, None, (MOST_CPU_SLOTS, 8)), (16, 4, (4, 4)), (2, 8, (1, 8)), (1, None, (1, 1))],
)
def test_a_box_without_gpus_has_slots_of_cores(
    n_cpus: int, cpus_per_trial: int | None, expected: tuple[int, int]
) -> None:
    slots = plan(n_cpus=n_cpus, cpus_per_trial=cpus_per_trial)
    assert (slots.n_slots, slots.cpus_per_trial) == expected
    assert (slots.devices, slots.gpus_per_trial) == ((), 0.0)


def test_gpus_may_be_left_out_on_purpose() -> None:
    assert plan(GPUS, devices="cpu").devices == ()


def test_the_cores_of_this_process_are_counted() -> None:
    assert 1 <= n_cores() <= (os.cpu_count() or 1)


# --- clusters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "there", "expected"),
    [
        ({}, {"CPU": 32.0, "GPU": 4.0}, (4, 8, 1.0)),
        ({"gpus_per_trial": 0.5}, {"CPU": 32.0, "GPU": 4.0}, (8, 4, 0.5)),
        ({"max_parallel": 3}, {"CPU": 32.0, "GPU": 4.0}, (3, 8, 1.0)),
        ({"cpus_per_trial": 16}, {"CPU": 32.0, "GPU": 4.0}, (2, 16, 1.0)),
        ({}, {"CPU": 6.0}, (6, 1, 0.0)),
        ({"devices": "cpu", "cpus_per_trial": 2}, {"CPU": 6.0, "GPU": 4.0}, (3, 2, 0.0)),
    ],
)
def test_a_cluster_is_divided_as_it_is(
    resources: dict[str, Any], there: dict[str, float], expected: tuple[int, int, float]
) -> None:
    slots = cluster_slots(Resources(**resources), there)
    assert (slots.n_slots, slots.cpus_per_trial, slots.gpus_per_trial) == expected


def test_a_cluster_too_small_for_a_trial_is_refused() -> None:
    message = r"a trial takes 8 CPU and 1 GPU; the Ray cluster has 4 CPU and 1 GPU. Lower resources.cpus_per_trial"
    with pytest.raises(ResourcesError, match=message):
        cluster_slots(Resources(cpus_per_trial=8), {"CPU": 4.0, "GPU": 1.0})


# --- nvidia-smi ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program of that name on the path, of which the body is given."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")

    def write(body: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        program.chmod(0o755)

    return write


def test_gpus_are_what_nvidia_smi_says(nvidia_smi: Callable[[str], None], tmp_path: Path) -> None:
    nvidia_smi(
        f'echo "$@" > {tmp_path}/arguments\n'
        'echo "0, GPU-5a, NVIDIA H100 80GB HBM3, 81559, 4"\n'
        'echo "1, GPU-5b, NVIDIA H100 80GB HBM3, 81559, 70000"\n'
        "echo"
    )
    assert find_gpus() == (
        Gpu(0, "GPU-5a", "NVIDIA H100 80GB HBM3", 81_559, 4),
        Gpu(1, "GPU-5b", "NVIDIA H100 80GB HBM3", 81_559, 70_000),
    )
    assert [gpu.is_busy for gpu in find_gpus()] == [False, True]
    asked = (tmp_path / "arguments").read_text(encoding="utf-8")
    assert asked == "--query-gpu=index,uuid,name,memory.total,memory.used --format=csv,noheader,nounits\n"


def test_a_gpu_that_does_not_tell_its_memory_is_taken_as_idle(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi('echo "0, GPU-5a, NVIDIA GB10, [N/A], [N/A]"')
    [gpu] = find_gpus()
    assert (gpu.index, gpu.is_busy) == (0, False)


def test_a_broken_driver_is_told_with_the_way_out(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("exit 9")
    with pytest.raises(ResourcesError, match=r"nvidia-smi does not answer .*set resources.devices to cpu"):
        find_gpus()


def test_a_box_without_the_program_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ()


def test_cuda_is_shown_the_chosen_devices_in_nvidia_smis_order() -> None:
    environment = device_environment(plan(GPUS, devices=(2, 0)))
    assert environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2,0"}
