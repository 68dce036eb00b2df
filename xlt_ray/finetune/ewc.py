"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3), from its definition.

    loss + lambda/2 * sum_i F_i (theta_i - theta*_i)^2

F is the diagonal of the Fisher information of the tasks to keep: the MEAN over examples of the squared gradient of each
example's own log-likelihood. The square of a batch's mean gradient would depend on the batch size. This mean depends on
neither batch size nor number of workers, so lambda does not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from xlt_ray.finetune.parameters import GROUP_WEIGHTS

_Part = tuple[Tensor, Tensor, Tensor]
"""A parameter, its anchor, its Fisher."""


def squared_gradients(parameters: Mapping[str, Tensor], losses: Iterable[Tensor]) -> tuple[dict[str, Tensor], int]:
    """Sum the squared gradients over examples, and count the examples.

    Args:
        parameters: leaves that require a gradient, by name.
        losses: the negative log-likelihood of each example, a scalar; an iterator, since each is differentiated before
            the next is computed.

    Returns:
        fp32 sums by name. Divided by the number of examples over all workers, they are the Fisher.

    >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
    >>> sums, count = squared_gradients({"w": weight}, ((weight * x).sum() for x in (1.0, 3.0)))
    >>> sums["w"] / count
    tensor([5.])
    """
    sums = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in parameters.items()}
    count = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total.addcmul_(gradient.float(), gradient.float())
        count += 1
    return sums, count


class Consolidation:
    """The EWC penalty: it pulls weights towards an anchor, weighted by the Fisher.

    Args:
        parameters: the trained weights, by name.
        anchor: their values before training, by name. Kept in its own dtype: a rounded anchor would pull at weights
            that have not changed.
        fisher: F, by name; float32 or bfloat16.
        strength: lambda.
        device: device of F and the anchor; None: that of the parameters.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> held = Consolidation({"w": weight}, {"w": torch.zeros(2)}, {"w": torch.tensor([0.0, 4.0])}, strength=0.5)
    >>> weight.sum().backward()
    >>> held.pull()
    1.0
    >>> weight.grad  # of the loss, and 0.5 * 4 * 1 for the weight that the old task needs
    tensor([1., 3.])
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor],
        fisher: Mapping[str, Tensor],
        strength: float,
        device: str | None = None,
    ) -> None:
        self._strength = strength
        parts = [
            (parameter, anchor[name].to(device or parameter.device), fisher[name].to(device or parameter.device))
            for name, parameter in parameters.items()
        ]
        self._groups = _grouped(parts)

    @torch.no_grad()
    def pull(self) -> float:
        """Add lambda * F_i (theta_i - theta*_i) to the gradients, outside of autograd.

        Returns:
            lambda/2 * sum_i F_i (theta_i - theta*_i)^2.
        """
        return 0.5 * self._strength * float(torch.stack([self._pull(group) for group in self._groups]).sum())

    def _pull(self, group: Sequence[_Part]) -> Tensor:
        """All weights of a group at a time: a large decoder has 900, and a GPU is slow to start on each alone."""
        parameters = [parameter for parameter, *_ in group]
        gradients = [_gradient(parameter) for parameter in parameters]
        anchors, fishers = ([part[place].to(part[0].device, part[0].dtype) for part in group] for place in (1, 2))
        moved = torch._foreach_sub(parameters, anchors)
        weighted = torch._foreach_mul(fishers, moved)
        torch._foreach_add_(gradients, weighted, alpha=self._strength)
        torch._foreach_mul_(weighted, moved)
        # None is below 0, so the norm of order 1 is the sum.
        return torch.stack(torch._foreach_norm(weighted, 1)).sum()


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient of a weight; zeros for one that the loss did not reach, as in a layer that layerdrop skipped."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _grouped(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Groups in order, small enough to limit the memory of intermediate results."""
    groups: list[list[_Part]] = [[]]
    size = 0
    for part in parts:
        if groups[-1] and size + part[0].numel() > GROUP_WEIGHTS:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part[0].numel()
    return groups
