"""A `Model` in threads, in forked and spawned processes, and in the workers of a DataLoader."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import zoo
from tests.processes import forked
from zoo.models.freeze import inference_mode_of

CLASSES = ["flag", "mammal", "playing_card"]
PLUGIN = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("mine", f"{__name__}:Net", (zoo.Head("fc"),), zoo.Preprocess(size=16))

    from torch import nn

    class Net(nn.Module):
        def __init__(self, weights=None, num_classes=7):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            self.fc = nn.Linear(8, num_classes)

        def forward(self, images):
            return self.fc(self.body(images).flatten(1))
"""


class Answers(Dataset):
    """The prediction of each image, made by the model in a worker."""

    def __init__(self, model, images):
        self.model, self.images = model, images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.model.predict(self.images[index], top=1)[0]["predictions"][0]


def saved(name, path):
    torch.manual_seed(0)
    return zoo.save(zoo.get(name).build(classes=3), path, CLASSES)


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(24)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_give_the_answers_of_one(tinynet, tmp_path, images, precision):
    path = saved(tinynet, tmp_path / "own.safetensors")
    model = zoo.load(path, device="cpu", precision=precision, engine="torch")
    expected = [model.predict(images[n:], batch_size=4) for n in range(4)]
    features = [model.features(images[n:], batch_size=4) for n in range(4)]
    ready, wrong = threading.Barrier(4), []

    def run(number):
        ready.wait()
        for _ in range(3):
            if model.predict(images[number:], batch_size=4) != expected[number]:
                wrong.append("predictions")
            if not torch.equal(model.features(images[number:], batch_size=4), features[number]):
                wrong.append("features")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in model.module.modules()
    )


def test_gradients_stay_off_until_the_last_block_ends():
    module = nn.Linear(2, 2)
    first, second = inference_mode_of(module), inference_mode_of(module)
    with torch.enable_grad():  # left as of before, though the blocks of one thread overlap
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not module.weight.requires_grad
        second.__exit__(None, None, None)
    assert module.weight.requires_grad


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_loader_give_the_same_answers(start, plugin_file, tmp_path, images):
    plugin = plugin_file("leafnet", PLUGIN)
    zoo.configure(plugins=[plugin])
    model = zoo.load(saved("leafnet/mine", tmp_path / "own.safetensors"), device="cpu")
    expected = [model.predict(image, top=1)[0]["predictions"][0] for image in images[:4]]
    loader = DataLoader(
        Answers(model, images[:4]),
        batch_size=None,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    assert [*loader] == expected
    zoo.configure()


def test_pickled_model_gives_the_same_answers(tmp_path, images):
    model = zoo.load(saved("lite0", tmp_path / "own.safetensors"), device="cpu")
    with torch.no_grad():
        model.module.classifier.bias[1] = 9.0  # as it is now, not as in the file
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict(images[:2]) == model.predict(images[:2])
    assert copy.predict(images[0])[0]["predictions"][0]["class"] == "mammal"
    assert copy.classes == tuple(CLASSES)
    assert (copy.preprocess, copy.card) == (model.preprocess, model.card)


def test_network_of_local_class_is_refused_by_name(tinynet, tmp_path):
    model = zoo.load(saved(tinynet, tmp_path / "own.safetensors"), device="cpu")
    message = f"{tinynet} cannot be pickled: .*local object.*; load it in each process by zoo.load"
    with pytest.raises(zoo.UsageError, match=message):
        pickle.dumps(model)


def test_heads_are_checked_once_for_a_converted_network(tinynet, own_cache, tmp_path, images):
    pytest.importorskip("openvino")
    path = saved(tinynet, tmp_path / "own.safetensors")
    forwards, answers = [], []
    for _ in range(2):
        model = zoo.load(path, device="cpu", engine="openvino")
        computed = []
        model.module.register_forward_hook(lambda *_, computed=computed: computed.append(1))
        answers.append(model.predict(images))
        forwards.append(len(computed))
    assert answers[0] == answers[1]
    # The second time only the trace of which heads run, with two blank images.
    assert forwards[0] > forwards[1] == 1
    (engine,) = model.network.engines.values()
    assert "outputs of heads: Linear, Linear" in engine.checks()


def answer(model, images, answers):
    answers.put(model.predict(images))
    try:
        model.engine = "openvino"
        model.predict(images)
    except zoo.EnvironmentProblem as error:
        answers.put(str(error))


def test_forked_process_does_not_wait_for_threads_of_its_parent(tinynet, tmp_path, images):
    pytest.importorskip("openvino")
    many = images + images
    path = saved(tinynet, tmp_path / "own.safetensors")
    model = zoo.load(path, device="cpu", engine="openvino")
    model.predict(many)
    model.engine = "auto"
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # those of OpenMP do not run in a forked process
    try:
        expected = model.predict(many)
        torch.ones(1 << 20).add(1)
    finally:
        torch.set_num_threads(threads)
    with forked(answer, model, many) as answers:
        assert answers.get() == expected
        assert "forked from one that used OpenVINO" in answers.get()
