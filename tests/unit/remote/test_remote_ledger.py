"""The book of what jobs may cost: nobody goes beyond the limit, whoever writes in it when."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finesweep import durable
from finesweep.remote.ledger import Ledger, Spent, ledger_key, token_limit


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "remote")


def reserve(ledger: Ledger, key: str, n_epochs: int = 1, *, must: bool = False) -> bool:
    return ledger.reserve(key, n_epochs=n_epochs, most_per_epoch=100, must=must)


def test_a_job_is_allowed_where_the_most_it_can_take_fits(ledger: Ledger) -> None:
    ledger.allow(250)
    assert [reserve(ledger, key) for key in ("a", "b", "c")] == [True, True, False]
    assert ledger.spent() == Spent(settled=0, reserved=200)
    assert reserve(ledger, "a")  # what is set aside already stays so
    assert ledger.spent().reserved == 200


def test_without_a_limit_all_fit(ledger: Ledger) -> None:
    assert all(reserve(ledger, str(n), 50) for n in range(20))
    ledger.allow(10)
    assert not reserve(ledger, "one more")
    ledger.allow(None)
    assert reserve(ledger, "one more")


def test_the_limit_itself_may_be_reached(ledger: Ledger) -> None:
    ledger.allow(200)
    assert [reserve(ledger, key) for key in ("a", "b")] == [True, True]


def test_what_is_under_way_is_entered_whatever_the_limit(ledger: Ledger) -> None:
    ledger.allow(50)
    assert not reserve(ledger, "a")
    assert reserve(ledger, "a", must=True)
    assert ledger.spent().reserved == 100


def test_a_trial_becomes_its_job(ledger: Ledger) -> None:
    reserve(ledger, ledger_key(3))
    ledger.rename(ledger_key(3), "job")
    ledger.rename(ledger_key(4), "another")  # nothing was set aside for it
    assert ledger.open_keys() == {"job"}
    reserve(ledger, ledger_key(3))
    ledger.settle("job", tokens=7, n_epochs=None)
    ledger.rename(ledger_key(3), "job")  # as of a trial that is resumed: what the job took is known
    assert ledger.spent() == Spent(settled=7, reserved=0)
    assert not ledger.has_open()


def test_an_epoch_is_counted_once_a_job_was_trained_to_its_end(ledger: Ledger) -> None:
    for key in ("a", "b"):
        reserve(ledger, key, 4)
    ledger.settle("a", tokens=41, n_epochs=4)  # 11 an epoch, rounded up
    assert ledger.spent() == Spent(settled=41, reserved=44)
    ledger.settle("c", tokens=60, n_epochs=4)
    assert ledger.spent() == Spent(settled=101, reserved=44)  # what others were allowed does not grow
    reserve(ledger, "d", 2)
    assert ledger.spent().reserved == 44 + 2 * 15


def test_a_job_that_was_cancelled_tells_nothing_of_an_epoch(ledger: Ledger) -> None:
    reserve(ledger, "a", 4)
    ledger.settle("a", tokens=5, n_epochs=None)
    reserve(ledger, "b", 1)
    assert ledger.spent() == Spent(settled=5, reserved=100)


def test_a_server_that_does_not_tell_has_taken_all(ledger: Ledger) -> None:
    reserve(ledger, "a", 4)
    ledger.settle("a", tokens=None, n_epochs=4)
    ledger.settle("never seen", tokens=None, n_epochs=None)
    assert ledger.spent() == Spent(settled=400, reserved=0)
    ledger.settle("a", tokens=30, n_epochs=4)  # told later
    assert ledger.spent().settled == 30


def test_epochs_that_the_server_chose_take_the_place_of_those_expected(ledger: Ledger) -> None:
    reserve(ledger, "a", 10)
    ledger.amend("a", n_epochs=3, most_per_epoch=100)
    ledger.amend("nobody", n_epochs=3, most_per_epoch=100)
    assert ledger.spent() == Spent(settled=0, reserved=300)
    ledger.settle("a", tokens=30, n_epochs=3)
    ledger.amend("a", n_epochs=9, most_per_epoch=100)
    assert ledger.spent() == Spent(settled=30, reserved=0)


def test_what_was_never_begun_is_given_back(ledger: Ledger) -> None:
    ledger.allow(100)
    reserve(ledger, "a")
    ledger.drop("a")
    ledger.drop("a")
    assert reserve(ledger, "b")


def test_jobs_that_are_no_more_are_forgotten_but_not_what_they_took(ledger: Ledger) -> None:
    for key in ("gone", "runs", "over"):
        reserve(ledger, key)
    ledger.settle("over", tokens=9, n_epochs=None)
    ledger.forget_all_but(["runs"])
    assert ledger.open_keys() == {"runs"}
    assert ledger.spent() == Spent(settled=9, reserved=100)


def test_two_ledgers_of_a_folder_are_one_book(ledger: Ledger, tmp_path: Path) -> None:
    reserve(ledger, "a")
    other = Ledger(tmp_path / "remote")
    other.settle("a", tokens=3, n_epochs=None)
    assert ledger.spent() == Spent(settled=3, reserved=0)


@given(
    limit=st.integers(1, 2000),
    steps=st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "drop", "again"]), st.integers(0, 5), st.integers(1, 6)),
        max_size=30,
    ),
    shares=st.lists(st.floats(0, 1), min_size=30, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_in_any_order_what_was_taken_stays_within_the_limit(
    limit: int, steps: Sequence[tuple[str, int, int]], shares: Sequence[float]
) -> None:
    """Jobs take, whole, what epochs of one size come to; cancelled, any share of it. An epoch has 40 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        ledger, running = Ledger(Path(folder)), {}
        ledger.allow(limit)
        for (what, job, n_epochs), share in zip(steps, shares, strict=False):
            key = f"job {job}"
            if what == "reserve" and key not in running and reserve(ledger, key, n_epochs):
                running[key] = n_epochs
            elif what == "settle" and key in running:
                n = running.pop(key)
                is_whole = share > 0.5
                ledger.settle(key, tokens=n * 40 if is_whole else int(n * 40 * share), n_epochs=n if is_whole else None)
                ledger.rename(key, f"{key} is over {share} {len(running)} {n_epochs}")
            elif what == "drop" and key in running:
                running.pop(key)
                ledger.drop(key)
            spent = ledger.spent()
            assert spent.settled + spent.reserved <= limit
            assert spent.reserved >= sum(n * 40 for n in running.values())


def test_many_at_once_do_not_go_beyond_the_limit(tmp_path: Path) -> None:
    Ledger(tmp_path).allow(1000)
    allowed: list[bool] = []
    start = threading.Barrier(16)

    def ask(n: int) -> None:
        start.wait()
        allowed.append(reserve(Ledger(tmp_path), f"job {n}"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (allowed.count(True), len(allowed)) == (10, 16)
    assert Ledger(tmp_path).spent() == Spent(settled=0, reserved=1000)


def test_a_crash_while_writing_leaves_the_old_book(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve(ledger, "a")

    def power_cut(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "sync", power_cut)
    with pytest.raises(KeyboardInterrupt):
        ledger.settle("a", tokens=5, n_epochs=None)
    assert ledger.spent() == Spent(settled=0, reserved=100)


def test_the_book_is_on_the_disk_before_it_takes_the_old_ones_place(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    synced: list[tuple[str, object]] = []

    def watch(path: Path) -> None:
        synced.append((path.stem, json.loads(path.read_text(encoding="utf-8"))["limit"]))

    monkeypatch.setattr(durable, "sync", watch)
    ledger.allow(7)
    assert synced == [(".ledger.json", 7)]


@pytest.mark.parametrize(
    ("tokens", "money", "price", "limit"),
    [
        (None, None, None, None),
        (5, None, None, 5),
        (None, 3.0, 6.0, 500_000),
        (None, 3.0, None, None),  # refused by the rules before
        (400_000, 3.0, 6.0, 400_000),
        (600_000, 3.0, 6.0, 500_000),
        (None, 1e-9, 6.0, 0),
        (None, 0.1, 0.3, 333_333),  # never more than is paid for
    ],
)
def test_money_is_a_limit_of_tokens(
    tokens: int | None, money: float | None, price: float | None, limit: int | None
) -> None:
    assert token_limit(tokens, money, price) == limit
