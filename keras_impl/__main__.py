"""`python -m keras_impl train | evaluate | predict | info`: the Keras stack alone."""

import sys

import keras_impl
from common import cli

if __name__ == "__main__":
    sys.exit(cli.main(keras_impl, "keras_impl"))
