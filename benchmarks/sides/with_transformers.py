"""The side of transformers: its Trainer on a plain torch module whose body is frozen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.datasets import ImageFolder
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.sides.marks import DONE, EPOCH, READY, mark
from benchmarks.sides.networks import (
    BATCH,
    NETWORKS,
    build_on,
    device,
    evaluation,
    parse_arguments,
    save,
)


class Classifier(nn.Module):
    """A network as the Trainer wants it: it takes labels, and gives its loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Clock(TrainerCallback):
    """Marks when the first image is about to be read, and the end of each epoch's validation."""

    def on_train_begin(self, *arguments: Any, **further: Any) -> None:
        mark(READY)

    def on_evaluate(self, *arguments: Any, **further: Any) -> None:
        mark(EPOCH)


def collate(samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """Make a batch, named as the module's arguments are."""
    images, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def settings(folder: str, epochs: int, workers: int) -> TrainingArguments:
    """Return what the Trainer is told: its defaults, but for a rate that a new head can use."""
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=1e-3,
        dataloader_num_workers=workers,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device().type == "cpu",
    )


def main() -> None:
    options = parse_arguments(__doc__)
    network = NETWORKS[options.network]
    model = build_on(network, options.weights)
    model.requires_grad_(False)
    model.get_submodule(network.head).requires_grad_(True)
    splits = [
        ImageFolder(Path(options.data) / part, evaluation(network)) for part in ("train", "val")
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            Classifier(model),
            settings(folder, options.epochs, options.workers),
            data_collator=collate,
            train_dataset=splits[0],
            eval_dataset=splits[1],
            callbacks=[Clock()],
        )
        trainer.train()
    save(model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
