"""Losses on logits; the formulas are those of `common.losses`. Twin of `torch_impl.losses`."""

import keras
from keras import ops


def binary_cross_entropy(
    logits: keras.KerasTensor, labels: keras.KerasTensor, weights: keras.KerasTensor
) -> keras.KerasTensor:
    """Weighted mean over the batch, scalar; all arguments (N,).

    By log-sigmoid: finite for any logit, exact in float64, and with the right gradient at 0.
    """
    log_likelihood = labels * ops.log_sigmoid(logits) + (1 - labels) * ops.log_sigmoid(-logits)
    return -ops.sum(weights * log_likelihood) / ops.sum(weights)
