"""AdamW in one stated form (below), for both frameworks. Twin of `keras_impl.optimizers`.

With gradient g, step t from 1, rate a (a backbone's is the recipe's fraction of it), decay d (0 for tensors of one
axis: biases, norms, scales):
    w <- w - a d w
    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
(Loshchilov & Hutter 2019, decay times rate; epsilon after the bias correction, as in Kingma & Ba 2015, algorithm 1.)
"""

import torch
from torch import nn

from common.config import Recipe


def head_ids(model: nn.Module) -> set[int]:
    """`id` of each tensor of the last layer, the one that gives the logits."""
    layer = model.get_submodule(model.spec.head)  # type: ignore[arg-type,union-attr]
    return {id(parameter) for parameter in layer.parameters()}


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """A fresh optimizer on the tensors that may learn; its rate is set before each step."""
    head = head_ids(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            fraction = 1.0 if id(parameter) in head else recipe.backbone_rate_fraction
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((fraction, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_fraction": fraction}
            for (fraction, decay), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Rate of the steps that follow."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_fraction"]
