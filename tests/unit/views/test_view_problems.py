from __future__ import annotations

from finesweep.events import AttemptDescribed, AttemptStarted
from finesweep.views.problems import TrackerProblems


def test_what_goes_wrong_in_a_tracker_is_told_once() -> None:
    said: list[str] = []
    listen = TrackerProblems(said.append)
    listen([AttemptStarted(3, 1), AttemptDescribed(3, 1, {"device": "cpu"})])
    listen([AttemptDescribed(3, 1, {"tracker_problems": {"wandb": "UsageError: no API key"}})])
    listen([AttemptDescribed(3, 1, {"tracker_problems": {"wandb": "UsageError: no API key", "mlflow": "gone"}})])
    listen([AttemptDescribed(4, 1, {"tracker_problems": {"mlflow": "gone again"}})])
    listen([AttemptDescribed(5, 1, {"tracker_problems": "a trainer of one's own may tell anything"})])
    assert said == [
        "trial 3 is not shown in wandb any further, but goes on: UsageError: no API key",
        "trial 3 is not shown in mlflow any further, but goes on: gone",
    ]
