"""Train with transformers: its `Trainer` on a torch module with a frozen body."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.datasets import ImageFolder
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.harness.marks import DONE, EPOCH, READY, mark
from benchmarks.harness.networks import (
    BATCH,
    NETWORKS,
    build_with_new_head,
    choose_device,
    evaluation_transform,
    parse_options,
    save,
)


class Classifier(nn.Module):
    """A network with the interface of the Trainer: labels in, loss out."""

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


class MarkCallback(TrainerCallback):
    """Marks the start, before the first image is read, and the end of each validation."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        mark(READY)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        mark(EPOCH)


def collate(samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """Stack samples to a batch of keyword arguments of `Classifier.forward`."""
    images, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def training_arguments(folder: str, epochs: int, workers: int) -> TrainingArguments:
    """Return the Trainer's defaults, with a learning rate for a new head."""
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
        use_cpu=choose_device().type == "cpu",
    )


def main() -> None:
    options = parse_options(__doc__)
    network = NETWORKS[options.network]
    model = build_with_new_head(network, options.weights)
    model.requires_grad_(False)
    model.get_submodule(network.head).requires_grad_(True)
    transform = evaluation_transform(network)
    train, val = (ImageFolder(Path(options.data) / split, transform) for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            Classifier(model),
            training_arguments(folder, options.epochs, options.workers),
            data_collator=collate,
            train_dataset=train,
            eval_dataset=val,
            callbacks=[MarkCallback()],
        )
        trainer.train()
    save(model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
