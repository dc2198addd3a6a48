"""The text of a first study and sweep, with a reason beside each choice. In: what was decided. Out: YAML."""

from __future__ import annotations

import json
import os.path
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from finesweep.spec.sweep import METRICS
from finesweep.starting.guess import Guess
from finesweep.starting.plan import STARTUP_TRIALS, TRIALS, Plan

_PLAIN = re.compile(r"[A-Za-z_./][\w./:@-]*\Z")
_GAP, _COMMENTS_AT = "   # ", 28
_HEAD_RATES = "low: 1e-4, high: 1e-1"  # a new head must travel far
_BLOCK_RATES = "low: 2e-5, high: 2e-3"  # of pre-trained blocks alone


@dataclass(frozen=True, slots=True)
class Inputs:
    name: str
    model: str
    train: Path
    validation: Path | None
    n_rows: int
    leave_out: bool  # rows that lack a text or a label


def study_text(inputs: Inputs, guess: Guess, plan: Plan) -> str:
    """Write the study: every method, with the ranges that suit it."""
    also = ", ".join(name for name in METRICS[guess.task] if name != plan.metric)
    low, high = plan.unfrozen_layers
    layers = "the last blocks" if low else "the last blocks; 0: the new head alone"
    unfrozen = f"""\
  unfrozen_layers: {{type: int, low: {low}, high: {high}, when: {{method: feature-extraction}}}}   # {layers}
"""
    sizes, epochs = ", ".join(map(str, plan.batch_sizes)), plan.epochs
    return _aligned(f"""\
# What is searched, and how a trial is judged. Begun by `finesweep init` for {inputs.train.name}; yours to change.

objective: {{metric: {plan.metric}, direction: {plan.direction}}}   # {plan.why_metric}; also measured: {also}

sampler: {{type: tpe, seed: 0, startup_trials: {STARTUP_TRIALS}}}   # so many random trials before it learns from them

pruner:
  type: asha   # of the trials that get to a report, the best third goes on
  reduction_factor: 3
  compare_at: progress   # compared at the same share of their own length, since `epochs` is searched

parameters:
  method: {{type: categorical, choices: [feature-extraction, lora, full]}}   # take `full` out if memory is short
  learning_rate:   # the more of the pre-trained weights move, the smaller the steps
    by: method
    feature-extraction: {{type: float, {_BLOCK_RATES if low else _HEAD_RATES}, log: true}}
    lora: {{type: float, low: 1e-5, high: 1e-3, log: true}}
    full: {{type: float, low: 5e-6, high: 1e-4, log: true}}
  batch_size: {{type: categorical, choices: [{sizes}]}}   # examples per optimizer step
  epochs: {{type: int, low: {epochs[0]}, high: {epochs[1]}}}
  warmup_ratio: {{type: float, low: 0.0, high: 0.2}}   # of a trial's own steps
  weight_decay: {{type: float, low: 0.0, high: 0.1}}
{unfrozen if high > low else ""}\
  lora_rank: {{type: categorical, choices: [4, 8, 16], when: {{method: lora}}}}
  lora_alpha: {{value: 2 * lora_rank, when: {{method: lora}}}}
""")


def sweep_text(inputs: Inputs, guess: Guess, plan: Plan, *, folder: Path) -> str:
    """Write the sweep, with paths as seen from `folder/sweeps`."""
    return _aligned(f"""\
# One launch of the study on a model, a data set and devices. Begun by `finesweep init`; yours to change.

name: {_quoted(inputs.name)}
study: {_quoted(f"../studies/{inputs.name}.yaml")}

model: {_quoted(_from_sweeps(inputs.model, folder))}
task: {guess.task}

data:
{_data_text(inputs, guess, plan, folder=folder)}
training:   # the same for all trials; any field of transformers' TrainingArguments too
  eval_every: 20   # percent of a trial's length: five reports each
  seed: 1
{_grouped(guess)}\
{_fixed_layers(plan)}\
  # bf16: true   # on a GPU of the last years: twice as fast
  # device_batch_size: {min(8, max(plan.batch_sizes))}   # the most that the device takes at once, if memory is short

budget:
  trials: {TRIALS}
  # hours: 8   # no trial begins after these

# resources: {{gpus_per_trial: 0.5}}   # two trials share a GPU; by default each has one
""")


def _data_text(inputs: Inputs, guess: Guess, plan: Plan, *, folder: Path) -> str:
    lines = [f"train: {_quoted(_from_sweeps(str(inputs.train), folder))}"]
    if inputs.validation is not None:
        lines.append(f"validation: {_quoted(_from_sweeps(str(inputs.validation), folder))}")
    else:
        lines.append(f"validation: {plan.validation_share:g}   # this share of the rows is set aside")
    if guess.format is not None:
        lines.append(f"format: {guess.format}")
    lines += [f"{key}: {_quoted(column)}" for key, column in guess.columns.items()]
    what = "texts are packed to this length" if guess.format == "text" else "longer rows are cut"
    lines.append(f"max_length: {plan.max_length}   # tokens; {what}")
    if plan.max_validation_rows is not None:
        lines.append(f"max_validation_rows: {plan.max_validation_rows}   # they are scored at every report")
    if inputs.leave_out:
        lines.append("incomplete: leave-out   # rows that lack something")
    return "".join(f"  {line}\n" for line in lines)


def _grouped(guess: Guess) -> str:
    """Have rows of like length in a batch; packed texts are all of one length."""
    strategy = "  train_sampling_strategy: group_by_length   # batches of rows of like length spend less on padding\n"
    return "" if guess.format == "text" else strategy


def _fixed_layers(plan: Plan) -> str:
    low, high = plan.unfrozen_layers
    return f"  unfrozen_layers: {low}   # of feature-extraction\n" if low == high else ""


def _from_sweeps(text: str, folder: Path) -> str:
    """Write a path that lies in the folder as seen from its sweeps, other text as it is."""
    path = Path(text)
    return os.path.relpath(path, folder / "sweeps") if path.is_absolute() and path.is_relative_to(folder) else text


def _aligned(text: str) -> str:
    """Begin comments behind settings at one column, where these are short enough."""
    lines = []
    for line in text.splitlines():
        setting, gap, why = line.rpartition(_GAP)
        lines.append(f"{setting:<{_COMMENTS_AT}}  # {why}" if gap else line)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Write text so that YAML reads it back as it is."""
    return text if _PLAIN.match(text) and yaml.safe_load(text) == text else json.dumps(text, ensure_ascii=False)
