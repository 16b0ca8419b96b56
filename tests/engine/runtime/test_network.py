"""A network on its device."""

import torch

import zoo
from zoo.engine.runtime.network import Network
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.task import ImageClassification


def test_weights_and_inputs_have_memory_format(tinynet):
    module = zoo.get(tinynet).build(classes=3).eval()
    made = provenance_of(module)
    cpu = torch.device("cpu")
    network = Network(
        module, made.backbone.heads, made.preprocess, cpu, "fp32", ImageClassification()
    )
    first = next(part for part in module.modules() if isinstance(part, torch.nn.Conv2d))
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    size = made.preprocess.height, made.preprocess.width
    network.forward(torch.zeros(2, 3, *size, dtype=torch.uint8))
    for tensor in (first.weight, seen[0]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_heads_compute_in_float32_under_bf16(tinynet):
    torch.manual_seed(0)
    module = zoo.get(tinynet).build(classes=2000).eval()
    made = provenance_of(module)
    network = Network(
        module,
        made.backbone.heads,
        made.preprocess,
        torch.device("cpu"),
        "bf16",
        ImageClassification(),
    )
    head, calls = module.head.fc, []
    head.register_forward_hook(lambda _, inputs, output: calls.append((*inputs, output)))
    size = made.preprocess.height, made.preprocess.width
    with torch.no_grad():
        network.forward(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
        [(features, logits)] = calls
        exact = torch.nn.functional.linear(features.float(), head.weight, head.bias)
    # The frozen part computes in bf16, in whose 8-bit significand most logits would tie.
    assert torch.equal(features, features.bfloat16().float())
    assert torch.equal(logits, exact)
    assert len(logits[0].unique()) > 1990
    assert len(logits[0].bfloat16().unique()) < 1500
