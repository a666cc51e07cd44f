"""`python -m torch_impl train | evaluate | predict | info`: the PyTorch stack alone."""

import sys

import torch_impl
from common import cli

if __name__ == "__main__":
    sys.exit(cli.main(torch_impl, "torch_impl"))
