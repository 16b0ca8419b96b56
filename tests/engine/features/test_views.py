"""Cached features of augmented views: by content, augmentation, seed, epoch and position."""

import numpy as np
import torch

import zoo
from zoo.data.augment import Draw
from zoo.data.transforms import normalize
from zoo.engine.features.cache import FeatureCache
from zoo.engine.features.store import FeatureStore
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.options import Augmentation
from zoo.tasks.classification.data.published import PublishedSplit
from zoo.tasks.classification.task import ImageClassification

CROP, FLIP = Augmentation.parse("crop"), Augmentation.parse("crop,flip")


def test_views_are_computed_once_per_draw_and_position(tinynet):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 44, 3), dtype=np.uint8)
    images[2] = images[0]
    split = PublishedSplit("train", images, (0, 1, 2), ("x", "y", "z"))
    module = zoo.get(tinynet).build(classes=3)
    freeze(module)
    made, cpu, task = provenance_of(module), torch.device("cpu"), ImageClassification()
    network = Network(module, made.backbone.heads, made.preprocess, cpu, "fp32", task)
    reader = ImageReader(task.transform(made.preprocess), cpu, batch_size=1)
    draws = [Draw(CROP, 0, 1), Draw(CROP, 0, 2), Draw(CROP, 1, 1), Draw(FLIP, 0, 1), None]
    with FeatureStore(None) as store, torch.no_grad():
        cache = FeatureCache(network, reader, store, lambda batches, *_: batches)
        for draw in draws:
            before = network.forwards
            features = cache.compute(split, [draw])
            assert network.forwards == before + len(images)
            for index in range(3):
                image = split.image(index)
                seen = (
                    draw(image, made.preprocess, index)
                    if draw
                    else reader.transform(image, 0, 0)[0]
                )
                inputs = normalize(seen[None], made.preprocess)
                expected = module.body(module.stem(inputs)).mean((2, 3))
                actual = features.read(torch.tensor([index]))["head.fc"]
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
            first, _, last = features.column("head.fc", slice(None))
            assert torch.equal(first, last) == (draw is None)
        before = network.forwards
        together = cache.compute(split, draws)
        assert network.forwards == before
    assert together.views == len(draws)
    for view, draw in enumerate(draws):
        alone = cache.compute(split, [draw]).read(torch.arange(3))
        both = together.read(torch.arange(3), view)
        # The same image at another position is another view.
        assert torch.equal(both["head.fc"][0], both["head.fc"][2]) == (draw is None)
        assert all(torch.equal(both[path], alone[path]) for path in network.paths)
