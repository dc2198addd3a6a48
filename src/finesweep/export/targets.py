"""The formats that a trial can be exported to, each from one record.

In: a record, a format, a number of devices. Out: the text of the file, of those beside it, and what is to be warned of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from finesweep.errors import ExportError
from finesweep.export.batch import Spread, spread
from finesweep.export.exported import Exported
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import export_text, export_yaml
from finesweep.export.script.writer import to_script
from finesweep.export.stacks.axolotl import to_axolotl
from finesweep.export.stacks.llamafactory import to_llamafactory
from finesweep.export.stacks.openai import to_openai
from finesweep.export.stacks.openai_job import Rows, to_openai_job
from finesweep.export.stacks.trainer import to_trainer
from finesweep.export.stacks.trl import to_trl
from finesweep.export.whole_file import check_free, write_whole
from finesweep.spec.sweep import REMOTE, TRANSFORMERS


class Writer(Protocol):
    def __call__(self, record: ExportRecord, ledger: Ledger, spread: Spread, /) -> Exported: ...


@dataclass(frozen=True, slots=True)
class Target:
    called: str  # in messages
    ending: str  # of its file
    write: Writer


_RECORDS = {"json": export_text, "yaml": export_yaml}
_TRAINING: Mapping[str, Target] = {
    "trainer": Target("TrainingArguments", "trainer.json", to_trainer),
    "script": Target("a script", "train.py", to_script),
    "axolotl": Target("Axolotl", "axolotl.yaml", to_axolotl),
    "llamafactory": Target("LLaMA-Factory", "llamafactory.yaml", to_llamafactory),
    "trl": Target("TRL", "trl.yaml", to_trl),
}
OPENAI = "openai"
FORMATS = (*_RECORDS, *_TRAINING, OPENAI)


def ending_of(target: str, *, trainer: str = TRANSFORMERS) -> str:
    """Return how a file of a format is called behind the trial's name."""
    if target == OPENAI:
        return "openai.py" if trainer == REMOTE else "openai.json"
    return target if target in _RECORDS else _TRAINING[target].ending


def needs_rows(record: ExportRecord, target: str) -> bool:
    """Tell whether an export holds the rows themselves: what a job of a fine-tuning server is given."""
    return target == OPENAI and record.trainer == REMOTE


def export_to(
    record: ExportRecord, target: str, *, n_devices: int | None = None, rows: Mapping[str, Rows] | None = None
) -> Exported:
    """Write a record for a target.

    Args:
        n_devices: None: as many as its batch is for.
        rows: of which `needs_rows` tells, by split.

    Raises ExportError where the target cannot say it, or the devices cannot share the batch.
    """
    if target in _RECORDS:
        return Exported(_RECORDS[target](_for_devices(record, n_devices)))
    if target == OPENAI:
        if n_devices is not None:
            who = "a fine-tuning server" if record.trainer == REMOTE else "OpenAI"
            raise ExportError(f"--devices: {who} trains on devices of its own. Leave it out.")
        if record.trainer == REMOTE:
            assert rows is not None, "needs_rows tells that they are"
            return to_openai_job(record, rows)
        return to_openai(record, Ledger(record, target="OpenAI"))
    chosen = _TRAINING[target]
    if record.trainer == REMOTE:
        raise ExportError(
            f"{record.sweep}:{record.trial} cannot be exported to {chosen.called}: it was a job of a fine-tuning "
            "server, whose model and whose way to train are not known here. Use --to openai, which begins that job "
            "again; or --to json."
        )
    if record.trainer != TRANSFORMERS:
        raise ExportError(
            f"{record.sweep}:{record.trial} cannot be exported to {chosen.called}: trainer: {record.trainer} is a "
            "function of your own, and only it knows what its settings mean. Use --to json."
        )
    at_work = spread(record, n_devices or record.n_devices)
    return chosen.write(record, Ledger(record, target=chosen.called), at_work)


def write_exported(exported: Exported, path: Path, *, force: bool) -> list[Path]:
    """Write an export's files; none of them if one is there already and not forced. Raises ExportError.

    What stands beside the file itself and is there already, the very same, is left as it is: another trial's, perhaps.
    """
    beside = {path.with_name(name): text for name, text in exported.beside.items()}
    texts = {path: exported.text} | {file: text for file, text in beside.items() if not _is_there(file, text)}
    for file in texts:
        check_free(file, force=force)
    for file, text in texts.items():
        write_whole(file, text.encode(), force=force)
    return [path, *beside]


def _is_there(file: Path, text: str) -> bool:
    return file.is_file() and file.read_bytes() == text.encode()


def _for_devices(record: ExportRecord, n_devices: int | None) -> ExportRecord:
    """Restate a record for a number of devices: what one takes at once follows from the batch."""
    if n_devices is None or n_devices == record.n_devices:
        return record
    if record.trainer == REMOTE:
        raise ExportError("--devices: a fine-tuning server trains on devices of its own. Leave it out.")
    if record.trainer != TRANSFORMERS:
        raise ExportError(
            f"--devices: {record.trainer} is a function of your own, and only it knows what a batch is. Leave it out."
        )
    shared = spread(record, n_devices)
    settings = {**record.settings, "device_batch_size": shared.device_batch_size}
    return replace(record, settings=settings, n_devices=n_devices)
