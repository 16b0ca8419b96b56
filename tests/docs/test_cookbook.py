"""The cookbook's exercises: the chapter's lines and zoo's, run as they stand and held together."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import zoo
from tests.docs.passages import check_console, commands, read_page, run_command
from tests.docs.workplace import copy_pictures, write_embedded_cifar
from tests.published_sets import publish
from zoo.engine.training.loop import epoch_seed
from zoo.modelfile import read_model
from zoo.seeding import epoch_order

pytestmark = pytest.mark.slow

LOOP = "The chapter's loop"
FIVE_DIGITS = {"rel": 1e-5, "abs": 1e-5}


class ZooOrder(torch.utils.data.Sampler):
    """Gives a chapter's loader the order that zoo draws, and dropout zoo's numbers."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        self.epoch += 1
        torch.manual_seed(epoch_seed(0, self.epoch))
        return iter(epoch_order(self.count, 0, self.epoch))


@pytest.fixture
def page(workplace, downloaded, monkeypatch):
    """The cookbook on two classes; the chapter's loop has zoo's order and memory format."""
    monkeypatch.setenv("TORCH_HOME", str(downloaded.home))
    shutil.rmtree(workplace / "photos")
    copy_pictures(workplace / "photos", ("flag", "mammal"))
    page = read_page("cookbook.md")
    page.names["CLASSES"] = 2
    page.run_python(page.blocks(LOOP, "python")[0])
    opened, trained = page.names["open_pictures"], page.names["train"]

    def open_pictures(**options):
        loaders = opened(**options)
        data, size = loaders["train"].dataset, loaders["train"].batch_size
        loaders["train"] = torch.utils.data.DataLoader(data, size, sampler=ZooOrder(len(data)))
        return loaders

    def train(model, *arguments, **options):
        return trained(model.to(memory_format=torch.channels_last), *arguments, **options)

    page.names.update(open_pictures=open_pictures, train=train)
    return page


def kept_in_eval(model: nn.Module, head: nn.Module) -> nn.Module:
    """Make `model.train()` what it should be where only a head trains."""
    model.train = lambda mode=True: (nn.Module.train(model, False), head.train(mode))
    return model


def run_zoo(page, heading, capsys) -> list[dict]:
    """Run every command of an exercise; return the records of the runs they left."""
    records = []
    for block in page.blocks(heading, "sh"):
        for arguments in commands(block):
            code, _, err = run_command(arguments, capsys)
            assert code == 0, err
            if "--out" in arguments:
                folder = Path(arguments[arguments.index("--out") + 1])
                records.append(json.loads((folder / "run.json").read_text()) | {"folder": folder})
    return records


def losses_of(record) -> list[float]:
    with (record["folder"] / "history.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def heading_of(page, number: int) -> str:
    return next(heading for heading in page.sections if heading.startswith(f"{number}. "))


def run_chapter(page, heading, first=0, last=None) -> dict:
    for block in page.blocks(heading, "python")[first:last]:
        page.run_python(block)
    return page.names


def check_mistakes(page, heading, capsys) -> list[int]:
    return [check_console(block, capsys) for block in page.blocks(heading, "console")]


def test_1_all_layers(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 1)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    assert losses_of(record) == pytest.approx(names["losses"], **FIVE_DIGITS)
    assert record["plan"]["weights"] == "IMAGENET1K_V1"
    assert record["metrics"]["test"]["images"] == 8
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.DATA]


def test_2_a_classifier_of_ones_own(page, downloaded, capsys):
    downloaded("vgg16")
    heading = heading_of(page, 2)
    names = run_chapter(page, heading, 0, 1)
    (record,) = run_zoo(page, heading, capsys)
    assert losses_of(record) == pytest.approx(names["losses"], **FIVE_DIGITS)
    assert record["backbone_forwards"] < 2 * (16 + 8) + 16  # once each, and the proof
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.USAGE]

    names = run_chapter(page, heading, 1)
    model = names["model"]
    assert torch.allclose(names["wide_features"], names["features"], rtol=1e-4, atol=1e-4)
    assert names["same_features"].shape == (8, 4096)
    logits = model.classifier.eval()(names["features"])
    expected = nn.functional.cross_entropy(logits, names["labels"])
    assert names["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    # The floor of a softmax before cross-entropy, as the page states it.
    sure = nn.functional.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item()
    assert f"below {sure:.2f} for two classes" in page.path.read_text().replace("\n", " ")


def test_3_the_last_layer_then_everything(page, downloaded, capsys):
    downloaded("vgg16")
    heading = heading_of(page, 3)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    wrong, found = names["losses"], losses_of(record)
    assert abs(found[0] - wrong[0]) > 1e-3  # dropout in the frozen layers
    assert [phase["policy"] for phase in record["plan"]["phases"]] == ["head", "all"]
    assert [phase["lr"] for phase in record["plan"]["phases"]] == [0.001, 0.0001]

    model = torchvision.models.vgg16(weights="IMAGENET1K_V1").requires_grad_(False)
    torch.manual_seed(0)
    model.classifier[6] = nn.Linear(4096, 2)
    optimizer = torch.optim.SGD(model.classifier[6].parameters(), lr=0.001, momentum=0.9)
    careful = kept_in_eval(model, model.classifier[6])
    losses = names["train"](careful, names["open_pictures"](batch_size=8), optimizer, 2)
    assert found[:2] == pytest.approx(losses, **FIVE_DIGITS)


def test_4_frozen_with_a_schedule(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 4)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    outside = [name for name in names["before"] if not name.startswith("fc.")]
    said = re.search(r"(\d+) of the (\d+)\s+tensors outside `fc` have", page.path.read_text())
    assert (len(names["drifted"]), len(outside)) == (int(said[1]), int(said[2]))

    _, file = read_model(record["folder"] / "model.safetensors")
    assert all(torch.equal(file.tensors[name], names["before"][name]) for name in outside)

    model = torchvision.models.resnet18(weights="IMAGENET1K_V1").requires_grad_(False)
    torch.manual_seed(0)
    model.fc = nn.Linear(512, 2)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
    loaders = names["open_pictures"](batch_size=8)
    losses = names["train"](kept_in_eval(model, model.fc), loaders, optimizer, 25, scheduler)
    assert losses_of(record) == pytest.approx(losses, **FIVE_DIGITS)
    assert names["evaluate"](model, loaders["val"]) == record["metrics"]["val"]["top1"]


@pytest.fixture
def cifar(workplace, monkeypatch):
    """A tiny CIFAR-10, whose digests stand in the place of the whole set's."""
    publish(monkeypatch, write_embedded_cifar(workplace / "cifar"))


def test_5_cifar(page, cifar, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 5)
    names = run_chapter(page, heading)
    assert len(names["losses"] + names["more_losses"]) == 6
    (record,) = run_zoo(page, heading, capsys)
    assert [(p["policy"], p["epochs"], p["lr"]) for p in record["plan"]["phases"]] == [
        ("head", 5, 0.001),
        ("all", 1, 0.0001),
    ]
    assert record["plan"]["data"]["images"] == {"train": 40, "val": 10, "test": 10}
    assert record["plan"]["preprocess"]["size"] == [224, 224]


@pytest.mark.parametrize(
    ("name", "first", "losses"), [("inception_v3", 0, "losses"), ("googlenet", 1, "two_losses")]
)
def test_6_auxiliary_heads(page, downloaded, capsys, name, first, losses):
    downloaded(name)
    heading = heading_of(page, 6)
    names = run_chapter(page, heading, first, first + 1)
    block = page.blocks(heading, "sh")[first]
    page.sections[heading] = [
        block,
        *page.blocks(heading, "console"),
        *page.blocks(heading, "toml"),
    ]
    (record,) = run_zoo(page, heading, capsys)
    assert losses_of(record) == pytest.approx(names[losses], **FIVE_DIGITS)
    if name == "inception_v3":
        Path("mine.toml").write_text(page.blocks(heading, "toml")[0].text)
        assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.USAGE, zoo.ExitCode.BROKEN]


def test_7_augmentation(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 7)
    run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    assert record["plan"]["augment"] == "crop:0.08,flip:0.5"
    assert not record["plan"]["phases"][0]["keep_features"]
    again = zoo.finetune(
        "resnet18", data="photos", out="again", augment="crop,flip", train="head", epochs=3,
        batch_size=8, optimizer="sgd", lr=0.001, momentum=0.9, weight_decay=0,
        schedule="constant", workers=2, precision="fp32",
    )  # fmt: skip
    assert again.record["sha256"] == record["sha256"]


def test_8_as_it_is(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 8)
    names = run_chapter(page, heading)
    (block,) = page.blocks(heading, "sh")
    torchvisions, lites = commands(block)
    code, out, err = run_command([*torchvisions, "--json"], capsys)
    assert code == 0, err
    (answer,) = json.loads(out)
    said = {p["class"]: p["probability"] for p in answer["predictions"]}
    expected = dict(zip(names["names"], names["best"].values.tolist(), strict=True))
    assert said == pytest.approx(expected, rel=1e-4)
    assert run_command(lites, capsys)[0] == 0
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.USAGE]
