"""AdamW in one stated form (below), for both frameworks. Twin of `keras_impl.optimizers`.

With gradient g, step t from 1, rate a, decay d (0 for tensors of one axis: biases, norms):
    w <- w - a d w
    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
(Loshchilov & Hutter 2019, decay times rate; epsilon after the bias correction, as in Kingma & Ba 2015, algorithm 1.)
"""

import torch
from torch import nn

from common.config import Recipe


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """A fresh optimizer on the model's parameters; its rate is set before each step."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (recipe.adam_beta1, recipe.adam_beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.adam_epsilon)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Rate of the steps that follow."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
