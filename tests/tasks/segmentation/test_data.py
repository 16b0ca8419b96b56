"""Folders of images and masks: splits, classes, reported faults."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.tasks.segmentation.scenes import SHAPES
from zoo.data.split import draw_held_out
from zoo.errors import DataError, UsageError
from zoo.registry.registry import load_registry
from zoo.tasks.base import load_task
from zoo.tasks.segmentation.data import open_data, open_split

RANDOM = np.random.default_rng(0)


def opened(root, **given):
    return open_data(root, **({"seed": 0, "val_fraction": 0.2, "classes": None} | given))


def write_pair(root, name: str, indices=None, size=(8, 6), image: str = ".jpg") -> None:
    """Write an image and its mask."""
    for folder in ("images", "masks"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(root / "images" / f"{name}{image}")
    if indices is None:
        indices = RANDOM.integers(0, 2, size[::-1])
    Image.fromarray(np.asarray(indices, dtype=np.uint8)).save(root / "masks" / f"{name}.png")


def test_folder_without_splits_is_split_by_seed(scenes):
    data = opened(scenes, seed=3)
    assert data.classes == SHAPES
    assert data.schema.palette == ("#000000", "#dc2828", "#28dc28", "#2828dc")  # of the PNG
    names = [f"images/{number:04}.png" for number in range(20)]
    drawn = {names[index] for index in draw_held_out(names, 3, 0.2)}
    assert set(data.splits["val"].paths) == drawn
    assert set(data.splits["train"].paths) == set(names) - drawn
    assert data.reason == "images/ and masks/: 20 % of the images held out by seed 3"
    image, mask = data.splits["val"].sample(0)
    assert image.size == mask.size == (96, 72)
    with Image.open(scenes / data.splits["val"].targets[0]) as stored:
        assert (np.asarray(mask) == np.asarray(stored)).all()


def test_split_folders_are_used_unchanged(tmp_path):
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        for number in range(count):
            write_pair(tmp_path / split, f"deep/{number}")
    data = opened(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 3,
        "val": 2,
        "test": 1,
    }
    assert data.splits["val"].where(0) == str(tmp_path / "valid" / "images" / "deep" / "0.jpg")
    (notice,) = data.notices
    assert notice.startswith("there is no classes.txt, so classes are named class 0 to class 1")
    shutil.rmtree(tmp_path / "train" / "masks")
    with pytest.raises(DataError, match=r"train has no masks/"):
        opened(tmp_path)


def test_all_faults_are_reported_at_once(tmp_path, cli, tinyfcn):
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("sky\nroad\n")
    for number in range(5):
        write_pair(root, f"good{number}", [[0, 255], [1, 0]], (2, 2))
        write_pair(root, f"lone{number}")
        (root / "masks" / f"lone{number}.png").unlink()
    write_pair(root, "stray")
    (root / "images" / "stray.jpg").unlink()
    write_pair(root, "index", [[0, 7], [9, 255]], (2, 2))
    write_pair(root, "small", [[0, 1]], (2, 2))
    write_pair(root, "torn")
    (root / "masks" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    write_pair(root, "red")
    Image.new("RGB", (8, 6)).save(root / "masks" / "red.png")
    code, out, err = cli("finetune", tinyfcn, "--data", root, "--weights", "none")
    assert (code, out, err.count("\n")) == (3, "", 1)
    for part in (
        "5 images without a mask: images/lone0.jpg, images/lone1.jpg, images/lone2.jpg and 2 more",
        "1 mask without an image: masks/stray.png",
        "1 unreadable mask: masks/torn.png (damaged (no valid PNG header))",
        "1 mask in colour: masks/red.png (of mode RGB)",
        "1 mask of another size than its image: masks/small.png (2 x 1, its image 2 x 2)",
        "1 mask with an index without a class: masks/index.png (7, 9)",
        "pixels are indices of classes",
    ):
        assert part in err
    assert not (tmp_path / "runs").exists()


def test_sizes_are_compared_after_exif_orientation(tmp_path):
    write_pair(tmp_path, "a", size=(8, 6))
    write_pair(tmp_path, "b", size=(8, 6))
    turned = Image.new("RGB", (6, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images" / "b.jpg", exif=exif)
    assert len(opened(tmp_path).splits["train"]) == 1
    turned.save(tmp_path / "images" / "b.jpg")
    with pytest.raises(DataError, match=r"b.png \(8 x 6, its image 6 x 8\)"):
        opened(tmp_path)


def test_classes_txt_sets_names_and_colours(tmp_path):
    for name in "abc":
        write_pair(tmp_path, name)
    (tmp_path / "classes.txt").write_text("open water #0000FF\nland\nice  #ffffff\n\n")
    schema = opened(tmp_path).schema
    assert schema.classes == ("open water", "land", "ice")
    assert schema.palette == ("#0000ff", "#800000", "#ffffff")
    (tmp_path / "classes.txt").write_text("land #00zz00\nland\n\nice\n")
    faults = r"line 1 has the colour #00zz00, line 2 names 'land' twice, line 3 has no name;"
    with pytest.raises(DataError, match=f"classes.txt, {faults}"):
        opened(tmp_path)
    (tmp_path / "classes.txt").write_bytes("Stra\xdfe\nland".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes.txt is not UTF-8 text; save it as UTF-8"):
        opened(tmp_path)


def test_unusable_masks_are_named_without_classes(tmp_path):
    """The number of classes is that of the masks, which has no meaning where they are unusable."""
    for name in "ab":
        write_pair(tmp_path, name)
        Image.new("L", (8, 6)).save(tmp_path / "masks" / f"{name}.jpg")
        (tmp_path / "masks" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"2 unreadable masks: masks/a.jpg \(it is JPEG, not PNG\)"):
        opened(tmp_path)
    for name in "ab":
        (tmp_path / "masks" / f"{name}.jpg").unlink()
        write_pair(tmp_path, name, [[255, 255]], (2, 1))
    with pytest.raises(DataError, match=r"every pixel in .* is 255, which is ignored"):
        opened(tmp_path)
    write_pair(tmp_path, "b", [[0, 255]], (2, 1))
    with pytest.raises(DataError, match="has only one class, class 0"):
        opened(tmp_path)


def test_classes_are_inferred_from_palette_or_indices(tmp_path):
    write_pair(tmp_path, "a", [[0, 1], [2, 255]], (2, 2))
    write_pair(tmp_path, "b", [[0, 1], [0, 0]], (2, 2))
    assert opened(tmp_path).classes == ("class 0", "class 1", "class 2")
    assert opened(tmp_path, classes=5).classes[-1] == "class 4"
    with pytest.raises(DataError, match=r"index without a class: masks/a.png \(2\)"):
        opened(tmp_path, classes=2)
    image = Image.fromarray(np.zeros((2, 2), dtype=np.uint8))
    image.putpalette([10, 0, 0, 20, 0, 0, 30, 0, 0, 40, 0, 0])
    image.save(tmp_path / "masks" / "b.png", bits=2)
    data = opened(tmp_path)
    assert data.classes[-1] == "class 3"
    assert data.schema.palette[3] == "#280000"
    assert "as many as the palette of the masks has colours" in data.notices[0]


def test_open_split_renumbers_classes_by_name(tmp_path):
    write_pair(tmp_path, "a", [[0, 1], [2, 255]], (2, 2))
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\n")
    split = open_split(tmp_path, ("sky", "tree", "water", "road"), None)
    assert split.name == "all"
    assert np.asarray(split.mask(0)).tolist() == [[3, 0], [1, 255]]
    same = open_split(tmp_path, ("road", "sky", "tree", "water"), "all")
    assert np.asarray(same.mask(0)).tolist() == [[0, 1], [2, 255]]
    with pytest.raises(DataError, match=r"unknown to the model: tree") as caught:
        open_split(tmp_path, ("sky", "trees", "road"), None)
    assert "trees" in str(caught.value)
    with pytest.raises(DataError, match="no split 'val'"):
        open_split(tmp_path, ("road", "sky", "tree"), "val")


def test_open_data_rejects_unusable_source(tmp_path, image_folder):
    with pytest.raises(UsageError, match="no demonstration set"):
        opened(None)
    with pytest.raises(UsageError, match="not read from a dict"):
        opened({})
    with pytest.raises(DataError, match=r"no images/ and masks/; it has test/, train/, val/"):
        opened(image_folder)
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "nowhere")
    write_pair(tmp_path, "a", np.full((6, 8), 255))
    write_pair(tmp_path, "b", np.full((6, 8), 255))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    with pytest.raises(DataError, match=r"every pixel in .* is 255"):
        opened(tmp_path)
    write_pair(tmp_path, "a")
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match="has one image"):
        opened(tmp_path)


def test_fingerprint_changes_with_masks_and_names(tmp_path):
    for name in "abc":
        write_pair(tmp_path, name, [[0, 1], [0, 1]], (2, 2))
    first = opened(tmp_path).fingerprint
    assert opened(tmp_path).fingerprint == first
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    second = opened(tmp_path).fingerprint
    write_pair(tmp_path, "c", RANDOM.integers(0, 2, (60, 80)), (80, 60))
    assert len({first, second, opened(tmp_path).fingerprint}) == 3


def test_open_all_ignores_masks(scenes):
    images = load_task(load_registry().task("semantic-segmentation")).open_all(scenes)
    assert (len(images), images.classes) == (20, ())


def test_variants_of_split_names_are_splits(tmp_path):
    for split, count in (("Training", 3), ("val_set", 2)):
        for number in range(count):
            write_pair(tmp_path / split, f"{number}")
    data = opened(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 2}
    assert data.reason == "images/ and masks/: Training/ and val_set/ as found"


def test_unrecognised_or_mixed_splits_are_refused(tmp_path):
    for split in ("train", "holdout"):
        write_pair(tmp_path / split, "a")
        write_pair(tmp_path / split, "b")
    with pytest.raises(DataError, match=r"in holdout/ too; rename it val/ or test/"):
        opened(tmp_path)
    shutil.move(tmp_path / "holdout", tmp_path / "val")
    assert len(opened(tmp_path).splits["val"]) == 2
    write_pair(tmp_path / "mixed", "train/a")
    write_pair(tmp_path / "mixed", "valid/a")
    with pytest.raises(DataError, match=r"splits train/ and valid/; arrange them as train/"):
        opened(tmp_path / "mixed")


def test_names_are_matched_whatever_their_accents(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "río") for form in ("NFC", "NFD"))
    for name in "ab":
        write_pair(tmp_path, f"{name}{composed}", [[0, 1]], (2, 1))
        mask = tmp_path / "masks" / f"{name}{composed}.png"
        mask.rename(mask.with_name(f"{name}{decomposed}.png"))
    (tmp_path / "classes.txt").write_text(f"{decomposed}\nmar\n")
    data = opened(tmp_path)
    assert data.classes == (composed, "mar")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1, "val": 1}
    split = open_split(tmp_path, ("mar", decomposed), None)
    assert np.asarray(split.mask(0)).tolist() == [[1, 0]]


def test_columns_do_not_apply_to_masks(scenes, cli, tinyfcn):
    code, _, err = cli("finetune", tinyfcn, "--data", scenes, "--columns", "image=a")
    assert (code, "--columns does not apply to semantic-segmentation" in err) == (2, True)


def test_groups_of_images_are_held_out_whole(tmp_path):
    for patient in range(5):
        for number in range(4):
            write_pair(tmp_path, f"p{patient}_{number}")
    data = opened(tmp_path, group_by=r"(p\d)_")
    held = {split.paths[n][7:9] for split in [data.splits["val"]] for n in range(len(split))}
    assert (len(held), len(data.splits["val"])) == (1, 4)
    assert not any(path[7:9] in held for path in data.splits["train"].paths)
    assert data.reason.endswith("20 % of the images held out by seed 0 in 1 of 5 groups")
    with pytest.raises(DataError, match=r"are of one group; give --val 0"):
        opened(tmp_path, group_by="p")
    whole = opened(tmp_path, val_fraction=0.0)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 20}
    assert whole.reason.endswith("nothing is held out: all images train, without validation")
    (tmp_path / "train").mkdir()
    for folder in ("images", "masks"):
        (tmp_path / folder).rename(tmp_path / "train" / folder)
    write_pair(tmp_path / "val", "p1_9")
    with pytest.raises(DataError, match=r"1 group is in both train and val: p1"):
        opened(tmp_path, group_by=r"(p\d)_")
    assert opened(tmp_path).own_val


def test_training_without_validation_keeps_the_last_epoch(scenes, tinyfcn, tmp_path, cli):
    given = ("--data", scenes, "--weights", "none", "--val", "0", "--epochs", "1", "--out", "run")
    code, out, err = cli("finetune", tinyfcn, *given, "--batch-size", "8")
    assert (code, "val" in out, "val" in err) == (0, False, False)


def test_lone_wrapper_is_entered(tmp_path):
    for name in "abc":
        write_pair(tmp_path / "archive" / "scenes", name)
    data = opened(tmp_path)
    assert (data.name, len(data.splits["train"])) == (tmp_path.name, 2)
    assert data.notices[0] == f"the folder is archive/scenes/, alone in {tmp_path}"
    assert len(open_split(tmp_path, data.classes, None)) == 3
    write_pair(tmp_path / "other", "a")
    with pytest.raises(DataError, match=r"no images/ and masks/; it has archive/, other/"):
        opened(tmp_path)
