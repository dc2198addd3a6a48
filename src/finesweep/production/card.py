"""The model card of a production training: README.md, as the hub reads it.

In: a plan and the content of metrics.json. Out: its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finesweep.export.record_text import yaml_text
from finesweep.production.model_folder import UNPOOLED
from finesweep.production.plan import Plan
from finesweep.secrets import hide
from finesweep.spec.settings import default_of, has_effect
from finesweep.spec.sweep import ModelSpec, columns_of
from finesweep.training.model_files import ModelSource

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LICENSE = re.compile(r"^license:\s*['\"]?([\w.+-]+)['\"]?\s*$", re.MULTILINE)
_PIPELINES = {"causal-lm": "text-generation"}  # all others classify


def license_of(source: ModelSource) -> str | None:
    """Read what the base model's own card says of its license; None where it has none that says so."""
    try:
        card = (Path(source.location) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    front = _FRONT.match(card)
    found = _LICENSE.search(front[1]) if front else None
    return found[1].lower() if found else None


def card_text(plan: Plan, metrics: Mapping[str, Any], *, license_name: str | None) -> str:
    """Write the card. `license_name` is the base model's, as its card has it."""
    head = yaml_text(_header(plan, metrics, license_name))
    return hide(f"---\n{head}---\n\n" + "\n".join(_body(plan, metrics, license_name)) + "\n")


def _header(plan: Plan, metrics: Mapping[str, Any], license_name: str | None) -> dict[str, Any]:
    model, data = plan.spec.model, plan.spec.data
    header: dict[str, Any] = {"library_name": "peft" if plan.adapter else "transformers"}
    if _HUB_ID.match(model.name):
        header["base_model"] = model.name
    if data.dataset is not None and _HUB_ID.match(data.dataset):
        header["datasets"] = [data.dataset]
    header["license"] = license_name or "other"
    if license_name is None:
        header["license_name"] = "unknown"
    header["pipeline_tag"] = _PIPELINES.get(plan.spec.task, "text-classification")
    header["tags"] = ["finesweep"]
    results = [
        {"type": name, "name": f"{name} ({split})", "value": value}
        for split, named in metrics["splits"].items()
        for name, value in named.items()
        if value is not None
    ]
    if results:
        task = {"type": header["pipeline_tag"]}
        rows = {"name": _data_name(plan), "type": data.dataset if "datasets" in header else "private"}
        header["model-index"] = [
            {"name": plan.record.sweep, "results": [{"task": task, "dataset": rows, "metrics": results}]}
        ]
    return header


def _body(plan: Plan, metrics: Mapping[str, Any], license_name: str | None) -> Iterator[str]:
    record, spec = plan.record, plan.spec
    yield f"# {record.sweep}\n"
    yield (
        f"`{_base_name(spec.model)}`, trained for {spec.task} with the configuration of trial {record.sweep}:"
        f"{record.trial}, which a sweep of finesweep found.\n"
    )
    yield "## Use\n"
    yield from _use(plan)
    yield "\n## Results\n"
    yield from _results(plan, metrics)
    yield "\n## Data\n"
    yield from _data(plan, metrics)
    yield "\n## Configuration\n"
    yield from _configuration(plan, metrics)
    yield "\n## Surroundings\n"
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {version} |" for name, version in metrics["versions"].items() if version)
    yield f"| device | {metrics['facts'].get('device')}, {metrics['n_processes']} process(es) |"
    if metrics["command"]:
        yield f"\nMade by `{metrics['command']}`."
    if metrics["differs_from_trial"]:
        yield "\nOther than when the trial was trained:\n"
        yield from (f"- {line}" for line in metrics["differs_from_trial"])
    yield "\n## License\n"
    if license_name is None:
        yield (
            f"The files of the base model (`{_base_name(spec.model)}`) name no license. Find out under which it may be "
            "used and passed on before you do so with this one, which is made from it, and write it above."
        )
    else:
        yield f"The base model's card names the license `{license_name}`; this model is made from it."
    yield "What the training rows allow, their owners say; finesweep does not know it."


def _use(plan: Plan) -> Iterator[str]:
    task, pooling, folder = plan.spec.task, plan.spec.training.pooling, "path/to/this/folder"
    if pooling != "model":
        yield (
            f"The head reads {_POOLED[pooling]}. Plain transformers knows of no such thing and would read something "
            f"else, so the weights lie in `{UNPOOLED}/`, and this loads them as they were trained:\n"
        )
        yield f'```python\nimport finesweep\n\nmodel = finesweep.load_trained("{folder}")\n```\n'
    elif plan.adapter:
        kind = "AutoPeftModelForCausalLM" if task == "causal-lm" else "AutoPeftModelForSequenceClassification"
        yield (
            f"This is an adapter beside the base model, which is loaded from where it lay in training "
            f"(`{_base_name(plan.spec.model)}`; `base_model_name_or_path` in `adapter_config.json`).\n"
        )
        labels = "" if task == "causal-lm" else f", num_labels={_n_outputs(plan)}"
        yield f'```python\nfrom peft import {kind}\n\nmodel = {kind}.from_pretrained("{folder}"{labels})\n```\n'
    else:
        kind = _PIPELINES.get(task, "text-classification")
        yield f'```python\nfrom transformers import pipeline\n\npipe = pipeline("{kind}", model="{folder}")\n```\n'
    yield "To try it on a file of rows: `finesweep predict FOLDER --data ROWS.jsonl`."


_POOLED = {"mean": "the mean of the tokens' states", "cls": "the first token's state"}


def _n_outputs(plan: Plan) -> str:
    return "1" if plan.spec.task == "regression" else str(len(plan.record.provenance.get("labels", ())) or "N")


def _results(plan: Plan, metrics: Mapping[str, Any]) -> Iterator[str]:
    record, splits = plan.record, metrics["splits"]
    if splits:
        names = list(dict.fromkeys(name for named in splits.values() for name in named))
        yield "| metric | " + " | ".join(f"{split} rows" for split in splits) + " |"
        yield "|---|" + "---|" * len(splits)
        for name in names:
            yield f"| {name} | " + " | ".join(_number(splits[split].get(name)) for split in splits) + " |"
    else:
        yield (
            "Not judged: the model has learnt from the validation rows, and there are no test rows. What follows is of "
            "the trial, which learnt from the training rows alone."
        )
    if "validation" in splits:
        yield "\nThe validation rows chose this configuration and these weights: their numbers are likely too good."
    if "test" in splits:
        yield "\nThe test rows chose nothing."
    yield f"\nThe trial's own value: {record.metric} {record.value:.4f} on the validation rows."
    verification = record.verification
    if verification is not None:
        yield "\n" + _verification(verification)
    if (interval := metrics["prediction_interval"]) is not None:
        told = "not measured" if interval["value"] is None else f"{interval['value']:.4f}"
        where = "inside" if interval["is_inside"] else "outside"
        of = f"its 95 % prediction interval, {interval['low']:.4f} to {interval['high']:.4f}"
        yield f"\nThis training: {told} on the {interval['split']} rows, {where} {of}."


def _verification(found: Mapping[str, Any]) -> str:
    seeds, mean, interval = found.get("seeds", ()), found.get("mean"), found.get("interval")
    half = "" if not interval else f" ± {(interval[1] - interval[0]) / 2:.4f}"
    where = f"{found.get('metric')} {_number(mean)}{half} on the {found.get('split')} rows"
    text = f"Verified over {len(seeds)} seeds: {where}"
    baseline = found.get("baseline")
    if isinstance(baseline, Mapping) and baseline.get("mean") is not None:
        text += f"; {baseline.get('label')} {_number(baseline['mean'])}"
    return f"{text}."


def _data(plan: Plan, metrics: Mapping[str, Any]) -> Iterator[str]:
    data = plan.spec.data
    yield f"Trained on {metrics['trained_on']} rows of {_data_name(plan)}.\n"
    yield "| split | from | rows |\n|---|---|---|"
    for split, n_rows in metrics["n_rows"].items():
        given = getattr(data, split)
        if given is not None:
            name = f"{given:g} of the training rows" if isinstance(given, float) else f"`{Path(given).name}`"
            yield f"| {split} | {name} | {n_rows:,} |"
    columns = ", ".join(f"{key} `{column}`" for key, column in columns_of(data, plan.spec.task).items())
    yield f"\nColumns: {columns}; at most {data.max_length} tokens of a row."
    yield f"Fingerprints: rows `{metrics['data_fingerprint']}`, base model `{metrics['model_fingerprint']}`."
    if metrics["labels"]:
        yield f"Labels: {', '.join(metrics['labels'])}."


def _configuration(plan: Plan, metrics: Mapping[str, Any]) -> Iterator[str]:
    method = plan.spec.training.method
    yield "| setting | value |\n|---|---|"
    for name, value in metrics["settings"].items():
        is_told = name in plan.record.configuration or value != default_of(name) or name in ("method", "seed")
        if is_told and has_effect(name, method=method) and name != "report_to":
            yield f"| {name} | {value} |"
    yield f"\nWeights of step {metrics['step']}; the schedule was run to {metrics['stopped_at_percent']} %."


def _base_name(model: ModelSpec) -> str:
    return Path(model.name).name if Path(model.name).is_absolute() else model.name


def _data_name(plan: Plan) -> str:
    data = plan.spec.data
    return Path(data.dataset or data.train).name if not _HUB_ID.match(data.dataset or "") else str(data.dataset)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "–"
