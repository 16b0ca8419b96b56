"""Freezing by policy: tensors of frozen modules stay bit-identical."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import zoo
from zoo.models.freeze import inference_mode_of
from zoo.models.heads import resolve_head
from zoo.models.stages import find_stages
from zoo.tasks.classification.outputs import classification_loss, read_output

# One of each torchvision architecture, the smallest; at the smallest size that it takes.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 64,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 64,
    "swin_t": 32,
    "swin_v2_t": 64,
    "vgg11_bn": 32,
    "vit_b_16": 224,
}


def train_steps(model, backbone, size, steps=3):
    """Three steps as a user would write them, `model.train()` and weight decay included."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model.train()
        images = torch.rand(2, 3, size, size, generator=generator)
        outputs = read_output(model(images), backbone.heads, training=True)
        loss = sum(classification_loss(outputs, torch.tensor([0, 1])).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not same(before[name], tensor)}


def same(one, other):
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8)) if one.ndim else one == other


def settle(model, size):
    """Estimate batch-norm statistics for random weights on some images."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, 3, size, size))


@pytest.mark.parametrize("name", FAMILIES)
def test_freeze_policy_head_changes_heads_only(name):
    torch.manual_seed(0)
    backbone, size = zoo.get(f"torchvision/{name}"), FAMILIES[name]
    model = backbone.build(classes=2)
    settle(model, size)
    parameters = zoo.freeze(model, backbone, "head")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_steps(model, backbone, size, steps=2)
    leaves = [resolve_head(model, head.path) for head in backbone.heads]
    in_heads = {n for n, _ in model.named_parameters() if n.rpartition(".")[0] in leaves}
    assert changed(before, model) == in_heads
    assert len(parameters) == len(in_heads)


def test_freeze_preserves_batchnorm_statistics_in_train_mode():
    backbone = zoo.get("torchvision/resnet18")
    torch.manual_seed(0)
    model = backbone.build(classes=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    train_steps(model, backbone, 32)
    assert len(changed(before, model)) == 62
    model.load_state_dict(before)
    zoo.freeze(model, backbone)
    train_steps(model, backbone, 32)
    assert changed(before, model) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("policy", "inside"),
    [
        ("stages:1", ("layer4.", "fc.")),
        ("stages:2", ("layer3.", "layer4.", "fc.")),
        ("layer4[1],layer1.*", ("layer4.1.", "layer1.", "fc.")),
    ],
)
def test_freeze_policy_selects_modules(policy, inside):
    torch.manual_seed(0)
    backbone = zoo.get("torchvision/resnet18")
    model = backbone.build(classes=2)
    zoo.freeze(model, backbone, policy)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_steps(model, backbone, 64)
    assert changed(before, model) == {n for n in before if n.startswith(inside)}


class Prefixed(nn.Module):
    """A network with a module whose name begins with that of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc_norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.fc_norm(self.body(x)))


def test_freeze_compares_whole_names_of_modules():
    backbone = zoo.Backbone("x", "x:build", (zoo.Head("fc"),), zoo.Preprocess(size=32))
    model = Prefixed()
    assert len(zoo.freeze(model, backbone)) == 2
    model.train()
    model(torch.randn(4, 4))
    assert (model.fc_norm.training, model.fc.training) == (False, True)
    assert model.fc_norm.num_batches_tracked == 0
    model.eval()
    assert not any(part.training for part in model.modules())


def test_freeze_all_stages_is_policy_all(tinynet):
    model = zoo.get(tinynet).build(classes=3)
    assert len(zoo.freeze(model, policy="stages:2")) == len(list(model.parameters()))
    assert all(part.training for part in model.modules())
    assert len(zoo.freeze(model, policy="stages:1")) == 4 + 2 + 2
    with pytest.raises(zoo.UsageError, match="the network has 2 stages"):
        zoo.freeze(model, policy="stages:3")


def test_freeze_policy_all_after_head_unfreezes():
    torch.manual_seed(0)
    backbone = zoo.get("torchvision/resnet18")
    model = backbone.build(classes=2)
    zoo.freeze(model, backbone, "head")
    zoo.freeze(model, backbone, "all")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_steps(model, backbone, 64)
    assert changed(before, model) == set(before)


def test_freeze_does_not_change_eval_mode():
    backbone = zoo.get("torchvision/inception_v3")
    with torch.device("meta"):
        model = backbone.build(classes=2)
        zoo.freeze(model, backbone, "head")
        model.eval()
        model(torch.zeros(1, 3, 299, 299))
    assert not any(m.training for m in model.modules())


class Preceded(nn.Module):
    """A network inside another."""

    def __init__(self, network):
        super().__init__()
        self.network, self.norm = network, nn.BatchNorm2d(3)

    def forward(self, images):
        return self.network(self.norm(images))


class Assigning(nn.Module):
    """A network that assigns modes itself."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, images):
        return self.fc(self.norm(images).mean((2, 3)))

    def train(self, mode=True):
        for module in self.modules():
            module.training = mode
        return self


def distributed(model):
    """Wrap a network in DDP of one process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(model)


def exported(model):
    """Return an exported network, which contains the statistics as they were."""
    return torch.export.export(model.train(), (torch.zeros(4, 3, 32, 32),)).module()


@pytest.fixture
def process_group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# From a frozen network to a network in training mode, or a function of images.
USES = {
    "forward_features": lambda m: lambda x: m.train().forward_head(m.forward_features(x)),
    "a child alone": lambda m: m.conv1.train(),
    "inside another": lambda m: Preceded(m).train(),
    "children in a Sequential": lambda m: nn.Sequential(*m.children()).train(),
    "every module": lambda m: m.apply(lambda module: module.train()),
    "deepcopy": lambda m: copy.deepcopy(m).train(),
    "pickle": lambda m: pickle.loads(pickle.dumps(m)).train(),
    "DataParallel": lambda m: nn.DataParallel(m).train(),
    "DDP": lambda m: distributed(m).train(),
    "torch.compile": lambda m: torch.compile(m, backend="eager").train(),
    "torch.export": exported,
    "AveragedModel": lambda m: AveragedModel(m).train(),
}


@pytest.mark.parametrize("use", USES)
def test_frozen_modules_stay_in_eval_mode_in_any_use(use, process_group):
    torch.manual_seed(0)
    model = zoo.get("timm/resnet10t").build(classes=2)
    zoo.freeze(model, policy="head")
    network = USES[use](model)
    owner = network if isinstance(network, nn.Module) else model
    before = {name: tensor.clone() for name, tensor in owner.state_dict().items()}
    network(torch.rand(4, 3, 32, 32))
    after = changed(before, owner)
    assert {name for name in after if not name.startswith(("norm.", "n_averaged"))} == set()


def test_frozen_modules_stay_in_eval_mode_where_the_class_assigns_modes():
    backbone = zoo.Backbone(
        "assigning", "none:build", heads=(zoo.Head("fc"),), preprocess=zoo.Preprocess(8)
    )
    model = Assigning()
    zoo.freeze(model, backbone, "head")
    model.train()
    assert [model.training, model.norm.training, model.fc.training] == [False, False, True]
    zoo.freeze(model, backbone, "all")
    model.train()
    assert model.norm.training


def test_second_argument_may_be_a_policy():
    model = zoo.get("timm/resnet10t").build(classes=2)
    assert len(zoo.freeze(model, "all")) == len(list(model.parameters()))
    assert len(zoo.freeze(model, "head")) == 2
    with pytest.raises(zoo.UsageError, match="two policies: 'head' and 'all'"):
        zoo.freeze(model, "head", "all")
    with pytest.raises(zoo.UnknownBackbone, match="layer4"):
        zoo.freeze(model, "layer4")


def test_unmatched_pattern_suggests_nearest_module():
    backbone = zoo.get("torchvision/resnet18")
    with torch.device("meta"):
        model = backbone.build(classes=2)
    with pytest.raises(zoo.UsageError, match="did you mean layer4"):
        zoo.freeze(model, backbone, "layer44")
    with pytest.raises(zoo.UsageError, match="did you mean head"):
        zoo.freeze(model, backbone, "haed")


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("torchvision/resnet18", 5, ["layer4", "avgpool"]),
        ("torchvision/mobilenet_v3_small", 14, None),
        ("torchvision/convnext_tiny", 8, None),
        ("torchvision/vit_b_16", 13, ["encoder.layers.encoder_layer_11", "encoder.ln"]),
        ("timm/vit_tiny_patch16_224", 13, None),
        ("timm/convnext_atto", 5, None),
    ],
)
def test_find_stages_of_backbones(name, count, last):
    backbone = zoo.get(name)
    with torch.device("meta"):
        model = backbone.build()
    leaves = [resolve_head(model, head.path) for head in backbone.heads]
    stages = find_stages(model, leaves)
    assert len(stages) == count, stages
    if last:
        assert stages[-1] == last
    inside = [path for stage in stages for path in stage]
    assert len(inside) == len(set(inside))
    assert not set(inside) & set(leaves)


def test_inference_mode_output_does_not_depend_on_requires_grad():
    # A Linear on a slice of tokens, for which torch chooses the kernel by `requires_grad`.
    torch.manual_seed(0)
    layer, tokens = nn.Linear(64, 128), torch.randn(2, 51, 64)[:, :2]
    outputs = []
    for trainable in (True, False):
        layer.requires_grad_(trainable)
        with inference_mode_of(layer.train()):
            assert not layer.training
            outputs.append(layer(tokens))
        assert all(parameter.requires_grad == trainable for parameter in layer.parameters())
    assert torch.equal(*outputs)
    assert not outputs[0].requires_grad
