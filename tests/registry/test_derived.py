"""Derived backbones: overridden and inherited fields, and invalid entries."""

import logging

import pytest

import zoo
from zoo.registry.config import shipped_file
from zoo.registry.registry import load_registry

SHA = "ab" * 32
WEIGHTS = f'tag = "v1", file = "leaf.safetensors", sha256 = "{SHA}"'

# timm's catalogue is not needed here.
WITHOUT = ["timm"]


@pytest.fixture
def registry(tmp_path):
    """Return a function that loads the registry with a file of the given text."""

    def load(text, without=WITHOUT):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(f"schema = 1\n{text}")
        return load_registry(without, path)

    return load


def entry(body="", base="torchvision/resnet18", id="house/leaf"):
    return f'[backbones."{id}"]\nextends = "{base}"\n{body}\n'


def test_minimal_entry_inherits_every_field(registry, tmp_path):
    loaded = registry(entry())
    leaf, base = loaded.get("house/leaf"), loaded.get("resnet18")
    assert (leaf.id, leaf.name, leaf.source, leaf.plugin) == (
        "house/leaf",
        "leaf",
        "house",
        "torchvision",
    )
    assert leaf.origin == f"{tmp_path / '0.toml'}, line 2, extending torchvision/resnet18"
    same = ("builder", "heads", "preprocess", "weights", "kwargs", "params", "license", "task")
    assert all(getattr(leaf, name) == getattr(base, name) for name in same)
    assert leaf.extends == base
    assert leaf.published == base
    assert loaded.get("leaf") is leaf
    assert [b.id for b in loaded.find(["lea*"])] == ["house/leaf"]
    assert [b.id for b in loaded.find(source="house")] == ["house/leaf"]
    assert [b.id for b in loaded][-1] == "house/leaf"
    assert len(loaded) == len(list(loaded))


def test_extends_accepts_name_alias_and_derived_backbone(registry):
    loaded = registry(
        '[aliases]\nmine = "house/b"\n'
        + entry(base="resnet18", id="house/a")
        + entry(base="house/a", id="house/b")
        + entry(base="mine", id="house/c")
        + entry(base="mobilenet", id="house/d")
        + entry(base="resnet50", id="house/resnet50")
    )
    assert loaded.get("c").published.id == "torchvision/resnet18"
    assert loaded.get("c").extends.id == "house/b"
    assert loaded.get("d").extends.id == "torchvision/mobilenet_v3_large"
    assert loaded.get("resnet50").id == "torchvision/resnet50"
    assert loaded.get("house/resnet50").extends.id == "torchvision/resnet50"


def test_weights_replace_inherited_ones(registry, tmp_path):
    leaf = registry(
        entry(
            'license = "MIT"\n'
            f'weights = [{{ {WEIGHTS}, classes = ["oak", "ash"], license = "BSD" }},\n'
            f'  {{ tag = "v2", url = "https://a.b/c", sha256 = "{SHA}", num_classes = 37 }},\n'
            f'  {{ tag = "v3", hub = "a/b:c", sha256 = "{SHA}" }}]'
        )
    ).get("leaf")
    first, _, third = leaf.weights
    assert first.file == str(tmp_path / "leaf.safetensors")
    assert first.classes == ("oak", "ash")
    assert [w.num_classes for w in leaf.weights] == [2, 37, 1000]
    # The licence of weights takes precedence over that of the entry.
    assert (leaf.license, first.license) == ("BSD", "BSD")
    assert third.license is None
    assert first.digest == SHA
    assert first.convert is None
    # num_classes alone inherits no class names.
    assert third.classes is None
    assert first.preprocess == leaf.preprocess
    assert leaf.params is None


@pytest.mark.parametrize(
    ("base", "body", "message"),
    [
        # New weights without a licence: unknown, whatever the licence of the base.
        ("efficientnet_lite/lite0", f"weights = [{{ {WEIGHTS} }}]", None),
        ("vit_h_14", f"weights = [{{ {WEIGHTS} }}]", None),
        ("efficientnet_lite/lite0", f'license = "MIT"\nweights = [{{ {WEIGHTS} }}]', "MIT"),
        # Inherited weights: their licence, unless the file overrides it.
        ("efficientnet_lite/lite0", "preprocess = { size = 192 }", "Apache-2.0"),
        ("resnet18", "preprocess = { size = 192 }", None),
        ("resnet18", 'license = "BSD-3-Clause"', "BSD-3-Clause"),
        ("efficientnet_lite/lite0", 'license = "mit"', "mit"),
    ],
)
def test_license_of_derived_backbone_follows_its_weights(registry, base, body, message):
    leaf = registry(entry(body, base=base)).get("leaf")
    assert (leaf.license, leaf.weights[0].license) == (message, message)


def test_weights_file_path_is_relative_to_registry_file(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in (
        ("a/b.safetensors", f"{tmp_path}/a/b.safetensors"),
        ("os:path", f"{tmp_path}/os:path"),
        ("~/b.safetensors", "/home/me/b.safetensors"),
        ("/b.safetensors", "/b.safetensors"),
    ):
        weights = f'tag = "v1", file = "{text}", sha256 = "{SHA}"'
        assert registry(entry(f"weights = [{{ {weights} }}]")).get("leaf").weights[0].file == path
    zero = WEIGHTS.replace("leaf.safetensors", "\\u0000")
    with pytest.raises(zoo.RegistryError, match="is not a path"):
        registry(entry(f"weights = [{{ {zero} }}]"))


def test_example_in_shipped_file_is_valid(registry):
    lines = shipped_file().read_text().splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("#   "))
    leaf = registry(example.replace('sha256 = "..."', f'sha256 = "{SHA}"')).get("house/leaf")
    assert leaf.weights[0].classes == ("ash", "beech", "oak")
    assert leaf.weights[0].preprocess.size == (320, 320)
    assert [head.path for head in leaf.heads] == ["fc"]


def test_weights_like_inherits_kwargs_classes_and_preprocess(registry):
    text = "weights = [{{ {} }}]"
    plain = registry(entry(text.format(WEIGHTS), "vit_b_16")).get("leaf").weights[0]
    assert plain.preprocess.size == (224, 224)
    like = f'{WEIGHTS}, like = "IMAGENET1K_SWAG_E2E_V1"'
    swag = registry(entry(text.format(like), "vit_b_16")).get("leaf").weights[0]
    assert swag.preprocess.size == (384, 384)
    assert swag.kwargs["image_size"] == 384
    assert (swag.num_classes, swag.classes) == (
        1000,
        "zoo.builtin.torchvision_build:imagenet_classes",
    )
    assert registry(entry(text.format(WEIGHTS), "inception_v3")).get("leaf").weights[0].kwargs
    none = registry(entry(text.format(f'{WEIGHTS}, like = "none"'), "inception_v3")).get("leaf")
    assert not none.weights[0].kwargs
    headless = registry(entry(text.format(f"{WEIGHTS}, num_classes = 0"))).get("leaf").weights[0]
    assert headless.features_only


def test_preprocess_overrides_base_fields(registry):
    def preprocess(body):
        leaf = registry(entry(body)).get("leaf")
        assert leaf.preprocess_for(leaf.weights[0]) == leaf.preprocess
        return leaf.preprocess

    assert preprocess("preprocess = { size = 448 }").resize == 512
    assert preprocess("preprocess = { size = [320, 160] }").size == (320, 160)
    assert preprocess("preprocess = { size = [320, 160] }").resize == 160 * 256 // 224
    assert preprocess("preprocess = { size = 448, resize = 450 }").resize == 450
    assert preprocess('preprocess = { crop = "squash" }').resize == 224
    wide = preprocess('preprocess = { interpolation = "bicubic", mean = [0.5, 0.5, 0.5] }')
    assert (wide.interpolation, wide.resize, wide.mean) == ("bicubic", 256, (0.5, 0.5, 0.5))
    layered = registry(
        entry(
            f"preprocess = {{ size = 448 }}\n"
            f'weights = [{{ {WEIGHTS}, preprocess = {{ crop = "border" }} }}]'
        )
    ).get("leaf")
    assert layered.preprocess.crop == "center"
    assert layered.weights[0].preprocess == zoo.Preprocess(448, 448, "border")


def test_heads_replace_inherited_ones(registry):
    base = "inception_v3"
    one = registry(entry('head = "fc"', base)).get("leaf")
    # The output is inherited from the head of the base.
    assert one.heads == (zoo.Head("fc", output="logits", in_features=2048),)
    two = registry(entry('heads = ["fc", "AuxLogits.fc"]', base)).get("leaf")
    assert two.heads == registry("").get(base).heads
    table = '{ path = "AuxLogits.fc", role = "aux", loss_weight = 1, output = 1 }'
    three = registry(entry(f'heads = ["Mixed_7c[0]", {table}]', base)).get("leaf")
    assert three.heads[0] == zoo.Head("Mixed_7c[0]")
    assert three.heads[1] == zoo.Head("AuxLogits.fc", "aux", 1, 1)


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ('builder = "os:system"', 4, "unknown key .*builder; known keys: extends"),
        ('header = "fc"', 4, "did you mean head"),
        ("license = 3", 4, "license must be of type str, not 3"),
        ('license = " "', 4, "license is empty"),
        ('head = "fc"\nheads = ["fc"]', 5, "excludes head"),
        ('head = "fc[]"', 4, "not a module path"),
        ("heads = []", 4, "heads is empty"),
        ("heads = [3]", 4, "must be of type table, not 3"),
        ('heads = [{ role = "main" }]', 4, "has no path"),
        ('heads = [{ path = "fc", role = "maine" }]', 4, "did you mean main"),
        ('heads = [\n"fc",\n{ path = "x", rule = "aux" }]', 6, "did you mean role"),
        ('heads = ["fc", "conv1"]', 4, "one main head, then any others"),
        ('heads = [{ path = "fc", role = "aux" }]', 4, "one main head"),
        ('heads = ["fc", { path = "fc", role = "aux" }]', 4, "names a head twice"),
        ('heads = [{ path = "fc", loss_weight = -1 }]', 4, "a number from 0"),
        ('heads = [{ path = "fc", loss_weight = nan }]', 4, "a number from 0"),
        ('head = ["fc"]', 4, "head must be of type str"),
        ('preprocess = { crop = "centre" }', 4, "did you mean center"),
        ("preprocess = { sizes = 3 }", 4, "did you mean size"),
        ("preprocess = { size = 0 }", 4, "positive"),
        ("preprocess = { size = true }", 4, "of type int or array, not True"),
        ("preprocess = { size = 100000 }", 4, "from 1 to 16384"),
        ("preprocess = { size = [224] }", 4, "positive numbers"),
        ("preprocess = { resize = 0 }", 4, "from 1 to 16384"),
        ("preprocess = { mean = [0.5] }", 4, "one length"),
        ('preprocess = { mean = ["a", "b", "c"] }', 4, "mean must be"),
        ("preprocess = { std = [0, 1, 1] }", 4, "std positive"),
        ("weights = []", 4, "weights is empty"),
        ('[backbones."house/leaf".weights]\ntag = "x"', 4, "weights must be of type array"),
        ('weights = [{ tag = "v1", file = "a" }]', 4, "has no sha256"),
        (f'weights = [{{ file = "a", sha256 = "{SHA}" }}]', 4, "has no tag"),
        ('weights = [{ tag = "v1", file = "a", sha256 = "abcd" }]', 4, "64 hexadecimal digits"),
        (f"weights = [\n{{ {WEIGHTS} }},\n{{ {WEIGHTS} }}]", 6, "'v1' is taken twice"),
        (f'weights = [{{ {WEIGHTS}, url = "https://a/b" }}]', 4, "exactly one of file, url"),
        (f'weights = [{{ tag = "v1", sha256 = "{SHA}" }}]', 4, "exactly one of file, url"),
        (f'weights = [{{ tag = "auto", file = "a", sha256 = "{SHA}" }}]', 4, "auto and none"),
        (f'weights = [{{ tag = "a/b", file = "a", sha256 = "{SHA}" }}]', 4, "letters, digits"),
        (f'weights = [{{ tag = "a.pth", file = "a", sha256 = "{SHA}" }}]', 4, "name of a file"),
        (f'weights = [{{ tag = "a", url = "file:///a", sha256 = "{SHA}" }}]', 4, "http or https"),
        (f'weights = [{{ tag = "a", hub = "ab", sha256 = "{SHA}" }}]', 4, "org/repository"),
        (
            f'weights = [{{ {WEIGHTS}, classes = "os:environ" }}]',
            4,
            "classes must be of type array",
        ),
        (f"weights = [{{ {WEIGHTS}, classes = [1, 2] }}]", 4, "names of the classes"),
        (f'weights = [{{ {WEIGHTS}, classes = ["a", "a"] }}]', 4, "names 'a' twice"),
        (f'weights = [{{ {WEIGHTS}, classes = ["a"], num_classes = 2 }}]', 4, "num_classes is 2"),
        (f"weights = [{{ {WEIGHTS}, num_classes = -1 }}]", 4, "num_classes must be from 0"),
        (f'weights = [{{ {WEIGHTS}, convert = "a:b" }}]', 4, "unknown key .*convert"),
        (f"weights = [{{ {WEIGHTS}, kwargs = {{}} }}]", 4, "unknown key .*kwargs"),
        (f'weights = [{{ {WEIGHTS}, like = "IMAGENET1K_V9" }}]', 4, "did you mean IMAGENET1K_V1"),
        (f"weights = [{{ {WEIGHTS}, preprocess = {{ crop = 'x' }} }}]", 4, "center, squash"),
    ],
)
def test_invalid_entry_error_names_file_line_and_key(registry, tmp_path, body, line, message):
    with pytest.raises(zoo.RegistryError, match=message) as caught:
        registry(entry(body)).get("house/leaf")
    assert f"{tmp_path / '0.toml'}, line {line}: " in str(caught.value)
    assert 'backbones."house/leaf"' in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            entry(base="torchvision/resnet81"),
            3,
            r"extends names no base: .*'torchvision/resnet81'.*did you mean torchvision/resnet18",
        ),
        (entry(base="torchvison/resnet18"), 3, "did you mean torchvision/resnet18"),
        (entry(base="house/leaf"), 3, "is circular: house/leaf extends house/leaf"),
        (
            entry(base="oak") + entry(base="house/leaf", id="house/oak"),
            3,
            "is circular: house/leaf extends house/oak extends house/leaf",
        ),
        ('[backbones."house/leaf"]\nlicense = "x"', 2, "names no backbone to extend"),
        ("[backbones.house.leaf]\nextends = 'x'", 2, "is no id of a backbone"),
        (entry(id="house/a/b"), 2, "is no id of a backbone"),
        ("[backbones]\n'house/leaf' = 3", 3, "must be of type table"),
        (entry(id="torchvision/leaf"), 2, "source name of plugin torchvision"),
        (entry(id="timm/leaf"), 2, "source name of plugin timm"),
        (entry("preprocess = { size = 256 }", "vit_b_32"), 4, "takes no size but 224x224"),
        (entry("preprocess = { size = 20 }", "inception_v3"), 4, "takes at least 75 pixels"),
    ],
)
def test_entry_that_does_not_fit_base_is_refused(registry, tmp_path, text, line, message):
    with pytest.raises(zoo.RegistryError, match=message) as caught:
        registry(text).get("house/leaf")
    assert f"{tmp_path / '0.toml'}, line {line}: " in str(caught.value)


def test_unknown_base_fails_only_dependent_lookups(registry):
    loaded = registry(entry(base="torchvision/resnet81") + entry(id="house/oak"))
    assert loaded.get("oak").id == "house/oak"
    assert loaded.find(["resnet18"])
    with pytest.raises(zoo.RegistryError, match="resnet81"):
        loaded.find()


@pytest.mark.parametrize("base", ["timm/resnet18", "house/base", "resnet18d"])
def test_find_skips_backbones_whose_base_is_off(registry, caplog, monkeypatch, base):
    text = entry(base=base) + entry(id="house/oak") + entry(base="timm/resnet18", id="house/base")
    loaded = registry(text)
    with caplog.at_level(logging.WARNING, "zoo"):
        assert [b.id for b in loaded.find(source="house")] == ["house/oak"]
        assert [b.id for b in loaded.find(source="house")] == ["house/oak"]
        assert len(loaded) == 90
    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == 2
    assert f"house/leaf extends {base}" in warnings[0]
    assert "timm is switched off" in warnings[0]
    with pytest.raises(zoo.BrokenPlugin, match="plugin timm is switched off") as caught:
        loaded.get("leaf")
    assert caught.value.exit_code == 5
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(zoo.BrokenPlugin, match="switched off"):
        registry(text).find()


def test_find_skips_backbones_whose_base_plugin_failed(registry, install, caplog):
    install("bad", "raise RuntimeError('no')")
    loaded = registry(entry(base="bad/net"))
    assert loaded.find(source="house") == []
    assert "house/leaf extends bad/net: " in caplog.text
    assert "RuntimeError: no" in caplog.text
    with pytest.raises(zoo.BrokenPlugin, match="RuntimeError: no"):
        loaded.get("leaf")
    assert loaded.get("resnet18").id == "torchvision/resnet18"
    with pytest.raises(zoo.RegistryError, match="source name of plugin bad"):
        registry(entry(id="bad/leaf"))


def test_bare_name_of_two_derived_backbones_is_ambiguous(registry):
    loaded = registry(entry() + entry(id="mill/leaf") + entry(base="leaf", id="mill/oak"))
    with pytest.raises(zoo.UsageError, match="house/leaf, mill/leaf"):
        loaded.get("leaf")
    with pytest.raises(zoo.RegistryError, match=r"extends names no base: .*ambiguous"):
        loaded.get("oak")


def test_derived_backbone_inherits_refuse(registry, install):
    install(
        "encoders",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("enc", "torch.nn:Identity", (), zoo.Preprocess(32), refuse="no head")
        """,
    )
    assert registry(entry(base="enc")).get("leaf").refuse == "no head"
    with pytest.raises(zoo.RegistryError, match=r"line 4: .*cannot be fine-tuned: no head"):
        registry(entry('head = "fc"', "enc")).get("leaf")


def test_suggestions_include_derived_backbones(registry):
    with pytest.raises(zoo.UnknownBackbone, match="house/oakleaf"):
        registry(entry(id="house/oakleaf")).get("house/oakleef")
    with pytest.raises(zoo.UsageError, match="did you mean house"):
        registry(entry()).find(source="hous")
