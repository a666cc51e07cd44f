"""The plain CNN of the public two-class project: (convolution, max-pool, ReLU) x stages, then two dense layers.

Images (N, S, S, C) -> logits (N, outputs). Departs from the public project in two points: it returns logits, and the
sigmoid is taken where predictions are saved; and ReLU follows the max-pool, which gives the same values and gradients,
for neither changes an order, at a quarter of the work.
"""

from itertools import pairwise

import keras

from common.config import CnnSpec
from keras_impl import layers


class Cnn(keras.Model):
    def __init__(self, spec: CnnSpec) -> None:
        super().__init__(name=spec.name)
        self.spec = spec
        self.frozen = False  # as in the other models; here nothing before the dropout has a mode
        widths = (spec.channels, *spec.features)
        side = spec.image_size // 2 ** len(spec.features)  # px, after the last pool
        self.convolutions = [
            layers.convolution(inputs, outputs, spec.kernel_size, name=f"convolutions.{stage}")
            for stage, (inputs, outputs) in enumerate(pairwise(widths))
        ]
        self.hidden = layers.dense(
            side * side * widths[-1], spec.hidden, stock=spec.stock_layers, name="hidden"
        )
        self.dropout = layers.dropout(spec.dropout, spec.hidden, spec.shared_masks, name="dropout")
        self.head = layers.dense(spec.hidden, spec.outputs, stock=spec.stock_layers, name="head")

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        # Keras tells a model that it is in training only where `call` has this parameter
        x = layers.from_channels_last(images)
        for convolution in self.convolutions:
            x = layers.relu(layers.max_pool(convolution(x)))  # (N, S, S, F) -> (N, S/2, S/2, F')
        x = layers.flatten(x, self.spec.flatten_order)  # (N, side * side * F)
        x = layers.relu(self.hidden(x))  # (N, hidden)
        return layers.logits(self.head, self.dropout(x, training=training))  # (N, outputs)
