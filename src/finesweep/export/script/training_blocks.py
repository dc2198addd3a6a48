"""Blocks of a training script, as text: losses, order, metrics. As trials are trained.

A block is plain Python; its names in capitals are constants at the head of the script.
"""

from __future__ import annotations

LOSSES = {
    "classification": """
def loss_sum(logits, labels):
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=SMOOTHING)
""",
    "multi-label-classification": """
def loss_sum(logits, labels):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
""",
    "regression": """
def loss_sum(logits, labels):
    return torch.nn.functional.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")
""",
    "causal-lm": """
def loss_sum(logits, labels):
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # the token at i is predicted at i - 1
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum", label_smoothing=SMOOTHING
    )
""",
}

COUNTS = {
    "causal-lm": '(batch["labels"][:, 1:] != -100).sum()',
    "": 'torch.tensor(batch["labels"].numel())',
}

MEAN_LOSS = """
def mean_loss(outputs, labels, num_items_in_batch):
    return loss_sum(outputs["logits"], labels) / num_items_in_batch
"""

TRAINER = '''
class WholeStepTrainer(Trainer):
    """A Trainer whose loss is the mean over an optimizer step, however it is split over devices and accumulation."""

    def compute_loss(self, model, *args, **options):
        for module in frozen:
            module.eval()  # the Trainer puts the whole model in training mode before every batch
        return super().compute_loss(model, *args, **options)

    def _get_num_items_in_batch(self, batches, device):
        count = torch.stack([N_LOSSES for batch in batches]).sum().to(device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count
'''

SAMPLER = """
    def _get_train_sampler(self, train_dataset=None):
        order = ORDER
        return SAMPLER_EXPRESSION
"""

BY_LENGTH = '''
class ByLength(LengthGroupedSampler):
    """Batches of rows of like length, in an order that follows from seed and epoch alone."""

    def __init__(self, batch_size, lengths):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.generator.manual_seed(SEED + self.epoch)
        return super().__iter__()
'''

WHOLE_BATCHES = '''
class WholeBatches(torch.utils.data.Sampler):
    """The rows of an epoch that fill whole batches."""

    def __init__(self, n_rows, order):
        self.n_rows, self.order = n_rows - n_rows % BATCH_SIZE, order

    def set_epoch(self, epoch):
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self):
        return self.n_rows

    def __iter__(self):
        return itertools.islice(self.order, self.n_rows)
'''

STOP = '''
class StopAtTheTrialsStep(TrainerCallback):
    """End where the trial had the value that it was chosen for; the schedule stays that of the whole training."""

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == STOP_AT
'''

STATISTICS = {
    "classification": """
def statistics(logits, labels):
    logits = first(logits)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.cat([losses[:, None], logits], dim=-1)
""",
    "multi-label-classification": """
def statistics(logits, labels):
    logits = first(logits)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return torch.cat([losses.mean(-1, keepdim=True), logits], dim=-1)
""",
    "regression": """
def statistics(logits, labels):
    return first(logits)
""",
    "causal-lm": '''
def statistics(logits, labels):
    """Reduce the logits of each row to its summed loss, its tokens, and those predicted right."""
    rows = []
    for scores, targets in zip(first(logits), labels):
        is_target = targets[1:] != -100
        targets, scores = targets[1:][is_target], scores[:-1][is_target]
        losses = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
        right = (scores.argmax(-1) == targets).sum()
        rows.append(torch.stack([losses, is_target.sum().to(losses), right.to(losses)]))
    return torch.stack(rows)
''',
}

FIRST = """
def first(logits):
    return (logits[0] if isinstance(logits, tuple) else logits).float()
"""

SCORES = {
    "classification": """
def scores(rows, labels):
    predicted, classes = rows[:, 1:].argmax(-1), range(rows.shape[1] - 1)
    confusion = np.array([[np.sum((labels == a) & (predicted == b)) for b in classes] for a in classes], dtype=float)
    right, wanted, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    met = wanted + given > 0
    spread = (len(labels) ** 2 - given @ given) * (len(labels) ** 2 - wanted @ wanted)
    return {
        "loss": rows[:, 0].mean(dtype=float),
        "accuracy": np.mean(predicted == labels),
        "macro_f1": np.mean(2 * right[met] / (wanted + given)[met]),
        "mcc": (right.sum() * len(labels) - given @ wanted) / np.sqrt(spread) if spread else 0.0,
    }
""",
    "multi-label-classification": """
def scores(rows, labels):
    wanted, given = labels > 0, rows[:, 1:] > 0
    right, wrong = (wanted & given).sum(0), (wanted != given).sum(0)
    return {
        "loss": rows[:, 0].mean(dtype=float),
        "macro_f1": np.mean(2 * right / np.maximum(2 * right + wrong, 1)),
        "micro_f1": 2 * right.sum() / max(2 * right.sum() + wrong.sum(), 1),
        "subset_accuracy": np.mean((wanted == given).all(-1)),
    }
""",
    "regression": """
def scores(rows, labels):
    outputs, labels = rows[:, 0].astype(float), labels.astype(float)
    square = np.mean((outputs - labels) ** 2)
    return {
        "loss": square,
        "mae": np.mean(np.abs(outputs - labels)),
        "rmse": np.sqrt(square),
        "r2": 1 - square / np.var(labels) if np.var(labels) else np.nan,
        "spearman": spearmanr(outputs, labels).statistic,
    }
""",
    "causal-lm": """
def scores(rows, labels):
    loss, tokens, right = rows.sum(0, dtype=float)
    return {"loss": loss / tokens, "perplexity": np.exp(loss / tokens), "token_accuracy": right / tokens}
""",
}
