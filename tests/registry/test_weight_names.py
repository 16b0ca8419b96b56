"""Publishers' names of weights stand for a backbone with these weights as its default."""

import json

import pytest
import timm
from torchvision import models
from torchvision.models import segmentation

import zoo
from zoo.models.own_file import locate_weights
from zoo.registry.registry import load_registry

BUILDERS = [
    (name, models.get_model_weights(name))
    for module in (models, segmentation)
    for name in models.list_models(module=module)
]


def selected(name: str) -> tuple[str, str | None, str]:
    backbone = zoo.get(name)
    return backbone.id, backbone.selected, backbone.weights[0].tag


def test_torchvision_enumerations_mean_what_torchvision_means():
    names = {}
    for name, enumeration in BUILDERS:
        for entry in enumeration:
            names[str(entry)] = (f"torchvision/{name}", entry.name, entry.url)
        default = enumeration.DEFAULT
        names[f"{enumeration.__name__}.DEFAULT"] = (
            f"torchvision/{name}",
            default.name,
            default.url,
        )
    assert len(names) > 200
    for name, (backbone, tag, url) in names.items():
        assert selected(name) == (backbone, tag, tag)
        assert zoo.get(name).weights[0].url == url


def test_timm_full_names_mean_what_timm_means():
    names = [
        full_name for full_name in timm.list_models(pretrained=True) if "_clip_" not in full_name
    ][::60]
    assert len(names) > 20
    for full_name in names:
        name, _, tag = full_name.partition(".")
        repository = timm.get_pretrained_cfg(full_name).hf_hub_id
        queries = [full_name, f"timm/{full_name}"]
        queries += [f"hf_hub:{repository}", f"hf-hub:{repository}"] if repository else []
        for query in queries:
            assert selected(query) == (f"timm/{name}", tag, tag), query


def test_named_weights_bring_licence_and_keep_others():
    plain, named = zoo.get("timm/resnet18"), zoo.get("timm/resnet18.fb_swsl_ig1b_ft_in1k")
    assert named.license == named.weights[0].license == "cc-by-nc-4.0" != plain.license
    assert sorted(w.tag for w in named.weights) == sorted(w.tag for w in plain.weights)
    assert plain.find_weights(named.weights[0].tag) == named.weights[0]
    wide = zoo.get("timm/convnext_tiny.fb_in22k")
    assert (wide.weights[0].num_classes, wide.params) == (21841, None)


@pytest.mark.parametrize(
    ("backbone", "name", "tag"),
    [
        ("resnet50", "DEFAULT", "IMAGENET1K_V2"),
        ("resnet50", "IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("resnet50", "ResNet50_Weights.DEFAULT", "IMAGENET1K_V2"),
        ("timm/resnet18", "resnet18.a1_in1k", "a1_in1k"),
        ("timm/resnet18", "timm/resnet18.a1_in1k", "a1_in1k"),
        ("timm/resnet18", "hf_hub:timm/resnet18.a1_in1k", "a1_in1k"),
    ],
)
def test_weights_take_names_of_publishers(backbone, name, tag):
    described = zoo.get(backbone)
    assert described.find_weights(name).tag == tag
    assert locate_weights(name, described) is None  # it is not the path of a file
    assert locate_weights(f"runs/{tag}", described) is not None


@pytest.mark.parametrize(
    ("backbone", "name", "near"),
    [
        ("resnet50", "ResNet18_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet18", "IMAGENET1K_V2", "IMAGENET1K_V1"),
        ("timm/resnet18", "resnet34.a1_in1k", "a1_in1k"),
        ("timm/resnet18", "DEFAULT", "published: "),
    ],
)
def test_weights_of_other_backbones_are_refused(backbone, name, near, cli):
    with pytest.raises(zoo.UsageError, match="publishes no weights tagged") as caught:
        zoo.get(backbone).find_weights(name)
    assert near in caught.value.hint
    code, _, err = cli("finetune", backbone, "--weights", name, "--dry-run")
    assert (code, near in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet18.a1_in1", "timm/resnet18.a1_in1k"),
        ("ResNet50_Weights.IMAGENET1K_V9", "ResNet50_Weights.IMAGENET1K_V"),
        ("hf_hub:timm/resnet18.a9_in1k", ""),
        ("torchvision/resnet18.a1_in1k", "torchvision/resnet18.IMAGENET1K_V1"),
    ],
)
def test_unknown_name_of_weights_suggests_nearest(name, near):
    with pytest.raises(zoo.UnknownBackbone) as caught:
        zoo.get(name)
    assert near in str(caught.value)


def test_list_and_show_take_names_of_weights(cli):
    names = ("timm/resnet18.fb_swsl_ig1b_ft_in1k", "ResNet50_Weights.IMAGENET1K_V1")
    code, out, _ = cli("list", *names, "--json")
    listed = {item["id"]: item["license"] for item in json.loads(out)}
    assert (code, listed) == (0, {"torchvision/resnet50": None, "timm/resnet18": "cc-by-nc-4.0"})
    code, out, _ = cli("show", names[1], "--json")
    shown = json.loads(out)
    assert (code, shown["id"]) == (0, "torchvision/resnet50")
    assert [w["default"] for w in shown["weights"] if w["tag"] == "IMAGENET1K_V1"] == [True]
    assert zoo.list_backbones("timm/resnet18.a1_in1k") == [zoo.get("timm/resnet18.a1_in1k")]


def test_plan_starts_from_named_weights(image_folder):
    name = "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    for backbone in (name, zoo.get(name)):
        plan = zoo.plan(backbone, data=image_folder, device="cpu")
        assert (plan.backbone, plan.weights) == ("torchvision/shufflenet_v2_x0_5", "IMAGENET1K_V1")
        assert plan.reasons["weights"].startswith("auto: named with the backbone, ")


def test_derived_backbone_extends_named_weights(tmp_path):
    file = tmp_path / "registry.toml"
    file.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "timm/resnet18.a2_in1k"\n')
    leaf = load_registry(file=file).get("house/leaf")
    assert (leaf.weights[0].tag, leaf.selected) == ("a2_in1k", None)
    assert leaf.license == leaf.weights[0].license
