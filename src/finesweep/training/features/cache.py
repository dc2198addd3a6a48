"""The door to stored features: whether a trial's frozen part is computed once, the numbers, and a model fed with them.

In: a sweep's model and data, the settings of trials. Out: features, shells. One per worker; the stores on disk are
shared by all. It must not know how trials are trained.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
import transformers

from finesweep.spec.sweep import TrainingSpec, TransformersSweep
from finesweep.training.encoding import row_lengths
from finesweep.training.features.boundary import Batch, Boundary
from finesweep.training.features.eligible import why_uncached
from finesweep.training.features.passing import pass_over, split_of, token_batch
from finesweep.training.features.probing import Autocast, Found, Probe, find_boundary
from finesweep.training.features.room import NoRoomError
from finesweep.training.features.rows import StoredSplit
from finesweep.training.features.shell import Form, hollow, shell_of
from finesweep.training.features.store import FeatureStore, Plan, Writer
from finesweep.training.memory import is_out_of_memory
from finesweep.training.methods import Cut, Trainable, cut_of, trainable
from finesweep.training.models import BaseModel, Model
from finesweep.training.pooling import add_pooling
from finesweep.training.precision import float32_products

LAYOUT = 1  # raise it when stored numbers change their meaning

_N_PROBED = 8  # rows that a model fed with features is held against the whole model on
_SAMPLED = 256  # numbers of each tensor that tell one model from another
_NEAR = 1000  # units in the last place by which batches of other lengths may differ, after many layers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotCached:
    reason: str


@dataclass(frozen=True, slots=True)
class Features:
    """What crosses one boundary, for all rows that trials see."""

    train: StoredSplit
    validation: StoredSplit
    seconds: float  # that building or waiting took in this call; 0: it was there


@dataclass(frozen=True, slots=True)
class _Known:
    """What a worker has found out about one way to freeze a model."""

    key: str
    features: Features
    boundary: Boundary
    form: Form
    cut: Cut
    whole: Trainable  # of which the model is not kept


class FeatureCache:
    def __init__(
        self,
        spec: TransformersSweep,
        base_model: BaseModel,
        *,
        train: datasets.Dataset,
        validation: datasets.Dataset,
        data_key: str,
        model_fingerprint: str,
        pad_id: int,
        device: str,
        root: Path,
    ) -> None:
        """`data_key` names tokenizer, texts and their greatest length; `device` is cpu or cuda."""
        self._spec, self._base_model = spec, base_model
        self._rows = {"train": train, "validation": validation}
        self._data_key, self._model_fingerprint = data_key, model_fingerprint
        self._pad_id, self._device = pad_id, device
        self._store = FeatureStore(root, quota_bytes=round(spec.resources.feature_cache_gib * 2**30))
        self._known: dict[tuple[Any, ...], _Known | NotCached] = {}

    def find(self, settings: TrainingSpec) -> Features | NotCached:
        """Return the features that a trial's head or last blocks are trained on, computing them if nobody has yet."""
        reason = why_uncached(self._spec, settings)
        if reason is not None:
            return NotCached(reason)
        variant = _variant(settings)
        known = self._known.get(variant)
        if known is None:
            known = self._known[variant] = self._look_within_memory(settings)
            return known if isinstance(known, NotCached) else known.features
        if isinstance(known, NotCached):
            return known
        self._store.touch(known.key)
        return replace(known.features, seconds=0.0)

    def shell(self, settings: TrainingSpec) -> Trainable:
        """Make the model that a trial trains on what `find` found.

        It has no frozen part; call it as `model(features=vectors)`, or, of sequences, with the tokens beside them. What
        is trained is drawn under the settings' seed, has its usual names, and counts are those of the whole model.
        """
        known = self._known[_variant(settings)]
        assert isinstance(known, _Known), "asked where nothing is cached"
        model = shell_of(self._base_model.pristine(settings.seed), known.boundary, known.form, trained=known.cut.names)
        if known.boundary.path != model.base_model_prefix:  # else what is stored is pooled
            add_pooling(model, settings.pooling)
        return replace(
            known.whole,
            model=model,
            frozen_modules=tuple(model.get_submodule(path) for path in known.cut.frozen),
            frozen_names=known.cut.frozen,
        )

    def _look_within_memory(self, settings: TrainingSpec) -> _Known | NotCached:
        try:
            return self._look(settings)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return NotCached("the device's memory does not hold a single row and the whole model")

    def _look(self, settings: TrainingSpec) -> _Known | NotCached:
        pristine = self._base_model.pristine(settings.seed)
        cut = cut_of(pristine, settings, fresh_parameters=self._base_model.fresh_parameters)
        whole = self._whole(pristine, cut, settings)
        counts = replace(trainable(whole), model=None, frozen_modules=())
        whole.to(self._device)
        autocast = partial(_autocast, settings, self._device)
        last_is_a_token = self._last_is_a_token(pristine.config.get_text_config().pad_token_id)
        probe = Probe(whole, cut, self._probed(), autocast, last_is_a_token)
        found = find_boundary(probe, unfrozen_layers=settings.unfrozen_layers, pooling=settings.pooling)
        if isinstance(found, str):
            return NotCached(found)
        key = self._key(pristine, found.boundary, settings)
        try:
            features = self._features(key, whole, found, autocast)
        except NoRoomError as error:
            return NotCached(str(error))
        except OSError as error:
            return NotCached(f"{self._store.root}: {error.strerror or error}")
        if not self._are_ours(features, found, computed_in=_half(settings)):
            return NotCached("what is stored is not what the model computes here")
        return _Known(key, features, found.boundary, found.form, cut, counts)

    def _whole(self, pristine: Model, cut: Cut, settings: TrainingSpec) -> Model:
        model = hollow(pristine, {}, trained=cut.names)
        add_pooling(model, settings.pooling)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in cut.names)
        return model

    def _features(self, key: str, whole: Model, found: Found, autocast: Autocast) -> Features:
        splits = {name: split_of(rows, found.boundary) for name, rows in self._rows.items()}
        n_vectors = {name: split.n_vectors for name, split in splits.items()}

        def compute(writer: Writer) -> None:
            _log.info("computing frozen features: %s", found.boundary.name)
            pass_over(whole, found.boundary, splits, writer, pad_id=self._pad_id, autocast=autocast)

        opened = self._store.open_or_build(key, Plan(found.states.dtype, found.states.shape[-1], n_vectors), compute)
        stored = {
            name: StoredSplit(split.rows, opened.vectors[name], None if split.is_vectors else split.firsts)
            for name, split in splits.items()
        }
        return Features(stored["train"], stored["validation"], opened.seconds)

    def _probed(self) -> Batch:
        rows = self._rows["train"]
        return token_batch([rows[i] for i in self._probed_rows()], pad_id=self._pad_id, device=self._device)

    def _probed_rows(self) -> list[int]:
        """Choose rows of different lengths from the shorter half: every worker looks, and the longest cost most."""
        lengths = row_lengths(self._rows["train"])
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        last = (len(order) - 1) // 2
        n = min(_N_PROBED, last + 1)
        return [order[i * last // max(1, n - 1)] for i in range(n)]

    def _last_is_a_token(self, pad_id: int) -> bool:
        """Tell whether no row ends in the id of padding, where models that look for the last token would pass it by."""
        for rows in self._rows.values():
            ids = rows.with_format("arrow")["input_ids"][:]
            for chunk in ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]:
                ends = chunk.offsets.to_numpy()[1:] - 1
                if (chunk.values.to_numpy()[ends] == pad_id).any():
                    return False
        return True

    def _are_ours(self, features: Features, found: Found, *, computed_in: torch.dtype | None) -> bool:
        """Hold stored vectors of some rows against what the model here and now computes."""
        stored = [features.train[row]["features"] for row in self._probed_rows()]
        states = found.states.cpu()
        if found.boundary.is_vector:
            return are_near(torch.stack(stored), states, computed_in)
        pairs = zip(stored, states, strict=True)
        return all(are_near(row, of_model[: len(row)], computed_in) for row, of_model in pairs)

    def _key(self, pristine: Model, boundary: Boundary, settings: TrainingSpec) -> str:
        """Name everything that changes the numbers. What is trained, and its seed, do not."""
        pooled = boundary.path == pristine.base_model_prefix
        parts = [
            LAYOUT,
            self._model_fingerprint,
            weights_digest(pristine, but=self._base_model.fresh_parameters),
            self._data_key,
            boundary.name,
            settings.pooling if pooled else None,
            _variant(settings)[-1],
            pristine.config._attn_implementation,
            self._device,
            float32_products(),
            torch.__version__,
            transformers.__version__,
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def are_near(found: torch.Tensor, expected: torch.Tensor, computed_in: torch.dtype | None = None) -> bool:
    """Tell whether two tensors may come from the same model, on batches of other lengths.

    `computed_in` is the precision of the model's products where it is less than that of what comes out in the end.
    """
    eps = torch.finfo(computed_in or expected.dtype).eps
    largest = min(0.1, _NEAR * eps) * float(expected.abs().max())
    return bool(((found - expected).abs() <= largest).all())


def weights_digest(model: Model, *, but: frozenset[str]) -> str:
    """Hash numbers from all over each tensor: a fingerprint of files reads their ends only."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        if name in but:
            continue
        flat = tensor.detach().flatten()
        chosen = flat[:: max(1, len(flat) // _SAMPLED)].contiguous().cpu()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(chosen.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _variant(settings: TrainingSpec) -> tuple[Any, ...]:
    """Name what of a trial's settings changes what its frozen part computes."""
    passed_on = settings.model_extra or {}
    precision = "bf16" if passed_on.get("bf16") else "fp16" if passed_on.get("fp16") else None
    return (settings.unfrozen_layers, settings.pooling, passed_on.get("tf32"), precision)


def _half(settings: TrainingSpec) -> torch.dtype | None:
    match _variant(settings)[-1]:
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
    return None


def _autocast(settings: TrainingSpec, device: str) -> contextlib.AbstractContextManager[Any]:
    dtype = _half(settings)
    if dtype is None:
        return contextlib.nullcontext()
    autocast: contextlib.AbstractContextManager[Any] = torch.autocast(device, dtype=dtype)
    return autocast
