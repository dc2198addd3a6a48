from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.results.frames import open_results
from finesweep.results.schema import metadata, version_table
from finesweep.results.url import resolve_url
from finesweep.results.writer import open_writer


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(resolve_url("r.db", folder=tmp_path))
    yield engine
    engine.dispose()


def test_our_tables_and_optunas_share_a_database(engine: sa.Engine) -> None:
    open_writer(str(engine.url)).close()
    ours = set(sa.inspect(engine).get_table_names()) - {"sqlite_sequence"}
    storage = optuna.storages.RDBStorage(str(engine.url))
    storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "tickets")
    optunas = set(sa.inspect(engine).get_table_names()) - ours
    assert ours == set(metadata.tables)
    assert all(name.startswith("finesweep_") for name in ours)
    assert {"studies", "trials"} <= optunas
    storage.remove_session()
    storage.engine.dispose()
    with open_writer(str(engine.url)):
        assert open_results(str(engine.url)).sweeps().empty


def test_tables_of_a_newer_finesweep_are_refused_to_writers_and_readers(engine: sa.Engine) -> None:
    open_writer(str(engine.url)).close()
    with engine.begin() as connection:
        connection.execute(sa.update(version_table).values(version=99))
    for open_it in (open_writer, open_results):
        with pytest.raises(ResultsError, match=r"schema version 99, made by a newer finesweep.*Upgrade finesweep"):
            open_it(str(engine.url))


def test_a_database_without_our_tables_holds_no_sweeps(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE other (a INTEGER)"))
    with pytest.raises(ResultsError, match="holds no sweeps of finesweep"):
        open_results(str(engine.url))
