"""What a worker's trainer hears when nobody listens any more."""

from __future__ import annotations

import threading

import pytest

from finesweep.events import Decision, Report
from finesweep.scheduling.ray_worker import UnheardError, _Mailbox

REPORT = {3: Report(100, {"accuracy": 0.5}, 100)}


def test_a_report_that_nobody_has_stored_unwinds_its_trainer() -> None:
    """Told to pause, it would write a checkpoint ahead of the database, and the report would be missing for ever."""
    mailbox = _Mailbox()
    mailbox.close()
    with pytest.raises(UnheardError):
        mailbox.report(REPORT)


def test_a_report_that_waits_for_its_answer_is_unwound_too() -> None:
    mailbox = _Mailbox()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            mailbox.report(REPORT)
        except UnheardError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert mailbox.take(timeout_s=10) == ((3, REPORT[3]),)
    mailbox.close()
    thread.join(timeout=10)
    assert len(raised) == 1


def test_an_answer_given_before_the_end_still_counts() -> None:
    mailbox = _Mailbox()
    mailbox.answer({3: Decision.STOP})
    assert mailbox.report(REPORT) == {3: Decision.STOP}


def test_between_reports_a_trainer_pauses_when_nobody_listens() -> None:
    mailbox = _Mailbox()
    mailbox.close()
    assert mailbox.poll(3) is Decision.PAUSE
