from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from finesweep.results.lease import Holder, Lease, is_alive, process_started

HERE = socket.gethostname()


@pytest.fixture
def dead() -> Holder:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = Holder(HERE, process.pid, process_started(process.pid))
    process.communicate(b"\n")
    return holder


def test_this_process_is_alive() -> None:
    holder = Holder.this_process()
    assert (holder.host, holder.pid) == (HERE, os.getpid())
    assert holder.started is not None
    assert is_alive(holder)


def test_an_ended_process_is_not_alive(dead: Holder) -> None:
    assert not is_alive(dead)


def test_a_later_process_of_the_same_pid_is_another_one() -> None:
    mine = Holder.this_process()
    assert mine.started is not None
    assert not is_alive(Holder(mine.host, mine.pid, mine.started - 1))


def test_without_a_start_time_the_pid_decides(dead: Holder) -> None:
    assert is_alive(Holder(HERE, os.getpid(), None))
    assert not is_alive(Holder(HERE, dead.pid, None))


def test_where_there_is_no_proc_signals_tell(dead: Holder, tmp_path: Path) -> None:
    assert is_alive(Holder(HERE, os.getpid(), None), proc=tmp_path)
    assert is_alive(Holder(HERE, 1, None), proc=tmp_path)
    assert not is_alive(dead, proc=tmp_path)


def test_a_process_that_nobody_waited_for_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    holder = Holder(HERE, process.pid, process_started(process.pid))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(holder)
    process.wait()


def test_on_its_own_host_a_lease_lives_as_long_as_its_process_whatever_the_clock_says(dead: Holder) -> None:
    for now_s in (-1e9, 1.0, 1e9):  # set back, as it should be, long expired
        assert Lease(Holder.this_process(), held_since=0.0, expires_at=60.0).is_live(now_s)
        assert not Lease(dead, 0.0, 60.0).is_live(now_s)


def test_a_pid_without_a_start_time_is_believed_until_the_lease_expires() -> None:
    lease = Lease(Holder(HERE, os.getpid(), None), held_since=0.0, expires_at=60.0)
    assert lease.is_live(59.9)
    assert not lease.is_live(60.0)


def test_of_another_host_only_the_expiry_is_known(dead: Holder) -> None:
    elsewhere = Lease(Holder("elsewhere", dead.pid, 1), held_since=0.0, expires_at=60.0)
    assert elsewhere.is_live(1.0)
    assert not elsewhere.is_live(61.0)
