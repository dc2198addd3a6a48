"""What the jobs of a sweep may cost and have cost, in tokens: asked before a job is begun. One file for all workers.

In: a sweep's folder and its limit. Out: whether another job fits. Reserved is the most that a job can take; once a job
has ended what it took is known, and with it, of the same rows, what an epoch takes. It must not know servers.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from finesweep.durable import write_whole

_TRIAL = "trial "
SPENT = "the budget of tokens or money is used up"  # why a sweep paused


@dataclass(frozen=True, slots=True)
class Spent:
    """Trained tokens of a sweep's jobs."""

    settled: int  # of those that have ended
    reserved: int  # of those that have not, at most


class Ledger:
    """All methods may be called from any process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "ledger.lock")

    def allow(self, limit: int | None) -> None:
        """Set the most tokens that all jobs together may take; workers that run heed it from now on."""
        with self._lock:
            book = self._read()
            book["limit"] = limit
            self._write(book)

    def reserve(self, key: str, *, n_epochs: int, most_per_epoch: int, must: bool = False) -> bool:
        """Set aside what a job can take, unless that is done already. Tell whether it fits the limit.

        Args:
            key: names the job: by its trial before there is one, then by its id.
            most_per_epoch: the most tokens that an epoch can have, where none has been counted yet.
            must: whatever the limit, as of a job that is under way.
        """
        with self._lock:
            book = self._read()
            if key in book["jobs"]:
                return True
            wanted = n_epochs * (book["per_epoch"] or most_per_epoch)
            spent = _spent(book)
            limit = book["limit"]
            if not must and limit is not None and spent.settled + spent.reserved + wanted > limit:
                return False
            book["jobs"][key] = {"reserved": wanted, "n_epochs": n_epochs, "settled": None}
            self._write(book)
            return True

    def rename(self, key: str, job_id: str) -> None:
        """Let what was set aside for a trial be that of its job."""
        with self._lock:
            book = self._read()
            if key in book["jobs"]:
                entry = book["jobs"].pop(key)
                book["jobs"].setdefault(job_id, entry)
                self._write(book)

    def amend(self, job_id: str, *, n_epochs: int, most_per_epoch: int) -> bool:
        """Set aside for a job what it takes by the epochs that its server has told, in place of what was expected.

        Tell whether the limit holds that; a job that takes no more than was expected is always held.
        """
        with self._lock:
            book = self._read()
            entry = book["jobs"].get(job_id)
            if entry is None or entry["settled"] is not None or entry["n_epochs"] == n_epochs:
                return True
            wanted, before = n_epochs * (book["per_epoch"] or most_per_epoch), entry["reserved"]
            entry.update(n_epochs=n_epochs, reserved=wanted)
            book["most_epochs"] = max(book.get("most_epochs", 0), n_epochs)
            self._write(book)
            spent, limit = _spent(book), book["limit"]
            return wanted <= before or limit is None or spent.settled + spent.reserved <= limit

    def most_epochs(self) -> int:
        """Tell the most epochs that a server chose for a job; 0 where none was seen to choose."""
        with self._lock:
            return int(self._read().get("most_epochs", 0))

    def settle(self, job_id: str, *, tokens: int | None, n_epochs: int | None) -> None:
        """Note what a job that has ended took; one that was trained to its end, `n_epochs`, tells what an epoch takes.

        Of a server that does not say what a job took, it is all that was set aside for it.
        """
        with self._lock:
            book = self._read()
            entry = book["jobs"].setdefault(job_id, {"reserved": 0, "n_epochs": n_epochs, "settled": None})
            entry["settled"] = entry["reserved"] if tokens is None else tokens
            if n_epochs and tokens:
                per_epoch = -(-tokens // n_epochs)
                book["per_epoch"] = max(book["per_epoch"] or 0, per_epoch)
                for other in book["jobs"].values():
                    if other["settled"] is None:
                        other["reserved"] = min(other["reserved"], other["n_epochs"] * book["per_epoch"])
            self._write(book)

    def per_epoch(self) -> int | None:
        """Tell what an epoch of the sweep's rows was seen to take at most; None before the first job has ended."""
        with self._lock:
            known: int | None = self._read()["per_epoch"]
            return known

    def expect(self, per_epoch: int | None) -> None:
        """Begin with what an epoch of the same rows took elsewhere."""
        with self._lock:
            book = self._read()
            book["per_epoch"] = max(book["per_epoch"] or 0, per_epoch or 0) or None
            self._write(book)

    def drop(self, key: str) -> None:
        """Give back what was set aside for a job that was never begun."""
        with self._lock:
            book = self._read()
            if book["jobs"].pop(key, None) is not None:
                self._write(book)

    def forget_all_but(self, keys: Collection[str]) -> None:
        """Give back what was set aside for jobs that are not among `keys` and have not ended: there are no such."""
        with self._lock:
            book = self._read()
            jobs = book["jobs"]
            book["jobs"] = {key: jobs[key] for key in jobs if key in keys or jobs[key]["settled"] is not None}
            self._write(book)

    def spent(self) -> Spent:
        with self._lock:
            return _spent(self._read())

    def has_open(self) -> bool:
        """Tell whether there are jobs that have not ended yet."""
        return bool(self.open_keys())

    def open_keys(self) -> frozenset[str]:
        """Give the jobs, and trials that are to have one, of which it is not known yet what they took."""
        with self._lock:
            return frozenset(key for key, entry in self._read()["jobs"].items() if entry["settled"] is None)

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {"limit": None, "per_epoch": None, "jobs": {}}
        book: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        return book

    def _write(self, book: dict[str, Any]) -> None:
        write_whole(self._path, json.dumps(book).encode(), synced=True)


def _spent(book: dict[str, Any]) -> Spent:
    entries = book["jobs"].values()
    settled = sum(entry["settled"] for entry in entries if entry["settled"] is not None)
    return Spent(settled, sum(entry["reserved"] for entry in entries if entry["settled"] is None))


def ledger_key(trial: int) -> str:
    """Name what is set aside for a trial before it has a job."""
    return f"{_TRIAL}{trial}"


def has_no_job(key: str) -> bool:
    """Tell whether a key names a trial that has no job yet."""
    return key.startswith(_TRIAL)


def token_limit(tokens: int | None, money: float | None, price_per_million: float | None) -> int | None:
    """Put limits of tokens and of money into one, in tokens."""
    limits = [tokens] if tokens is not None else []
    if money is not None and price_per_million is not None:
        limits.append(int(money / price_per_million * 1e6))
    return min(limits, default=None)
