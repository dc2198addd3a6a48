"""Lanes that are alike, moved on together: one forward and backward pass, and one update, for all of them.

In: lanes at the same step that see batches of the same size. Out: their losses, and their weights after each step. It
must not know reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch

from finesweep.training.stack.adamw import Moments, StackedAdamW
from finesweep.training.stack.lane import Lane


def alike(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Divide lanes into those that can be moved on together."""
    groups: defaultdict[Hashable, list[Lane]] = defaultdict(list)
    for lane in lanes:
        schedule = lane.schedule
        shape = (schedule.batch_size, schedule.device_batch_size, schedule.examples_per_epoch)
        groups[*shape, lane.optimizer_step, lane.smoothing].append(lane)
    return list(groups.values())


class Stack:
    """Lanes are moved on together for as long as there is no other stack with one of them."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes, self._task = lanes, lanes[0].task
        self._weights = {name: torch.stack([lane.weights[name] for lane in lanes]) for name in lanes[0].weights}
        self._moments = Moments(
            {name: torch.stack([lane.moments.mean[name] for lane in lanes]) for name in self._weights},
            {name: torch.stack([lane.moments.square[name] for lane in lanes]) for name in self._weights},
        )
        for place, lane in enumerate(lanes):  # updates are made in place: what a lane holds is always up to date
            lane.weights = _at(place, self._weights)
            lane.moments = Moments(_at(place, self._moments.mean), _at(place, self._moments.square))
        # Trials of a sweep have one seed: then all lanes see the same rows, and drop the same of them.
        if len({lane.settings.seed for lane in lanes}) == 1:
            chance = lanes[0].chance.fork()
            for lane in lanes:
                lane.chance = chance
        self._drawing = list(dict.fromkeys(lane.chance for lane in lanes))
        assert len(self._drawing) in (1, len(lanes)), "lanes draw together or each by itself"
        like = next(iter(self._weights.values()))
        self._optimizer = StackedAdamW([lane.adamw for lane in lanes], decayed=self._task.decayed, like=like)
        self._dtype = like.dtype

    def step(self) -> list[float]:
        """Make an optimizer step in every lane. Return the mean training loss of each. Waits for the device."""
        at = self._lanes[0].optimizer_step
        rows = torch.stack([chance.rows(at) for chance in self._drawing])  # (lanes or 1, batch)
        n_rows = rows.shape[1]
        drawn = [chance.masks(self._task.layers, n_rows, dtype=self._dtype) for chance in self._drawing]
        masks = [torch.stack(of_lanes) for of_lanes in zip(*drawn, strict=True)]
        leaves = {name: weight.detach().requires_grad_() for name, weight in self._weights.items()}
        losses = self._task.losses(leaves, rows.to(self._task.device), self._lanes[0].smoothing, masks)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
        self._optimizer.step(
            self._weights,
            dict(zip(leaves, gradients, strict=True)),
            self._moments,
            learning_rates=[lane.learning_rate for lane in self._lanes],
            n_updates=at + 1,
        )
        for place, lane in enumerate(self._lanes):
            lane.optimizer_step = at + 1
            lane.grad_norm = self._optimizer.norms, place
        losses_now: list[float] = losses.tolist()
        return losses_now


def _at(place: int, stacked: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[place] for name, tensor in stacked.items()}
