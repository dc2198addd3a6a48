"""Optuna's own dashboard beside ours: it shows the mirrored study, and can change nothing."""

from __future__ import annotations

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from starlette.testclient import TestClient

from finesweep.notebook import Results
from finesweep.search.mirror import open_to_read


@pytest.fixture
def study(results: Results) -> optuna.Study:
    made = optuna.create_study(storage=RDBStorage(results.url), study_name="tickets", direction="maximize")
    made.add_trial(optuna.trial.create_trial(value=0.75))
    return made


def test_it_shows_the_studies(client: TestClient, study: optuna.Study) -> None:
    page = client.get("/dashboard")
    assert page.status_code == 200
    assert "Optuna Dashboard" in page.text
    [summary] = client.get("/api/studies").json()["study_summaries"]
    assert summary["study_name"] == "tickets"
    assert client.get("/static/bundle.js").status_code == 200
    assert 'href="/dashboard"' in client.get("/").text


def test_before_any_trial_has_ended_it_says_so(client: TestClient) -> None:
    answer = client.get("/dashboard")
    assert answer.status_code == 503
    assert "no tables of Optuna's yet" in answer.text


def test_only_its_pages_may_evaluate_text(client: TestClient, study: optuna.Study) -> None:
    assert "'unsafe-eval'" in client.get("/dashboard/studies/1").headers["content-security-policy"]
    assert "'unsafe-eval'" not in client.get("/sweep/tickets").headers["content-security-policy"]


def test_nothing_can_be_written_through_it(client: TestClient, study: optuna.Study, results: Results) -> None:
    for method, path in (
        ("POST", "/api/studies"),
        ("DELETE", "/api/studies/1"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
    ):
        assert client.request(method, path, json={}).status_code == 405
    storage = open_to_read(results.url)
    with pytest.raises(StorageInternalError) as raised:
        storage.set_study_user_attr(1, "key", "value")
    assert "readonly" in str(raised.value.__cause__)
    assert [trial.value for trial in storage.get_all_trials(1)] == [0.75]
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("path", ["/static/../index.html", "/static/%2e%2e/_app.py", "/static/..%2f_app.py"])
def test_no_path_leads_out_of_its_files(client: TestClient, study: optuna.Study, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "import" not in answer.text
