"""A job of a fine-tuning server as a script that begins it again, with the official client and nothing of finesweep.

In: the record of a remote trial, the rows that its job was given. Out: the script, and these rows beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finesweep.export.exported import Exported
from finesweep.export.headline import headline, one_line
from finesweep.export.record import ExportRecord
from finesweep.spec.prices import tokens_text
from finesweep.spec.protocol import HYPERPARAMETERS, LONGEST_SUFFIX, request_part


@dataclass(frozen=True, slots=True)
class Rows:
    """A file of rows as a server is given it."""

    name: str  # by its content: other trials' files are others, or the same
    text: str


def to_openai_job(record: ExportRecord, rows: Mapping[str, Rows]) -> Exported:
    """Write the script. What was left to the server is left to it again."""
    remote = record.remote
    assert remote is not None, "only of remote trials"
    files = {
        f"{key}_file": [rows[split].name, hashlib.sha256(rows[split].text.encode()).hexdigest()]
        for key, split in (("training", "train"), ("validation", "validation"))
    }
    asked = {name: record.settings[name] for name in HYPERPARAMETERS}
    said = "\n".join([*headline(record), *_made(remote)])
    text = _SCRIPT.format(
        said=said,
        key=one_line(remote["api_key_env"]),
        base_url=repr(remote["base_url"]),
        key_name=repr(remote["api_key_env"]),
        files=_literal(files),
        job=_literal(_job(record, remote, asked)),
    )
    return Exported(text, beside={file.name: file.text for file in rows.values()})


def _literal(value: Mapping[str, Any]) -> str:
    """Write texts and numbers such that they mean the same in Python and in JSON."""
    return json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)


def _job(record: ExportRecord, remote: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Give the request but for its files, in the form that the sweep's server takes."""
    suffix = remote["suffix"] or f"{record.sweep}-{record.trial}"[:LONGEST_SUFFIX]
    return {
        "model": remote["model"],
        "seed": record.seed,
        "suffix": suffix,
        **request_part(asked, remote["hyperparameters"]),
    }


def _made(remote: Mapping[str, Any]) -> list[str]:
    """Say what the trial's own job left on the server: it may be all that is needed."""
    made = remote["made"]
    lines = []
    if made.get("fine_tuned_model"):
        lines.append(f"Its job {made.get('job')} has made the model {made['fine_tuned_model']}, which is there to use.")
    best = made.get("best_checkpoint")
    if best and best != made.get("fine_tuned_model"):
        lines.append(f"The best of its checkpoints by the sweep's metric: {best}.")
    if made.get("trained_tokens") is not None:
        lines.append(f"It took {tokens_text(made['trained_tokens'], made.get('cost'))}.")
    return [one_line(line) for line in lines]


_SCRIPT = '''"""{said}

This begins the same job again, and costs as much. It needs openai (pip install openai), the files of rows beside it,
and the server's key in the environment variable {key}.
"""

import hashlib
import os
import sys
from pathlib import Path

from openai import OpenAI

BASE_URL = {base_url}
FILES = {files}
JOB = {job}


def upload(client, name, sha256):
    """Upload a file of rows, unless the server has it; refuse one that is not what the trial was given."""
    content = Path(__file__).with_name(name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{{name}} is not what the trial was given: export it again.")
    for file in client.files.list(purpose="fine-tune"):
        if file.filename == f"finesweep-{{name}}" and file.bytes == len(content) and file.status != "error":
            return file.id
    return client.files.create(file=(f"finesweep-{{name}}", content), purpose="fine-tune").id


def main():
    # Nothing is asked twice: a job whose answer was lost runs, and would have a second one beside it.
    client = OpenAI(base_url=BASE_URL, api_key=os.environ[{key_name}], max_retries=0)
    files = {{role: upload(client, name, sha256) for role, (name, sha256) in FILES.items()}}
    job = client.fine_tuning.jobs.create(**JOB, **files)
    print(job.id)


if __name__ == "__main__":
    main()
'''
