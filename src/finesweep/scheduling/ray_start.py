"""Ray on this box, started in a thread while its driver does other work; workers import what trials need meanwhile.

In: slots, names of modules. Out: a Ray that this process is connected to. To Ray a CPU is a slot here, as it starts a
worker ahead for every CPU that it counts. To be imported before ray, which reads its settings then.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from finesweep.errors import ResourcesError
from finesweep.scheduling.slots import Slots, device_environment

# Read by ray when it is imported or started, in this process and in those it starts.
_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the terminal is ours
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a worker stays where the user's own modules can be found
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours pauses the trials
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the results database is the truth, not Tune's snapshots
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",  # sic; we check before we start
}
os.environ.update({key: os.environ.get(key, value) for key, value in _RAY_SETTINGS.items()})

import ray  # noqa: E402  # after its settings

CONNECTION_ERRORS = (OSError, RuntimeError, ValueError, ray.exceptions.RayError)
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
_WORKER = "finesweep.scheduling.ray_worker"
_DAEMONS = ("raylet", "gcs_server")  # of Ray's processes those without which nothing goes on


class LocalRay:
    """A Ray of our own on this box; as a context it is stopped at the end, even one that is still starting."""

    def __init__(self, slots: Slots, *, heavy: Sequence[str] = ()) -> None:
        """Begin to start it.

        Args:
            heavy: modules that a worker imports before it is given its first trial.
        """
        hush()
        self._environment = ExitStack()
        # Set here, not in the thread: what imports and reads the environment meanwhile is this thread.
        self._environment.enter_context(environment(_environment_of(slots, heavy)))
        # It lives as long as Ray does, whose processes the kernel ends with the thread that began them.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="finesweep-ray")
        self._started = self._thread.submit(_start, slots)

    @staticmethod
    def is_there() -> bool:
        """Tell whether this process is connected to a Ray, of its own or not."""
        return bool(ray.is_initialized())

    def wait(self) -> None:
        """Wait until it runs. Raises ResourcesError if it does not."""
        try:
            self._started.result()
        except CONNECTION_ERRORS as error:
            raise refused("a local Ray", error) from error
        finally:
            self._environment.close()

    def refuse_dead(self) -> None:
        """Raise ResourcesError once one of its daemons is gone: no worker can be started any more."""
        node = ray._private.worker._global_node
        dead = [(name, process.pid) for name, process in node.dead_processes() if name in _DAEMONS] if node else []
        for name, pid in dead:
            raise ResourcesError(f"Ray's {name} (process {pid}) has died, and no trial can be begun without it.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        futures.wait([self._started])
        self._environment.close()
        ray.shutdown()
        self._thread.shutdown()


def refused(what: str, error: Exception) -> ResourcesError:
    return ResourcesError(
        f"resources.address: cannot connect to {what}: {error}. Check that it runs (`ray status`) and has the "
        "same versions of ray and Python, and that RAY_AUTH_MODE is the same here as where it was started."
    )


def hush() -> None:
    """Have Ray say nothing: what matters comes back as attempts lost."""
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray._private.worker.print_to_stdstream = _ignore  # pages on every worker that dies, whatever `log_to_driver` says


def _ignore(*_: object, **__: object) -> None:
    """Say nothing."""


def reclaim_sigterm() -> None:
    """Have SIGTERM handled as it was before Ray connected: its handler shows a trace and aborts 3 s later."""
    if threading.current_thread() is threading.main_thread() and (handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, handler)  # Python knows of ours only, and the kernel now too


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while: a notebook's next sweep must find what the user set."""
    before = {key: os.environ.pop(key, None) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def _start(slots: Slots) -> None:
    ray.init(
        address="local",
        num_cpus=slots.n_slots,
        num_gpus=len(slots.devices),
        include_dashboard=False,
        **QUIET,
    )


def _environment_of(slots: Slots, heavy: Sequence[str]) -> Mapping[str, str]:
    """Say what Ray's processes, and so its workers, find in their environment beside what is there already."""
    values: dict[str, Any] = {
        "PYTHONPATH": os.pathsep.join(sys.path),  # workers find what this process finds
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(slots.cpus_per_trial)),
        "PL_DISABLE_FORK": "1",  # as Tune sets it for its workers
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # here nobody starts it again, and Ray ends this process then
        **(device_environment(slots) if slots.devices else {}),
    }
    # An import that asks for the devices there are settles which ones a process sees, before Ray gives it its own.
    if heavy and len(slots.devices) < 2:
        values["RAY_preload_python_modules"] = ",".join([*heavy, _WORKER])
    return values
