"""A trainer of one's own: a plain PyTorch loop that finesweep calls once for each attempt at a trial.

    finesweep run sweeps/plain-pytorch.yaml      # which names it: `trainer: plain_pytorch:train`

Encoder and head each have a learning rate of their own, which the trainer that comes with finesweep cannot do. Whatever
library you train with, these are the four things to do: read the trial, report, return when told to, go on where an
earlier attempt was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer

from finesweep import Reporter, Trial

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of this trial: others do not see it


def train(trial: Trial, reporter: Reporter) -> None:
    torch.manual_seed(trial.seed)
    tokenizer = AutoTokenizer.from_pretrained(trial.model_path)
    texts, labels = read(trial.data.train, trial.data.max_train_rows)
    held_out = read(trial.data.validation, trial.data.max_validation_rows)
    classes = sorted(set(labels))
    model = Classifier(trial.model_path, len(classes)).to(DEVICE)

    def losses(texts: list[str], labels: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        options = {"truncation": True, "max_length": trial.data.max_length, "padding": True, "return_tensors": "pt"}
        logits = model(tokenizer(texts, **options).to(DEVICE))  # (batch, classes)
        wanted = torch.tensor([classes.index(label) for label in labels], device=DEVICE)  # (batch,)
        return cross_entropy(logits, wanted), logits.argmax(dim=-1) == wanted

    searched = trial.configuration
    rates = [searched["encoder_learning_rate"], searched["head_learning_rate"]]
    optimizer = torch.optim.AdamW([{"params": part.parameters()} for part in (model.encoder, model.head)])
    reporter.total_examples = total = searched["epochs"] * len(texts)

    checkpoint = trial.folder / "checkpoint.pt"
    seen = load(checkpoint, model, optimizer) if checkpoint.exists() else 0  # of an earlier attempt at this trial
    reported = seen // trial.settings["eval_every"]
    while seen < total:
        epoch, start = divmod(seen, len(texts))
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(trial.seed + epoch)).tolist()
        batch = order[start : start + searched["batch_size"]]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - seen / total)
        model.train()
        loss, _ = losses([texts[i] for i in batch], [labels[i] for i in batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch)

        if seen // trial.settings["eval_every"] > reported or seen == total:
            reported = seen // trial.settings["eval_every"]
            save(checkpoint, model, optimizer, seen)  # before the report: whatever the answer is, nothing is lost
            if reporter.report(seen, evaluate(model, losses, *held_out)).must_return:
                return
        elif reporter.should_stop():  # somebody pressed Ctrl-C: the trial goes on from here when the sweep is resumed
            save(checkpoint, model, optimizer, seen)
            return
    checkpoint.unlink()
    torch.save(model.state_dict(), trial.folder / "model.pt")  # what is kept of the best trial


class Classifier(torch.nn.Module):
    def __init__(self, model_path: str | None, n_classes: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(model_path)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, n_classes)

    def forward(self, tokens: Any) -> torch.Tensor:
        states = self.encoder(**tokens).last_hidden_state  # (batch, sequence, hidden)
        mask = tokens["attention_mask"].unsqueeze(-1)  # (batch, sequence, 1)
        return self.head((states * mask).sum(dim=1) / mask.sum(dim=1))  # (batch, classes)


@torch.no_grad()
def evaluate(model: Classifier, losses: Any, texts: list[str], labels: list[str]) -> dict[str, float]:
    model.eval()
    chunks = [slice(start, start + 64) for start in range(0, len(texts), 64)]
    scored = [losses(texts[chunk], labels[chunk]) for chunk in chunks]
    loss = sum(float(mean) * len(right) for mean, right in scored) / len(texts)
    return {"accuracy": sum(float(right.sum()) for _, right in scored) / len(texts), "loss": loss}


def read(path: str, most: int | None) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()][:most]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, seen: int) -> None:
    beside = path.with_suffix(".new")  # so that a checkpoint is there whole or not at all
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    if DEVICE == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state()  # a GPU's dropout draws from a generator of its own
    torch.save({**state, "seen": seen}, beside)
    beside.replace(path)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = torch.load(path, map_location=DEVICE, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"].cpu())
    if "cuda_rng" in state and DEVICE == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"].cpu())
    return int(state["seen"])
