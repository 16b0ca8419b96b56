"""The suite on one backbone of each torchvision family, and on unusual ones of timm.

Plugins run it in their own tests; results of all backbones are in docs/conformance.md.
"""

import pytest

from zoo.registry.registry import load_registry
from zoo.testing.fresh import in_fresh_process
from zoo.testing.subject import Subject
from zoo.testing.suite import run_checks

TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "deeplabv3_mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "fcn_resnet50",
    "googlenet",
    "inception_v3",
    "lraspp_mobilenet_v3_large",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_32",
    "wide_resnet50_2",
]
TIMM = [
    "caformer_s18",  # a head of several layers, of which the last is replaced
    "coat_tiny",  # shared tensors
    "crossvit_tiny_240",  # several heads, fused
    "deit_tiny_distilled_patch16_224",  # averaged with a distilled head
    "efficientvim_m1",  # several heads with learned weights
    "levit_384_s8",  # a distilled head missing in timm's config; batch norm before each head
    "levit_conv_128s",
    "mobilenetv4_conv_small",  # a convolutional head
    "qwen3_vit_88m_enc",  # no head
    "repvit_m0_9",
    "resnet50_clip",  # attention pooling
    "volo_d1_224",  # an auxiliary head that is added to the logits
    "vit_small_patch14_dinov2",  # an Identity
]
NAMES = [f"torchvision/{n}" for n in TORCHVISION] + [f"timm/{n}" for n in TIMM]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_backbone_passes_every_check(name):
    registry = load_registry()
    if not registry.find([name]):
        pytest.skip("the installed version does not have it")
    fresh = in_fresh_process() if name == "torchvision/inception_v3" else None
    subject = Subject(registry.get(name), registry, fresh)
    failures = [str(finding) for finding in run_checks(subject) if finding.failed]
    assert not failures, "\n".join(failures)


def test_torchvision_list_covers_every_family():
    from zoo.builtin.torchvision import HEADS

    assert [prefix for prefix in HEADS if not any(n.startswith(prefix) for n in TORCHVISION)] == []
