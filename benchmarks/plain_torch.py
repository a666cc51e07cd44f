"""Training as PyTorch's tutorials write it, as a contestant: a `DataLoader` with two workers that reads pictures with
Pillow, NCHW, AdamW, `loss.item()` at each step; nothing about threads, memory layout or allocator.

    python -m benchmarks.plain_torch --peer densenet121 --data files --material DIR

Augmentation is less than ours: a flip and a rotation, as torchvision's transforms do them with Pillow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import torch_peers
from benchmarks.contestant import peer_options, serve
from common import measure
from common.config import IMAGENET_MEAN, IMAGENET_STD

IMPORTED_SECONDS = measure.seconds_since_start()
MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)
CLASSES = {
    "cnn": ("binary", ("normal", "stroke")),
    "other": ("subtype", ("normal", "bleeding", "ischemia")),
}
PEERS = ("cnn", "densenet121", "convnext_tiny", "unet", "monai", "smp")
WARM_STEPS = 4


class Pictures(Dataset):
    """Pictures in a folder a class."""

    def __init__(self, folder: Path, classes: tuple[str, ...], size: int) -> None:
        self.files = [
            (path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())
        ]
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        image = Image.open(path).convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        if torch.rand(1).item() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.rotate(float(torch.empty(1).uniform_(-10, 10)), Image.Resampling.BILINEAR)
        return (_to_tensor(image) - MEAN) / STD, label


class Masks(Dataset):
    """Pictures and their masks."""

    def __init__(self, folder: Path, size: int) -> None:
        self.images, self.masks = sorted((folder / "images").iterdir()), sorted((folder / "masks").iterdir())
        self.size = size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        box = (self.size, self.size)
        image = Image.open(self.images[index]).convert("L").resize(box, Image.Resampling.BILINEAR)
        mask = Image.open(self.masks[index]).convert("L").resize(box, Image.Resampling.NEAREST)
        if torch.rand(1).item() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        angle = float(torch.empty(1).uniform_(-10, 10))
        image, mask = image.rotate(angle, Image.Resampling.BILINEAR), mask.rotate(angle)
        return _to_tensor(image), (_to_tensor(mask) > 0.5).float()


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """(C, H, W) in [0, 1], as torchvision's `ToTensor`."""
    array = np.array(image)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div(255)


class DiceCrossEntropy(nn.Module):
    """Binary cross-entropy plus soft Dice, the usual loss of segmentation."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        probabilities = torch.sigmoid(logits)
        overlap = (probabilities * masks).sum((1, 2, 3))
        total = probabilities.sum((1, 2, 3)) + masks.sum((1, 2, 3))
        dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
        return nn.functional.binary_cross_entropy_with_logits(logits, masks) + dice


class BinaryCrossEntropy(nn.Module):
    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float())


def main() -> None:
    options = peer_options(__doc__, PEERS)
    masks, size = options.peer in ("unet", "monai", "smp"), options.image_size
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"

    began = time.perf_counter()
    channels = 1 if masks else 3
    model = torch_peers.create(options.peer, 3, size, tuple(options.features)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = (
        DiceCrossEntropy()
        if masks
        else BinaryCrossEntropy()
        if options.peer == "cnn"
        else nn.CrossEntropyLoss()
    )
    build_seconds = time.perf_counter() - began

    if options.data == "files":
        batches = _endless(_loader(options, masks))
    else:
        images = torch.randn(options.batch_size, channels, size, size)
        labels = torch.randint(0, 2, (options.batch_size,))
        targets = (torch.rand(options.batch_size, 1, size, size) < 0.1).float() if masks else labels
        batches = _repeat(images, targets)

    model.train()

    def step(images: torch.Tensor, targets: torch.Tensor) -> float:
        images, targets = images.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    def block(steps: int) -> int:
        running = 0.0
        for _ in range(steps):
            running += step(*next(batches))
        return steps * options.batch_size

    def timed(steps: int) -> float:
        begin = time.perf_counter()
        block(steps)
        return time.perf_counter() - begin

    facts: dict[str, Any] = {
        "framework": f"PyTorch {torch.__version__}",
        "device": device,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": _forward_flops(model, channels, size, device),
        "import_seconds": IMPORTED_SECONDS,
        "build_seconds": build_seconds,
        "first_step_seconds": timed(1),
    }
    if options.facts:
        facts["step_seconds"] = timed(WARM_STEPS) / WARM_STEPS
        images, targets = next(batches)
        began = time.perf_counter()
        step(images[:-1], targets[:-1])
        facts["last_step_seconds"] = time.perf_counter() - began
        few = [next(batches)[0] for _ in range(WARM_STEPS)]
        model.eval()
        for _ in range(2):
            began = time.perf_counter()
            with torch.no_grad():
                for images in few:
                    model(images.to(device)).cpu()
            facts["evaluate_seconds"] = time.perf_counter() - began
        model.train()
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            save_file(model.state_dict(), Path(folder, "model.safetensors"))
        facts["checkpoint_seconds"] = time.perf_counter() - began
    serve(facts, block)


def _loader(options: argparse.Namespace, masks: bool) -> DataLoader:
    if masks:
        files: Dataset = Masks(options.material / "segmentation", options.image_size)
    else:
        folder, classes = CLASSES.get(options.peer, CLASSES["other"])
        files = Pictures(options.material / folder, classes, options.image_size)
    return DataLoader(files, batch_size=options.batch_size, shuffle=True, num_workers=2, drop_last=True)


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def _repeat(*batch: torch.Tensor) -> Iterator[Any]:
    while True:
        yield batch


def _forward_flops(model: nn.Module, channels: int, size: int, device: str) -> int:
    """FLOPs of the forward pass of one image, a multiply-add as two."""
    model.eval()  # statistics stay as they were
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, channels, size, size, device=device))
    model.train()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
