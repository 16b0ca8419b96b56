"""Errors from Python name arguments; those of the command line name flags."""

import pytest

import zoo
from zoo.options.arguments import in_python, names_arguments


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--epochs is 0", "epochs is 0"),
        ("--classes 5, but p has 3 classes", "classes=5, but p has 3 classes"),
        (
            "--momentum requires sgd; add --optimizer sgd",
            "momentum requires sgd; add optimizer='sgd'",
        ),
        ("give a lower --lr (it was 0.1)", "give a lower lr (it was 0.1)"),
        ("remove it, or give --bad-images skip", "remove it, or give bad_images='skip'"),
        ("--head-at fc: no", "head_at fc: no"),
        ("--data a/b.csv, or --train head", "data='a/b.csv', or train='head'"),
        ("give --weights FILE, or --weights none", "give weights=FILE, or weights='none'"),
        ("`zoo fetch a --to DIR --weights TAG` fills it", None),
        ("give torchrun --nproc-per-node 2", None),
        ("--no-plugin: no plugin is named 'x'", "without: no plugin is named 'x'"),
        ("check --no-plugin and X", "check zoo.configure(without=...) and X"),
        ("load it with --plugin FILE", "load it with zoo.configure(plugins=[FILE])"),
    ],
)
def test_flags_become_arguments(flags, arguments):
    assert in_python(flags) == (arguments or flags)


def test_errors_name_arguments_from_python_only(tinynet, image_folder, cli):
    given = {"data": image_folder, "weights": "none", "batch_size": 0, "seed": -1}
    with pytest.raises(zoo.UsageError) as raised:
        zoo.finetune(tinynet, **given)
    assert "batch_size is 0" in str(raised.value)
    assert "seed is -1" in str(raised.value)
    assert "--" not in str(raised.value)
    assert "--" not in repr(raised.value)
    options = ("--data", image_folder, "--weights", "none", "--batch-size", "0", "--seed", "-1")
    code, _, err = cli("finetune", tinynet, *options)
    assert code == 2
    assert "--batch-size is 0" in err
    with pytest.raises(zoo.UsageError, match=r"^in_chans=2: "):
        zoo.get(tinynet).build(classes=2, in_chans=2)


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        ("predict", {"images": "x.jpg", "top": 0}, "top is 0; give a number from 1"),
        ("predict", {"images": "x.jpg", "batch_size": "3"}, "batch_size is '3'"),
        ("features", {"images": "x.jpg", "batch_size": 0}, "batch_size is 0"),
        ("evaluate", {"bad_images": "skp"}, "bad_images 'skp' is unknown; did you mean skip?"),
        ("embed", {"data": "x", "out": "x.npy", "workers": -1}, "workers is -1"),
        ("rank", {"data": "x", "limit": 0, "seed": -1}, "2 options are wrong: limit is 0.*seed is"),
        ("rank", {"data": "x", "max_params": "30M"}, "max_params is '30M'"),
        ("rank", {"data": "x", "limit": None}, "limit is None"),
        ("check", {"classes": 1}, "classes is 1"),
        ("predict", {"images": "x.jpg", "top": None}, "top is None; give a number from 1"),
        ("features", {"images": "x.jpg", "batch_size": None}, "batch_size is None"),
        ("evaluate", {"data": ""}, "data is empty; give a path"),
        ("plan", {"data": ""}, "data is empty"),
        ("rank", {"data": ""}, "data is empty"),
        ("embed", {"data": "", "out": "x.npy"}, "data is empty"),
        ("embed", {"data": "x", "out": None}, "out is None; give a path"),
        ("export", {"out": 3}, "out is 3; give a path"),
        ("report", {"out": ""}, "out is ''; give a path"),
        ("predict", {"images": "x.jpg", "out": b"x"}, "out is b'x'; give a path"),
        ("plan", {"data": "x", "out": ""}, "out is ''; give a path"),
        ("plan", {"data": "x", "resume": 3}, "resume is 3; give a path"),
        ("freeze", {"policy": "all"}, "a str is no network; give a torch module"),
        ("save", {"path": "x.safetensors", "classes": ["a"]}, "a str is no network"),
    ],
)
def test_invalid_arguments_of_functions_are_refused(function, given, message):
    with pytest.raises(zoo.UsageError, match=f"^{message}"):
        getattr(zoo, function)("lite0", **given)


def test_notes_of_an_error_name_arguments():
    @names_arguments
    def train():
        error = zoo.DataError("cannot read a.jpg", "remove it, or give --bad-images skip")
        error.add_note("out keeps notes.txt, and can be given as --out again")
        raise error

    with pytest.raises(zoo.DataError, match="give bad_images='skip'") as raised:
        train()
    assert raised.value.__notes__ == ["out keeps notes.txt, and can be given as out again"]


def test_unknown_option_suggests_the_nearest(tinynet):
    with pytest.raises(TypeError, match="no option is named 'epoch'; did you mean epochs"):
        zoo.finetune(tinynet, epoch=4)
