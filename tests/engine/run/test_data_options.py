"""Options of the data in trainings: columns, share for validation, groups."""

import pytest

import zoo
from tests.tasks.classification.data.test_columns import LABELS
from tests.tasks.classification.data.test_folder import make

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twenty images, of two classes and five patients, and a table of them."""
    monkeypatch.chdir(tmp_path)
    names = [f"{label}{i}_p{i // 2}" for i, label in enumerate(LABELS)]
    folder = make(tmp_path / "photos", *(f"{name}/{n}.png" for name in names for n in "ab"))
    rows = [
        f"{name}/{n}.png,{label},{name[-2:]},x"
        for name, label in zip(names, LABELS, strict=True)
        for n in "ab"
    ]
    (folder / "t.csv").write_text("\n".join(["photo,kind,patient,note", *rows]))
    return folder / "t.csv"


def test_columns_are_recorded_and_used_again(photos, tinynet, cli):
    columns = "image=photo,label=kind"
    code, _, err = cli("finetune", tinynet, "--data", photos, "--weights", "none")
    assert (code, "names no column label or class" in err) == (3, True)
    run = zoo.finetune(tinynet, data=photos, columns=columns, epochs=1, **QUICK)
    assert run.record["plan"]["classes"] == ["cat", "dog"]
    assert run.record["plan"]["data"]["options"] == {"columns": columns}
    model = zoo.load(run.path, "cpu")
    values = model.evaluate(photos)
    assert (values["split"], values["images"]) == ("val", 4)
    assert model.evaluate(photos, columns={"label": "kind", "image": "photo"})["images"] == 4
    moved = photos.rename(photos.with_name("other.csv"))
    moved.write_text(moved.read_text().replace("photo,kind", "photo,species"))
    code, _, err = cli("evaluate", run.path, "--data", moved, "--device", "cpu")
    assert (code, "names no column label" in err) == (3, True)
    other = ("--data", moved, "--columns", "label=species", "--device", "cpu")
    code, out, _ = cli("evaluate", run.path, *other, "--json")
    assert (code, '"images": 4' in out) == (0, True)
    code, out, _ = cli("embed", run.path, *other, "--out", "features.npy", "--json")
    assert (code, '"images": 20' in out) == (0, True)
