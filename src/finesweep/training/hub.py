"""A data set of the hub, or its copy in the local cache of `datasets` where the hub does not answer.

In: id, config, revision. Out: its splits, and the commit that they are of. It must not know which splits are wanted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from finesweep.errors import DataError

_PROBE_S = 10  # the hub is asked once, whether it answers: its own libraries try again for half a minute and more


class HubDataSet:
    def __init__(self, name: str, *, config: str | None, revision: str | None) -> None:
        self._name, self._config, self._revision = name, config, revision
        self._commit: str | None = None
        self._builder: Any = None  # datasets.DatasetBuilder, which is untyped here

    def identity(self) -> str:
        """Return what tells the contents from others, without downloading them. Raises DataError."""
        if self._commit is None:
            self._commit = self._ask_hub()
        return f"{self._name} {self._config}@{self._commit}"

    def splits(self) -> Mapping[str, datasets.Dataset]:
        """Download what is not here yet, and map it into memory. Raises DataError."""
        self.identity()
        with self._explained():
            if self._builder is None:
                self._builder = self._load(revision=self._commit)
            self._builder.download_and_prepare()
            splits: Mapping[str, datasets.Dataset] = self._builder.as_dataset()
        return splits

    def _ask_hub(self) -> str:
        """Return the commit of the wanted revision; where nobody answers, that of the copy in the local cache."""
        hub = huggingface_hub.HfApi(endpoint=datasets.config.HF_ENDPOINT)
        try:
            return str(hub.dataset_info(self._name, revision=self._revision, timeout=_PROBE_S).sha)
        except GatedRepoError as error:
            raise self._fault("is given out on request only", "Ask for it on its page, then: hf auth login") from error
        except RevisionNotFoundError as error:
            raise self._fault(f'has no revision "{self._revision}"', "Correct data.revision.") from error
        except RepositoryNotFoundError as error:
            way_out = "Correct the name, or for a private one: hf auth login"
            raise self._fault("is neither a folder here nor a data set of the hub", way_out) from error
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise self._fault(f"is refused: {_first_line(error)}", "Correct the name.") from error
            return self._cached_commit(error)
        except Exception as error:  # no connection: of whichever library carries the requests
            return self._cached_commit(error)

    def _cached_commit(self, unreached: Exception) -> str:
        try:
            with _offline():
                self._builder = self._load(revision=None)
        except Exception as error:
            raise self._fault(
                f"is not in the local cache, and {datasets.config.HF_ENDPOINT} cannot be reached "
                f"({_first_line(unreached)})",
                "Connect and try again, or load it elsewhere, write it with `save_to_disk` and name that folder.",
            ) from error
        commit = str(self._builder.hash)
        if self._revision is not None and self._revision != commit:
            raise self._fault(
                f"cannot be held to revision {self._revision}: {datasets.config.HF_ENDPOINT} cannot be reached "
                f"({_first_line(unreached)}), and the local cache has commit {commit}",
                "Connect and try again, or name that commit as data.revision.",
            ) from unreached
        return commit

    def _load(self, *, revision: str | None) -> Any:
        # the prefix keeps `datasets` from taking a folder of that name, wherever the process stands
        return datasets.load_dataset_builder(f"hf://datasets/{self._name}", self._config, revision=revision)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a config that is not there, a cut connection, a broken file: each has its own
            way_out = "Correct data.config, or load it elsewhere, write it with `save_to_disk` and name that folder."
            raise self._fault(f"cannot be loaded: {_first_line(error.__cause__ or error)}", way_out) from error

    def _fault(self, what: str, way_out: str) -> DataError:
        return DataError(f'data.dataset: "{self._name}" {what}. {way_out}')


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` look at its cache without trying the hub again first."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
