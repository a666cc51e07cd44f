"""The study's verbs in Keras 3 on any backend (`common.framework.Framework`). Twin of `torch_impl`, file by file."""

import sys

# `python -m keras_impl`: what the process needs is settled before the framework is loaded.
if sys.argv[0] == "-m":
    from common import cli

    cli.start("keras_impl")

from keras_impl.defaults import probe_defaults
from keras_impl.devices import peak_device_mib, synchronise
from keras_impl.models import build
from keras_impl.replicas import describe_replicas
from keras_impl.tensors import configure, environment, name, read_weights, write_weights
from keras_impl.training import (
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
