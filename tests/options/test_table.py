"""The table of options: validation, and that CLI, Python and registry files match it."""

import dataclasses
import math
import subprocess
import sys

import click
import numpy as np
import pytest

import zoo
from zoo.cli.finetune import command
from zoo.cli.sections import SectionedOption
from zoo.engine.plan.options import Options
from zoo.options import OPTIONS, Augmentation, HeadSpec, Policy, Range, Schedule
from zoo.options.augmentation import STRENGTHS
from zoo.options.table import DEFAULTS, GROUPS
from zoo.registry.config import load_config

BY_NAME = {option.name: option for option in OPTIONS}


def test_finetune_signature_matches_table():
    fields = [field for field in dataclasses.fields(Options) if field.init]
    # None is not given, and read as the default.
    assert {field.name: field.default for field in fields} == dict.fromkeys(BY_NAME)
    options = Options()
    assert {field.name: getattr(options, field.name) for field in fields} == {
        option.name: option.default for option in OPTIONS
    }
    assert not options.given
    assert "\nRaises:\n" in zoo.finetune.__doc__
    for option in OPTIONS:
        assert f"\n        {option.name}: {option.help[:20]}" in zoo.finetune.__doc__, option.name


def test_help_of_augment_names_every_step():
    assert BY_NAME["augment"].help.endswith(f"a list of {', '.join(STRENGTHS)}")
    assert Augmentation.parse(BY_NAME["augment"].bare)


def test_command_line_options_match_table():
    parameters = {
        parameter.name: parameter
        for parameter in command.params
        if isinstance(parameter, SectionedOption)
    }
    own = {"dry_run", "as_json", "quiet"}
    assert {*parameters} - own == {o.name for o in OPTIONS if not o.python_only}
    for name in {*parameters} - own:
        option, parameter = BY_NAME[name], parameters[name]
        assert parameter.opts == [option.flag]
        assert (parameter.section, parameter.metavar) == (option.group, option.metavar)
        assert parameter.help == option.description


def test_help_lists_every_option_once_in_group():
    text = command.get_help(click.Context(command, info_name="finetune"))
    titles = [f"\n{group.capitalize()}:\n" for group in GROUPS]
    offsets = [text.index(title) for title in titles] + [text.index("\nEvery command:\n")]
    assert offsets == sorted(offsets)
    for option in OPTIONS:
        lines = [
            n for n in range(offsets[0], len(text)) if text.startswith(f"\n  {option.flag} ", n)
        ]
        assert len(lines) == (0 if option.python_only else 1), option.name
        start = GROUPS.index(option.group)
        assert all(offsets[start] < line < offsets[start + 1] for line in lines), option.name
    assert text.index("\n  --train") < text.index("\n  --epochs") < text.index("\n  --momentum")


def test_registry_defaults_have_ranges_of_table():
    shipped = load_config().defaults
    assert {*DEFAULTS} == {*shipped}
    for option in OPTIONS:
        for key in option.config:
            assert DEFAULTS[key] is option.range
            assert option.read(shipped[key]) is not None
            assert option.automatic in ("", str(shipped[key]))


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("train", "stages:2", Policy("stages", stages=2)),
        ("train", Policy("all"), Policy("all")),
        ("schedule", "step", Schedule("step")),
        ("augment", "none", Augmentation()),
        ("head", "mlp:8", HeadSpec((8,))),
        ("head_at", "classifier[6]", "classifier.6"),
        ("epochs", 3, (3,)),
        ("epochs", [3, np.int64(2)], (3, 2)),
        ("lr", 1, (1.0,)),
        ("lr", 1e18, (1e18,)),
        ("batch_size", np.int32(8), 8),
        ("weight_decay", 0, 0.0),
        ("cache_images", False, False),
        ("weights", None, "auto"),
        ("seed", None, None),
    ],
)
def test_read_parses_text_and_values(name, given, value):
    read = BY_NAME[name].read(given)
    assert read == value
    assert type(read) is type(value)
    assert BY_NAME[name].read(read) == value


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("epochs", "3", "--epochs has '3'; give positive numbers"),
        ("epochs", (), "--epochs is empty; give one value"),
        ("epochs", (2, 0), "--epochs has 0; give positive numbers"),
        ("lr", math.inf, "--lr has inf"),
        ("batch_size", 0, "--batch-size is 0; give a number from 1 to 2147483648"),
        ("batch_size", 8.5, "--batch-size is 8.5; give a whole number"),
        ("batch_size", True, "--batch-size is True"),
        ("seed", -1, "--seed is -1; give a number from 0 to"),
        ("optimizer", "adamm", "no optimizer is named 'adamm'; did you mean adam"),
        ("recipe", 3, "no recipe is named 3; one of probe, head"),
        ("bad_images", "skp", "--bad-images 'skp' is unknown; did you mean skip?"),
        ("train", 2, "--train is 2; give text, or a zoo.options.Policy"),
        ("cache_images", "no", "--cache-images is 'no'; give True or False"),
        ("head_at", "a b", "not a module path"),
    ],
)
def test_read_invalid_value_is_refused(name, given, message):
    with pytest.raises(zoo.UsageError) as caught:
        BY_NAME[name].read(given)
    assert message in str(caught.value)


def test_range_as_text():
    assert str(Range(float, 0, 1)) == "a number from 0 to 1"
    assert str(Range(float, 0, 1, open=True)) == "a number between 0 and 1"
    assert str(Range(float, 0, math.inf, open=True)) == "a number above 0"
    assert math.nan not in Range(float, 0, 1)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from zoo.cli import main\n"
        "try: main(['finetune', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL', 'pluggy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "zoo = {name for name in sys.modules if name.startswith('zoo.')}\n"
        "options = {name for name in zoo if name.startswith('zoo.options.')}\n"
        "names = ('option', 'readers', 'table')\n"
        "assert options == {f'zoo.options.{name}' for name in names}, options\n"
        "assert not zoo & {'zoo.spec', 'zoo.records', 'zoo.registry'}, zoo\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--micro-batch-size N" in done.stdout


def test_choices_of_preprocess_are_those_of_the_backbone():
    assert BY_NAME["crop"].choices == zoo.spec.CROPS
    assert BY_NAME["interpolation"].choices == zoo.spec.INTERPOLATIONS
