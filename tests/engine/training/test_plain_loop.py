"""Training equals a plain loop in torch, of which every number is written by hand."""

import copy
import csv
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import zoo
from zoo.engine.training import sources
from zoo.modelfile import read_model

CLASSES = ("dark", "light", "middle")
# 19 training images in batches of 6: the single one that remains joins the third batch.
COUNTS = {"train": (5, 8, 6), "val": (4, 1, 3)}
BRIGHTNESS = (0, 80, 40)
BATCHES = ((0, 6), (6, 12), (12, 19))
SEED = 3
BASE = {"weights": "none", "device": "cpu", "precision": "fp32", "batch_size": 6, "seed": SEED}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Classes of noise of different brightness, and of different sizes."""
    root = tmp_path_factory.mktemp("uneven")
    generator = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for name, count, least in zip(CLASSES, counts, BRIGHTNESS, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(least, least + 160, (40, 52, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def small_batches(in_empty_folder, monkeypatch):
    # The eight validation images take three batches of features.
    monkeypatch.setattr(sources, "EVALUATION_ROWS", 3)


def read_split(root, split):
    """Return images `[n, 3, 32, 32]` as torchvision prepares them, and labels."""
    to_input = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(36, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    folder = ImageFolder(root / split, to_input)
    return torch.stack([image for image, _ in folder]), torch.tensor(folder.targets)


def build_network(backbone):
    """Build the network of a plugin by hand: layers and new heads are initialised from the seed."""
    builder = zoo.get(backbone).builder.partition(":")
    module = getattr(__import__(builder[0]), builder[2])
    torch.manual_seed(SEED)
    network = module()
    torch.manual_seed(SEED)
    if hasattr(network, "head"):
        network.head.fc = nn.Linear(16, len(CLASSES))
        network.aux = nn.Linear(8, len(CLASSES))
        return network, [network.head.fc, network.aux]
    network.fc = nn.Linear(8, len(CLASSES))
    return network, [network.fc]


def make_optimizer(name, parameters, lr):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=0.8, weight_decay=0.05)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)


def cosine(step, steps, warmup=0.25):
    """Return the factor at the middle of a step."""
    done = (step + 0.5) / steps
    if done < warmup:
        return done / warmup
    return math.cos(math.pi / 2 * (done - warmup) / (1 - warmup)) ** 2


def mirrored(images, epoch, indices):
    """Mirror each image with probability 1/2, drawn from seed, epoch and position."""
    rows = []
    for image, index in zip(images, indices, strict=True):
        key = np.random.SeedSequence(SEED, spawn_key=(epoch, index)).generate_state(1, np.uint64)
        draw = torch.rand(1, generator=torch.Generator().manual_seed(int(key[0] >> 1)))
        rows.append(image.flip(-1) if draw < 0.5 else image)
    return torch.stack(rows)


def loss_of(network, images, labels, criterion):
    output = network(images)
    if isinstance(output, tuple):
        return criterion(output[0], labels) + 0.5 * criterion(output[1], labels)
    return criterion(output, labels)


@torch.no_grad()
def validate(network, images, labels):
    network.eval()
    logits = network(images)
    return (logits.argmax(1) == labels).double().mean().item(), cross_entropy(logits, labels).item()


def train_plainly(
    backbone, root, phases, optimizer, flips=False, broken=None, criterion=cross_entropy
):
    """Return the state of the best epoch, and the numbers of every epoch.

    Nothing is trained on the image at the position `broken`, which takes its place in a batch.
    """
    (images, labels), val = read_split(root, "train"), read_split(root, "val")
    network, heads = build_network(backbone)
    best, history, epoch = None, [], 0
    for policy, epochs, lr in phases:
        if best is not None:
            network.load_state_dict(best[1])
        trained = network.parameters() if policy == "all" else nn.ModuleList(heads).parameters()
        steps, step, rule = epochs * len(BATCHES), 0, make_optimizer(optimizer, trained, lr)
        for _ in range(epochs):
            epoch, losses = epoch + 1, 0.0
            torch.manual_seed(SEED * 1_000_003 + epoch)
            bits = np.random.PCG64(np.random.SeedSequence(SEED, spawn_key=(epoch,)))
            order = np.random.Generator(bits).permutation(len(images))
            network.train(policy == "all")
            network.training = True  # its auxiliary head has a loss
            for first, last in BATCHES:
                rows = order[first:last]
                rows = rows[rows != broken]
                inputs = mirrored(images[rows], epoch, rows) if flips else images[rows]
                rule.param_groups[0]["lr"] = lr * cosine(step, steps)
                rule.zero_grad()
                loss = loss_of(network, inputs, labels[rows], criterion)
                loss.backward()
                rule.step()
                losses, step = losses + loss.item() * len(rows), step + 1
            top1, val_loss = validate(network, *val)
            train_loss = losses / (len(images) - (broken is not None))
            history.append((rule.param_groups[0]["lr"], train_loss, val_loss, top1))
            if best is None or (top1, -val_loss) > best[0]:
                best = (top1, -val_loss), copy.deepcopy(network.state_dict())
    return best[1], history


def check_equal(run, expected, history):
    actual = read_model(run.path / "model.safetensors")[1].tensors
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
    columns = ("lr", "train_loss", "val_loss", "val_top1")
    with (run.path / "history.csv").open() as file:
        rows = [tuple(float(row[name]) for name in columns) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, history, rtol=1e-4)


HEAD, ALL = ("head", 4, 3.0), ("all", 3, 0.03)
TOO_FAST = ("all", 2, 0.5)


@pytest.mark.parametrize(
    ("backbone", "optimizer", "phases"),
    [
        ("tinynet", "sgd", [ALL]),
        ("tinynet", "sgd", [HEAD, ALL]),
        ("tinynet", "sgd", [HEAD, TOO_FAST]),
        ("plainnet", "adamw", [("head", 4, 0.1)]),
        ("plainnet", "adam", [ALL]),
        ("plainnet", "adamw", [ALL]),
    ],
)
def test_training_equals_plain_loop(request, uneven, backbone, optimizer, phases):
    name = request.getfixturevalue(backbone)
    policies, epochs, rates = zip(*phases, strict=True)
    options = {"epochs": epochs, "lr": rates, "optimizer": optimizer, "weight_decay": 0.05}
    options |= {"momentum": 0.8} if optimizer == "sgd" else {}
    options["recipe"] = "-then-".join(policies)
    run = zoo.finetune(name, data=uneven, schedule="cosine:0.25", **options, **BASE)
    assert [phase["keep_features"] for phase in run.record["plan"]["phases"]] == [
        policy == "head" for policy in policies
    ]
    state, history = train_plainly(name, uneven, phases, optimizer)
    check_equal(run, state, history)
    if phases[0] == HEAD:
        # The second phase starts from the best epoch of the first, and may not improve on it.
        scores = [(top1, -loss) for _, _, loss, top1 in history]
        assert max(scores[:4]) == scores[1]
        assert (max(scores) == scores[1]) == (phases[1] == TOO_FAST)


@pytest.mark.parametrize("phase", [ALL, HEAD])
def test_augmented_training_equals_plain_loop(tinynet, uneven, phase):
    policy, epochs, lr = phase
    options = {"train": policy, "epochs": epochs, "lr": lr, "optimizer": "sgd", "momentum": 0.8}
    options |= {"schedule": "cosine:0.25", "weight_decay": 0.05, "augment": "flip"}
    expected = train_plainly(tinynet, uneven, [phase], "sgd", flips=True)
    check_equal(zoo.finetune(tinynet, data=uneven, **options, **BASE), *expected)
    if policy == "head":
        # A cached view for each epoch.
        run = zoo.finetune(tinynet, data=uneven, views=epochs, **options, **BASE)
        assert run.record["plan"]["phases"][0]["keep_features"]
        check_equal(run, *expected)


@pytest.mark.parametrize("phase", [ALL, HEAD])
def test_unreadable_image_leaves_its_place_in_the_batch(tinynet, uneven, tmp_path, phase):
    policy, epochs, lr = phase
    data = shutil.copytree(uneven, tmp_path / "broken")
    (data / "train" / "light" / "2.png").write_text("no image")
    options = {"train": policy, "epochs": epochs, "lr": lr, "optimizer": "sgd", "momentum": 0.8}
    options |= {"schedule": "cosine:0.25", "weight_decay": 0.05, "bad_images": "skip"}
    run = zoo.finetune(tinynet, data=data, **options, **BASE)
    check_equal(run, *train_plainly(tinynet, uneven, [phase], "sgd", broken=COUNTS["train"][0] + 2))


def test_weighted_and_smoothed_training_equals_plain_loop(plainnet, uneven):
    policy, epochs, lr = ALL
    options = {"train": policy, "epochs": epochs, "lr": lr, "optimizer": "sgd"}
    options |= {
        "schedule": "cosine:0.25",
        "weight_decay": 0.05,
        "micro_batch_size": 4,
        "momentum": 0.8,
    }
    options |= {"class_weights": {"dark": 3.0, "middle": 0.5}, "label_smoothing": 0.2}
    run = zoo.finetune(plainnet, data=uneven, **options, **BASE)
    loss = nn.CrossEntropyLoss(torch.tensor([3.0, 1.0, 0.5]), label_smoothing=0.2)
    check_equal(run, *train_plainly(plainnet, uneven, [ALL], "sgd", criterion=loss))
