"""fastai's side: a learner whose body is frozen, on its own loaders."""

from __future__ import annotations

from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle  # noqa: F401 - gives Learner the method
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import params
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders, Normalize

from benchmarks.sides.marks import DONE, EPOCH, READY, mark
from benchmarks.sides.networks import BATCH, NETWORKS, build_on, device, parse_arguments, save


class Clock(Callback):
    """Marks when the first image is about to be read, and the end of each epoch."""

    def before_fit(self) -> None:
        mark(READY)

    def after_epoch(self) -> None:
        mark(EPOCH)


def main() -> None:
    options = parse_arguments(__doc__)
    network = NETWORKS[options.network]
    data = ImageDataLoaders.from_folder(
        options.data,
        train="train",
        valid="val",
        item_tfms=Resize(224),
        batch_tfms=Normalize.from_stats(network.mean, network.std),
        bs=BATCH,
        num_workers=options.workers,
        device=device(),
    )
    model = build_on(network, options.weights)

    def split(module):
        head = params(module.get_submodule(network.head))
        mine = {id(parameter) for parameter in head}
        return [[it for it in module.parameters() if id(it) not in mine], head]

    learner = Learner(data, model, splitter=split, metrics=accuracy, cbs=Clock())
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(options.epochs)
    save(learner.model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
