"""Train with fastai: a `Learner` with a frozen body, on fastai's loaders."""

from __future__ import annotations

from typing import Any

from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle  # noqa: F401 - adds the method to Learner
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import params
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders, Normalize

from benchmarks.harness.marks import DONE, EPOCH, READY, mark
from benchmarks.harness.networks import (
    BATCH,
    NETWORKS,
    build_with_new_head,
    choose_device,
    parse_options,
    save,
)


class MarkCallback(Callback):
    """Marks the start, before the first image is read, and the end of each epoch."""

    def before_fit(self) -> None:
        mark(READY)

    def after_epoch(self) -> None:
        mark(EPOCH)


def main() -> None:
    options = parse_options(__doc__)
    network = NETWORKS[options.network]
    data = ImageDataLoaders.from_folder(
        options.data,
        train="train",
        valid="val",
        item_tfms=Resize(224),
        batch_tfms=Normalize.from_stats(network.mean, network.std),
        bs=BATCH,
        num_workers=options.workers,
        device=choose_device(),
    )
    model = build_with_new_head(network, options.weights)

    def split_parameters(module: Any) -> list[Any]:
        head = params(module.get_submodule(network.head))
        head_ids = {id(parameter) for parameter in head}
        return [[each for each in module.parameters() if id(each) not in head_ids], head]

    learner = Learner(data, model, splitter=split_parameters, metrics=accuracy, cbs=MarkCallback())
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(options.epochs)
    save(learner.model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
