"""docs/cookbook.md: the chapter's code and zoo's commands run, with equal losses."""

import csv
import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import zoo
from tests.docs.page_files import copy_images, write_embedded_cifar
from tests.docs.passages import check_console, commands, read_page, run_command
from tests.published_sets import publish
from zoo.data.resize import resize
from zoo.engine.training.loop import epoch_seed
from zoo.modelfile import read_model
from zoo.seeding import epoch_order

pytestmark = pytest.mark.slow

LOOP = "The chapter's loop"
FIVE_DIGITS = {"rel": 1e-5, "abs": 1e-5}


class ZooSampler(torch.utils.data.Sampler):
    """Sampler of the chapter's loaders with zoo's order, and zoo's seed for dropout."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        self.epoch += 1
        torch.manual_seed(epoch_seed(0, self.epoch))
        return iter(epoch_order(self.count, 0, self.epoch))


def resize_as_zoo(transform: torchvision.transforms.Resize, image: Image.Image) -> Image.Image:
    """Resize the shorter side of an image by zoo's kernels, which are tested beside Pillow's."""
    short, long = sorted(image.size)
    longer = transform.size * long // short
    size = (transform.size, longer) if image.width <= image.height else (longer, transform.size)
    return Image.fromarray(resize(image, size, (0, 0, *size), "bilinear"))


@pytest.fixture
def page(page_folder, downloaded, monkeypatch):
    """The cookbook on two classes, the chapter's loop with zoo's order, pixels and layout."""
    monkeypatch.setattr(torchvision.transforms.Resize, "forward", resize_as_zoo)
    monkeypatch.setenv("TORCH_HOME", str(downloaded.home))
    shutil.rmtree(page_folder / "photos")
    copy_images(page_folder / "photos", ("flag", "mammal"))
    page = read_page("cookbook.md")
    page.names["CLASSES"] = 2
    page.run_python(page.blocks(LOOP, "python")[0])
    original_open, original_train = page.names["open_images"], page.names["train"]

    def open_images(**options):
        loaders = original_open(**options)
        data, size = loaders["train"].dataset, loaders["train"].batch_size
        loaders["train"] = torch.utils.data.DataLoader(data, size, sampler=ZooSampler(len(data)))
        return loaders

    def train(model, *arguments, **options):
        return original_train(model.to(memory_format=torch.channels_last), *arguments, **options)

    page.names.update(open_images=open_images, train=train)
    return page


def keep_frozen_in_eval(model: nn.Module, head: nn.Module) -> nn.Module:
    """Make `model.train()` set only the head to training mode."""
    model.train = lambda mode=True: (nn.Module.train(model, False), head.train(mode))
    return model


def run_zoo(page, heading, capsys) -> list[dict]:
    """Run every command of an exercise; return the records of their runs."""
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


def test_exercise_1_all_layers(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 1)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    assert losses_of(record) == pytest.approx(names["losses"], **FIVE_DIGITS)
    assert record["plan"]["weights"] == "IMAGENET1K_V1"
    assert record["metrics"]["test"]["images"] == 8
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.DATA]


@pytest.mark.long
def test_exercise_2_new_classifier(page, downloaded, capsys):
    downloaded("vgg16")
    heading = heading_of(page, 2)
    names = run_chapter(page, heading, 0, 1)
    (record,) = run_zoo(page, heading, capsys)
    assert losses_of(record) == pytest.approx(names["losses"], **FIVE_DIGITS)
    assert record["backbone_forwards"] < 2 * (16 + 8) + 16  # once each, and the verification
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.USAGE]

    names = run_chapter(page, heading, 1)
    model = names["model"]
    assert torch.allclose(names["wide_features"], names["features"], rtol=1e-4, atol=1e-4)
    assert names["same_features"].shape == (8, 4096)
    logits = model.classifier.eval()(names["features"])
    expected = nn.functional.cross_entropy(logits, names["labels"])
    assert names["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    # The lower bound of a softmax before cross-entropy, as stated on the page.
    bound = nn.functional.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item()
    assert f"below {bound:.2f} for two classes" in page.path.read_text().replace("\n", " ")


@pytest.mark.long
def test_exercise_3_last_layer_then_all(page, downloaded, capsys):
    downloaded("vgg16")
    heading = heading_of(page, 3)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    with_dropout, losses_of_zoo = names["losses"], losses_of(record)
    assert abs(losses_of_zoo[0] - with_dropout[0]) > 1e-3  # dropout in the frozen layers
    assert [phase["policy"] for phase in record["plan"]["phases"]] == ["head", "all"]
    assert [phase["lr"] for phase in record["plan"]["phases"]] == [0.001, 0.0001]

    model = torchvision.models.vgg16(weights="IMAGENET1K_V1").requires_grad_(False)
    torch.manual_seed(0)
    model.classifier[6] = nn.Linear(4096, 2)
    optimizer = torch.optim.SGD(model.classifier[6].parameters(), lr=0.001, momentum=0.9)
    frozen_in_eval = keep_frozen_in_eval(model, model.classifier[6])
    losses = names["train"](frozen_in_eval, names["open_images"](batch_size=8), optimizer, 2)
    assert losses_of_zoo[:2] == pytest.approx(losses, **FIVE_DIGITS)


def test_exercise_4_frozen_with_schedule(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 4)
    names = run_chapter(page, heading)
    (record,) = run_zoo(page, heading, capsys)
    outside = [name for name in names["before"] if not name.startswith("fc.")]
    counts = re.search(r"(\d+) of the (\d+)\s+tensors outside `fc` have", page.path.read_text())
    assert (len(names["drifted"]), len(outside)) == (int(counts[1]), int(counts[2]))

    _, file = read_model(record["folder"] / "model.safetensors")
    assert all(torch.equal(file.tensors[name], names["before"][name]) for name in outside)

    model = torchvision.models.resnet18(weights="IMAGENET1K_V1").requires_grad_(False)
    torch.manual_seed(0)
    model.fc = nn.Linear(512, 2)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
    loaders = names["open_images"](batch_size=8)
    losses = names["train"](keep_frozen_in_eval(model, model.fc), loaders, optimizer, 25, scheduler)
    assert losses_of(record) == pytest.approx(losses, **FIVE_DIGITS)
    assert names["evaluate"](model, loaders["val"]) == record["metrics"]["val"]["top1"]


@pytest.fixture
def cifar(page_folder, monkeypatch):
    """A tiny CIFAR-10, its digests registered as the published ones."""
    publish(monkeypatch, write_embedded_cifar(page_folder / "cifar"))


def test_exercise_5_cifar10(page, cifar, downloaded, capsys):
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
def test_exercise_6_auxiliary_heads(page, downloaded, capsys, name, first, losses):
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


def test_exercise_7_augmentation(page, downloaded, capsys):
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


def test_exercise_8_pretrained_prediction(page, downloaded, capsys):
    downloaded("resnet18")
    heading = heading_of(page, 8)
    names = run_chapter(page, heading)
    (block,) = page.blocks(heading, "sh")
    torchvisions, lites = commands(block)
    code, out, err = run_command([*torchvisions, "--json"], capsys)
    assert code == 0, err
    (answer,) = json.loads(out)
    probabilities = {p["class"]: p["probability"] for p in answer["predictions"]}
    expected = dict(zip(names["names"], names["best"].values.tolist(), strict=True))
    # Resized by Pillow in the chapter: single pixels differ by a level or two.
    assert probabilities == pytest.approx(expected, rel=1e-3)
    assert run_command(lites, capsys)[0] == 0
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.USAGE]


def test_exercise_9_model_of_your_own(page, page_folder, capsys, monkeypatch):
    copy_images(page_folder / "more_photos", ("flag", "mammal", "playing_card"))
    torch.save({"state_dict": zoo.get("lite0").build(classes=2).state_dict()}, "own.pth")
    Path("names.txt").write_text("flag\nmammal\n")
    module = types.ModuleType("theirs")
    module.Net = type("Net", (nn.Linear,), {"__module__": "theirs"})
    monkeypatch.setitem(sys.modules, "theirs", module)
    torch.save(module.Net(1, 1), "theirs.pt")
    heading = heading_of(page, 9)
    first, second = run_zoo(page, heading, capsys)
    new = {path.read_bytes() for path in Path("more_photos").rglob("playing_card/*")}
    assert second["backbone_forwards"] == len(new)
    assert "flag, mammal kept, playing_card new" in second["plan"]["reasons"]["weights"]
    assert zoo.load("own.safetensors", device="cpu").classes == ("flag", "mammal")
    assert check_mistakes(page, heading, capsys) == [zoo.ExitCode.WEIGHTS]
    assert first["plan"]["recipe"] == "probe"


@pytest.mark.long  # the tutorial's test, which is shorter, exports a run too
def test_exercise_10_file_for_other_programs(page, capsys):
    heading = heading_of(page, 10)
    (record,) = run_zoo(page, heading, capsys)
    names = run_chapter(page, heading)
    (answer,) = zoo.predict(record["folder"], ["cat.jpg"], device="cpu", precision="fp32")
    best = answer["predictions"][0]
    assert names["best"] == best["class"]
    assert names["probabilities"].max() == pytest.approx(best["probability"], abs=0.01)
