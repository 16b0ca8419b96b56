"""Values that are not finite: which layer, which image, and no advice about learning rates."""

import pytest
import torch
from torch import nn

import zoo
from zoo.engine.features.finite import all_finite, first_not_finite


class Overflow(nn.Module):
    """A network with an operation between two layers that overflows."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(2, 2), nn.Linear(2, 2), scale

    def forward(self, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
        return {"out": (self.second(self.first(x) * self.scale),)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_all_finite_detects_one_value_of_many(dtype):
    values = torch.randn(3, 5, 7, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    for finite in (values, values.contiguous(memory_format=torch.channels_last), values[:0]):
        assert all_finite({"out": [finite, torch.tensor([1])]})
    for odd in (float("nan"), float("inf"), -float("inf")):
        for position in (0, 500, values.numel() - 1):
            changed = values.clone()
            changed.view(-1)[position] = odd
            assert not all_finite([values, changed])


def test_first_layer_that_is_not_finite_is_named():
    torch.manual_seed(0)
    images = torch.ones(3, 2)
    network = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1)
    )
    assert first_not_finite(network, lambda: network(images)) is None
    with torch.no_grad():
        network[1][0].weight.fill_(3e38)
        network[0].weight.fill_(1)
    found = first_not_finite(network, lambda: network(images))
    assert found == "the output of 1.0 (Linear)"
    assert not network[0]._forward_hooks
    between = Overflow(3e38)
    nn.init.ones_(between.first.weight)
    nn.init.ones_(between.second.weight)
    found = first_not_finite(between, lambda: between(images * 1e5))
    assert found == "the input of second (Linear)"
    assert first_not_finite(Overflow(1.0), lambda: None) is None


def test_nested_values_are_checked():
    nan = torch.tensor(float("nan"))
    assert all_finite({"a": (torch.ones(1), [torch.ones(1, dtype=torch.int64), "text", None])})
    assert not all_finite({"a": (torch.ones(1), [nan])})


@pytest.fixture
def overflowing(tinynet, tmp_path):
    """A model file with finite weights whose features overflow in `body.0`."""
    torch.manual_seed(0)
    model = zoo.get(tinynet).build(classes=3)
    with torch.no_grad():
        model.stem[0].weight.abs_().mul_(1e4)
        model.body[0].weight.fill_(3e38)
    return zoo.save(model, tmp_path / "own.safetensors", ["flag", "mammal", "playing_card"])


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ((), "the features of {folder}/val/flag/"),
        (("--train", "head", "--epochs", "1"), "the features of {folder}/val/flag/"),
        (("--train", "all", "--epochs", "1"), "the loss of the first batch is"),
    ],
)
def test_training_on_overflow_names_the_layer(overflowing, image_folder, cli, options, subject):
    fixed = ("--precision", "fp32", "--device", "cpu", "--out", "run")
    code, _, err = cli("finetune", overflowing, "--data", image_folder, *fixed, *options)
    assert code == 4, err
    assert subject.format(folder=image_folder) in err
    assert "not finite, first the output of body.0 (Conv2d)" in err
    assert "--lr" not in err


def test_embedding_that_overflows_names_the_layer(overflowing, image_folder, cli):
    arguments = ("--data", image_folder, "--out", "out.npy", "--device", "cpu")
    code, _, err = cli("embed", overflowing, *arguments)
    assert (code, "not finite, first the output of body.0" in err) == (4, True), err


def test_predictions_that_are_not_numbers_name_the_layer(overflowing, image_folder, cli):
    image = next((image_folder / "val" / "flag").iterdir())
    for json in ((), ("--json",)):
        code, out, err = cli("predict", overflowing, image, "--device", "cpu", *json)
        assert (code, out) == (4, "")
        assert "the predictions are not finite, first the output of body.0" in err
    code, out, err = cli("evaluate", overflowing, "--data", image_folder, "--json")
    assert (code, out, "the loss of the test split is nan" in err) == (4, "", True)


class Tensors(torch.utils.data.Dataset):
    """Images of which the sixth has a value that is not finite."""

    classes = ("a", "b")

    def __init__(self, odd: bool) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        torch.manual_seed(index)
        image = torch.rand(3, 32, 32)
        if self.odd and index == 5:
            image[1, 2, 3] = float("nan")
        return image, index % 2


@pytest.mark.parametrize("train", ["head", "all"])
def test_images_that_are_not_finite_are_data(tinynet, tmp_path, train):
    data = {"train": Tensors(True), "val": Tensors(False)}
    options = {"data": data, "weights": "none", "train": train, "epochs": 1, "batch_size": 12}
    with pytest.raises(zoo.DataError, match="the input of the network is not") as raised:
        zoo.finetune(tinynet, out=tmp_path / "run", device="cpu", **options)
    assert "--lr" not in str(raised.value)
