"""AdamW for lanes side by side: each with its own learning rate, decay, momenta and clipping.

The arithmetic of torch.optim.AdamW (Loshchilov and Hutter 2019, algorithm 2), in its order. In: weights and gradients,
(lanes, *shape). Out: the weights, changed in place. It must not know what they are weights of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

_CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by the norm and this


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """Of one lane."""

    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    max_grad_norm: float  # 0: gradients are not clipped


@dataclass(slots=True)
class Moments:
    """Running means of gradients and of their squares, by parameter."""

    mean: dict[str, torch.Tensor]
    square: dict[str, torch.Tensor]

    @classmethod
    def zero(cls, weights: Mapping[str, torch.Tensor]) -> Moments:
        return cls(*({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2)))


class StackedAdamW:
    def __init__(self, settings: Sequence[AdamWSettings], *, decayed: frozenset[str], like: torch.Tensor) -> None:
        """`decayed` names the parameters that weight decay is for; `like` has their device and precision."""

        def column(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=like.dtype, device=like.device)

        self._decayed = decayed
        self._like = like
        self._weight_decay = column([one.weight_decay for one in settings])
        self._betas = [(one.beta1, one.beta2) for one in settings]
        self._beta1, self._beta2 = column([b for b, _ in self._betas]), column([b for _, b in self._betas])
        self._epsilon = column([one.epsilon for one in settings])
        self.norms = column([0.0] * len(settings))  # (lanes,) of the last step's gradients, before clipping
        self._most = column([one.max_grad_norm or torch.inf for one in settings])

    def step(
        self,
        weights: Mapping[str, torch.Tensor],
        gradients: Mapping[str, torch.Tensor],
        moments: Moments,
        *,
        learning_rates: Sequence[float],
        n_updates: int,
    ) -> None:
        """Make update number `n_updates`, counted from 1. None of the tensors may ask for gradients."""
        rates = torch.tensor(learning_rates, dtype=self._like.dtype, device=self._like.device)
        scale = self._clip(gradients)
        corrections = [(1 - beta1**n_updates, (1 - beta2**n_updates) ** 0.5) for beta1, beta2 in self._betas]
        both = torch.tensor(corrections, dtype=self._like.dtype, device=self._like.device)
        step_size, root_correction = rates / both[:, 0], both[:, 1]
        kept = 1 - rates * self._weight_decay
        for name, weight in weights.items():
            gradient = gradients[name] * _over(scale, weight)
            mean, square = moments.mean[name], moments.square[name]
            if name in self._decayed:
                weight.mul_(_over(kept, weight))
            mean.lerp_(gradient, _over(1 - self._beta1, weight).expand_as(weight))
            beta2 = _over(self._beta2, weight)
            square.mul_(beta2).add_(gradient.square_().mul_(1 - beta2))
            spread = square.sqrt().div_(_over(root_correction, weight)).add_(_over(self._epsilon, weight))
            weight.sub_((mean / spread).mul_(_over(step_size, weight)))

    def _clip(self, gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return by what each lane's gradients are to be scaled: (lanes,)."""
        squares = [gradient.flatten(1).square().sum(1) for gradient in gradients.values()]
        self.norms = torch.stack(squares).sum(0).sqrt()
        return (self._most / (self.norms + _CLIP_EPSILON)).clamp(max=1.0)


def _over(lanes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Shape one number for each lane to be applied to (lanes, *shape)."""
    return lanes.view(-1, *(1 for _ in weight.shape[1:]))
