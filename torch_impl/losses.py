"""Losses on logits; the formulas are those of `common.losses`. Twin of `keras_impl.losses`."""

import torch
from torch.nn import functional


def binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean over the batch, scalar; all arguments (N,).

    By log-sigmoid: finite for any logit, exact in float64, and with the right gradient at 0.
    """
    log_likelihood = labels * functional.logsigmoid(logits) + (1 - labels) * functional.logsigmoid(-logits)
    return -torch.sum(weights * log_likelihood) / torch.sum(weights)
