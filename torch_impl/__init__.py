"""The study's verbs in PyTorch (`common.framework.Framework`). Twin of `keras_impl`, file by file."""

import sys

# `python -m torch_impl`: what the process needs is settled before the framework is loaded.
if sys.argv[0] == "-m":
    from common import cli

    cli.start("torch_impl")

from torch_impl.defaults import probe_defaults
from torch_impl.devices import peak_device_mib, synchronise
from torch_impl.models import build
from torch_impl.replicas import describe_replicas
from torch_impl.tensors import configure, environment, name, read_weights, write_weights
from torch_impl.training import (
    create_trainer,
    gradient_norms,
    layer_outputs,
    predict_logits,
    read_trainer_state,
    train_epoch,
    write_trainer_state,
)

__all__ = [
    "build",
    "configure",
    "create_trainer",
    "describe_replicas",
    "environment",
    "gradient_norms",
    "layer_outputs",
    "name",
    "peak_device_mib",
    "predict_logits",
    "probe_defaults",
    "read_trainer_state",
    "read_weights",
    "synchronise",
    "train_epoch",
    "write_trainer_state",
    "write_weights",
]
