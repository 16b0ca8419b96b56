"""The range of values of a data set, from the plan to predictions."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.records import to_dict

QUICK = {"weights": "none", "batch_size": 8, "epochs": 1, "lr": 0.05, "optimizer": "adamw"}
RANGES = (("uint16", 0.0, 4095.0),)


@pytest.fixture
def scans(tmp_path):
    """Two classes of 12 bits in PNG files of 16: stripes across and down."""
    random = np.random.default_rng(0)
    root = tmp_path / "scans"
    for split, count in (("train", 8), ("val", 4)):
        for name in ("across", "down"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                wave = 1600 + 1500 * np.sin(np.arange(40) / 3 + random.uniform(0, 6))
                values = wave[:, None] if name == "across" else wave[None, :]
                noise = random.integers(0, 900, (40, 40))
                Image.fromarray((values + noise).astype(np.uint16)).save(
                    root / split / name / f"{number}.png"
                )
    return root


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_range_is_used_by_every_command(tinynet, scans, cli, recipe):
    run = zoo.finetune(tinynet, data=scans, recipe=recipe, precision="fp32", **QUICK)
    plan = run.record["plan"]
    assert plan["preprocess"]["ranges"] == [list(RANGES[0])]
    assert "ranges of values of the data" in plan["reasons"]["preprocess"]
    model = zoo.load(run.path)
    assert model.preprocess.ranges == RANGES
    evaluated = model.evaluate(scans)
    assert evaluated["loss"] == pytest.approx(run.metrics["val"]["loss"], rel=1e-5)
    # The same image, its values in the full range of the file: the same prediction.
    path = sorted((scans / "val/across").iterdir())[0]
    values = np.asarray(Image.open(path))
    wide = Image.fromarray(np.rint(values * (255 / 4095)).astype(np.uint8))
    expected = model.predict(wide)[0]["predictions"]
    for source in (path, values, str(path), path.read_bytes(), Image.open(path)):
        assert model.predict(source)[0]["predictions"] == expected
    code, out, _ = cli("predict", run.path, path, "--json")
    assert code == 0
    assert json.loads(out)[0]["predictions"] == expected


def test_published_weights_are_evaluated_on_the_range(scans, tmp_path, cli, install):
    """A backbone without a data set of its own takes the range of the images that it is given."""
    wide = tmp_path / "wide"
    for path in scans.rglob("*.png"):
        target = wide / path.relative_to(scans)
        target.parent.mkdir(parents=True, exist_ok=True)
        values = np.asarray(Image.open(path))
        Image.fromarray(np.rint(values * (255 / 4095)).astype(np.uint8)).save(target)
    features = []
    for data in (scans, wide):
        out = tmp_path / f"{data.name}.npy"
        options = ("--data", data, "--out", out)
        assert cli("embed", "efficientnet_lite/lite0", *options)[0] == 0
        features.append(np.load(out))
    assert np.array_equal(features[0], features[1])


def test_plan_and_check_state_the_range(tinynet, scans, cli):
    options = ("--data", scans, "--weights", "none")
    code, out, err = cli("finetune", tinynet, *options, "--dry-run")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("preprocess")]
    assert "uint16 0 to 4095" in line
    assert "values are uint16 0 to 4095" in err
    code, out, _ = cli("check", scans)
    assert "values  uint16 0 to 4095" in out
    report = json.loads(cli("check", scans, "--json")[1])
    assert report["ranges"] == [list(RANGES[0])]


def test_full_range_leaves_the_preprocess_unchanged(tinynet, image_folder):
    plan = zoo.plan(tinynet, data=image_folder, weights="none")
    assert plan.preprocess.ranges == ()
    assert "ranges" not in to_dict(plan.preprocess)


def test_training_on_a_dataset_of_uint16_arrays(tinynet):
    random = np.random.default_rng(0)
    items = [((random.random((40, 40)) * 4000).astype(np.uint16), n % 2) for n in range(16)]
    run = zoo.finetune(tinynet, data=items_dataset(items), classes=2, recipe="head", **QUICK)
    assert zoo.load(run.path).preprocess.ranges == RANGES


def items_dataset(items):
    from torch.utils.data import Dataset

    class Items(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return items[index]

    return Items()


def test_invalid_ranges_are_refused():
    for ranges in ((("uint16", 5, 5),), (("uint16", 1),), ("uint16",)):
        with pytest.raises(zoo.UsageError, match="preprocess ranges"):
            zoo.Preprocess(size=8, ranges=ranges)
