"""AdamW in one stated form (below), for both frameworks. Twin of `keras_impl.optimizers`.

With gradient g, step t from 1, rate a (a backbone's is the recipe's fraction of it), decay d (0 for tensors of one
axis: biases, norms, scales; in the native lane they decay too):
    g <- g min(1, c / |g|)     where the recipe clips: |g| over all tensors (native Keras: over each)
    w <- w - a d w
    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
(Loshchilov & Hutter 2019, decay times rate; epsilon after the bias correction, as in Kingma & Ba 2015, algorithm 1.
PyTorch's AdamW has this form in every lane; Keras's own adds epsilon before the correction.)
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from common.config import Recipe
from common.errors import StudyError
from common.framework import Array, Weights

MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}  # common's name -> PyTorch's


def head_ids(model: nn.Module) -> set[int]:
    """`id` of each tensor of the last layer, the one that gives the logits."""
    layer = model.get_submodule(model.spec.head)  # type: ignore[arg-type,union-attr]
    return {id(parameter) for parameter in layer.parameters()}


def create_optimizer(model: nn.Module, recipe: Recipe, traced: bool = False) -> torch.optim.Optimizer:
    """A fresh optimizer on the tensors that may learn; its rate is set before each step.

    `traced`: it keeps the gradients' norms for `gradient_norms`. Raises StudyError for a form that PyTorch lacks.
    """
    if recipe.adam_form != "corrected":
        raise StudyError(f"adam_form {recipe.adam_form!r} is Keras's own; PyTorch's AdamW has 'corrected'")
    head = head_ids(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            fraction = 1.0 if id(parameter) in head else recipe.backbone_rate_fraction
            decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_scope == "all" else 0.0
            groups.setdefault((fraction, decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_fraction": fraction}
            for (fraction, decay), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        fused=True,  # one pass over a tensor instead of twelve
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    norms: dict[str, torch.Tensor] = {}
    optimizer.norms, optimizer.tensor_names = norms, names  # type: ignore[attr-defined]

    def prepare(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        gradients = [one.grad for one in parameters]
        squares = [torch.sum(torch.square(one)) for one in gradients]
        if traced:
            norms.update(
                (names[id(one)], torch.sqrt(square)) for one, square in zip(parameters, squares, strict=True)
            )
        _clip(gradients, squares, recipe)

    if traced or recipe.gradient_clip_norm:
        optimizer.register_step_pre_hook(prepare)
    return optimizer


def gradient_norms(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Tensor name -> L2 norm of its gradient at the last step, before clipping, of a traced optimizer."""
    return {name: float(norm) for name, norm in optimizer.norms.items()}  # type: ignore[attr-defined]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Rate of the steps that follow."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_fraction"]


def read_memory(optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """A copy of what the steps so far left: `steps` (), and of each tensor its moments `first.NAME`, `second.NAME`."""
    steps, found = np.zeros((), dtype=np.int64), {}
    for name, parameter in _learning(optimizer):
        state = optimizer.state.get(parameter, {})
        for moment, own in MOMENTS.items():
            tensor = state.get(own, torch.zeros_like(parameter)).detach()
            found[f"{moment}.{name}"] = tensor.cpu().contiguous().numpy().copy()
        steps[...] = int(state.get("step", 0))
    return {"steps": steps, **found}


def write_memory(optimizer: torch.optim.Optimizer, memory: Weights) -> None:
    """Inverse of `read_memory`; what has another name is passed over."""
    for name, parameter in _learning(optimizer):
        state = optimizer.state[parameter]
        # As the optimizer makes them at its first step, in the parameter's layout: elsewhere vectors would end
        state["step"] = torch.tensor(float(memory["steps"]), dtype=torch.float32, device=parameter.device)
        for moment, own in MOMENTS.items():
            state[own] = torch.zeros_like(parameter, memory_format=torch.preserve_format).detach()
            state[own].copy_(torch.from_numpy(np.ascontiguousarray(memory[f"{moment}.{name}"])))


def _learning(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    """Name and tensor of all that the optimizer steps."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    return [(optimizer.tensor_names[id(one)], one) for one in parameters]  # type: ignore[attr-defined]


def _clip(gradients: list[torch.Tensor], squares: list[torch.Tensor], recipe: Recipe) -> None:
    """Scale the gradients down to the recipe's norm, in place."""
    if not recipe.gradient_clip_norm:
        return
    if recipe.gradient_clip_scope == "global":
        squares = [torch.sum(torch.stack(squares))] * len(gradients)
    for gradient, square in zip(gradients, squares, strict=True):
        gradient *= recipe.gradient_clip_norm / torch.clamp(torch.sqrt(square), min=recipe.gradient_clip_norm)
