"""The processes that train one model together, as torchrun or `accelerate launch` starts them: this one among them.

In: the environment that a launcher made, given by the caller. Out: a share of the batch, and things that all of them
agree on. Of several only the main one writes and speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

from finesweep.errors import ResourcesError
from finesweep.scheduling.slots import device_environment, find_gpus, n_cores, plan_slots
from finesweep.spec.settings import largest_divisor
from finesweep.spec.sweep import Resources, TrainingSpec


@dataclass(frozen=True, slots=True)
class Processes:
    n: int = 1
    rank: int = 0
    local_rank: int = 0  # among those of this machine

    @classmethod
    def launched(cls, environment: Mapping[str, str]) -> Processes:
        """Read what a launcher tells each process."""
        n, rank, local = (int(environment.get(name, "0")) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
        return cls(n, rank, local) if n > 1 else cls()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def join(self, *, use_cpu: bool) -> None:
        """Meet the others, and take this process's device. To be called once, before anything is loaded."""
        if self.n == 1:
            return
        import accelerate
        import torch

        if not use_cpu:
            if self.local_rank >= torch.cuda.device_count():
                raise ResourcesError(
                    f"process {self.rank} is the {self.local_rank + 1}. on this machine, which shows "
                    f"{torch.cuda.device_count()} GPUs. Launch one process for each GPU."
                )
            torch.cuda.set_device(self.local_rank)
        accelerate.PartialState(cpu=use_cpu)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.n > 1:
            import torch

            torch.distributed.barrier()

    def any(self, is_so: bool) -> bool:
        """Tell whether it is so in any of the processes; all of them must ask."""
        if self.n == 1:
            return is_so
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([int(is_so)], device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def share_batch(settings: TrainingSpec, processes: Processes) -> TrainingSpec:
    """Restate a batch for several devices: the same examples in an optimizer step, and no more at once on any device.

    Raises ResourcesError where they cannot be dealt out evenly.
    """
    if processes.n == 1:
        return settings
    total = settings.batch_size
    if total % processes.n:
        fitting = ", ".join(str(n) for n in range(1, total + 1) if total % n == 0)
        raise ResourcesError(
            f"batch_size: {total} examples cannot be shared evenly among {processes.n} processes, and another batch "
            f"would be another training. Launch one of these numbers of processes: {fitting}."
        )
    each = total // processes.n
    at_once = largest_divisor(each, most=settings.device_batch_size or each)
    return settings.model_copy(update={"device_batch_size": at_once})


def refuse_unlike(environment: Mapping[str, str]) -> None:
    """Raise ResourcesError under a launcher that shares out the model itself, which this training does not do."""
    for name, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if environment.get(name, "").lower() in ("1", "true"):
            raise ResourcesError(
                f"{what} shares a model out among processes; here each has all of it. Launch without it "
                "(accelerate launch --multi_gpu), or export --to script or --to axolotl and train there."
            )


def take_one_device(resources: Resources, environment: MutableMapping[str, str], say: Callable[[str], None]) -> None:
    """Let this process see one GPU, as a worker of a sweep would. To be called before a GPU is used."""
    if resources.devices == "cpu":
        return
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if resources.devices == "auto" and visible and "," not in visible:
        return  # it has been named, be it in use or not
    try:
        slots = plan_slots(resources, gpus=find_gpus(), n_cpus=n_cores(), visible=visible)
    except ResourcesError as error:
        raise ResourcesError(f"{error}\nFor this command alone, name one in CUDA_VISIBLE_DEVICES.") from error
    for note in slots.notes:
        say(note)
    if slots.devices:
        environment.update(device_environment(slots, only_first=True))
