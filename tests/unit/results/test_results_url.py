from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.results.url import artifacts_dir, redacted, resolve_url, sqlite_path


def test_default_is_finesweep_db_in_the_given_folder(tmp_path: Path) -> None:
    assert sqlite_path(resolve_url(folder=tmp_path)) == tmp_path / "finesweep.db"


@pytest.mark.parametrize("given", ["runs/x.db", "sqlite:///runs/x.db", "./runs/../runs/x.db"])
def test_relative_paths_become_absolute(tmp_path: Path, given: str) -> None:
    assert sqlite_path(resolve_url(given, folder=tmp_path)) == tmp_path / "runs" / "x.db"


@pytest.mark.parametrize("name", ["a b.db", "what?.db", "50%20.db", "ü#1.db"])
def test_any_file_name_survives_resolving_twice(tmp_path: Path, name: str) -> None:
    once = resolve_url(tmp_path / name, folder=Path("/elsewhere"))
    assert resolve_url(once, folder=Path("/elsewhere")) == once
    assert sa.make_url(once).database == str(tmp_path / name)


def test_postgresql_gets_our_driver_and_keeps_its_password() -> None:
    url = resolve_url("postgresql://me:p%40ss@host:5433/sweeps", folder=Path("/"))
    assert url == "postgresql+psycopg://me:p%40ss@host:5433/sweeps"
    assert sqlite_path(url) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://h/x", "database kind 'mysql' is unknown"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x.db?mode=ro", "has options"),
        ("postgresql://me@host", "names no database"),
        ("postgresql://me:secret@host:port/x", "is no database URL"),
        ("://x", "is no database URL"),
    ],
)
def test_unusable_urls_are_refused_without_their_password(given: str, said: str) -> None:
    with pytest.raises(ResultsError) as caught:
        resolve_url(given, folder=Path("/"))
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@h/x", "postgresql://me:***@h/x"),
        ("postgresql://me@h/x?password=secret", "postgresql://me@h/x?password=***"),
        ("postgresql://me:secret@h:port/x", "postgresql://me:***@h:port/x"),
        ("no url, password=secret", "no url, password=***"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("/tmp/x.db", "/tmp/x.db"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_artifacts_lie_beside_the_file_or_in_the_given_folder(tmp_path: Path) -> None:
    assert artifacts_dir(resolve_url("runs/x.db", folder=tmp_path), folder=Path("/")) == tmp_path / "runs" / "artifacts"
    assert artifacts_dir("postgresql+psycopg://h/x", folder=tmp_path) == tmp_path / "artifacts"
