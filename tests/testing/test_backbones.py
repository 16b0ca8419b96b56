"""The suite on a small member of each family of torchvision's, and on timm's oddities.

Plugins hold it against themselves in tests of their own; all are in docs/conformance.md.
"""

import pytest

from zoo.registry.registry import load_registry
from zoo.testing.fresh import in_fresh_process
from zoo.testing.subject import Subject
from zoo.testing.suite import hold_all

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
    "coat_tiny",  # tensors that share memory
    "crossvit_tiny_240",  # several heads, fused
    "deit_tiny_distilled_patch16_224",  # averaged with a distilled head
    "efficientvim_m1",  # several heads with learned weights
    "levit_384_s8",  # a distilled head that timm's entry leaves out; batch norm before each
    "levit_conv_128s",
    "mobilenetv4_conv_small",  # a convolution as head
    "qwen3_vit_88m_enc",  # no head
    "repvit_m0_9",
    "resnet50_clip",  # attention pooling
    "volo_d1_224",  # an auxiliary head that is added to the logits
    "vit_small_patch14_dinov2",  # an Identity
]
NAMES = [f"torchvision/{n}" for n in TORCHVISION] + [f"timm/{n}" for n in TIMM]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_every_promise(name):
    registry = load_registry()
    fresh = in_fresh_process() if name == "torchvision/inception_v3" else None
    subject = Subject(registry.get(name), registry, fresh)
    broken = [str(found) for found in hold_all(subject) if found.broken]
    assert not broken, "\n".join(broken)


def test_every_family_of_torchvision_has_a_member_here():
    from zoo.builtin.torchvision import HEADS

    left = [start for start in HEADS if not any(name.startswith(start) for name in TORCHVISION)]
    assert left == []
