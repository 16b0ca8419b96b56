"""What a builder returns is checked, and what it sets in torch is restored."""

import pytest
import torch
from safetensors.torch import load_file

import zoo

BUILDERS = """
    import zoo

    KINDS = {kinds}

    @zoo.hookimpl
    def zoo_register_backbones():
        for kind in KINDS:
            small = zoo.Preprocess(size=32, resize=36)
            yield zoo.Backbone(
                kind, "plugin_builders:build", (zoo.Head("fc"),), small, kwargs={{"kind": kind}}
            )

    def build(weights=None, *, kind):
        import plugin_builders_torch
        return plugin_builders_torch.build(kind)
"""

NETWORKS = """
import functools

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.body = (nn.LazyConv2d if kind == "lazy" else functools.partial(nn.Conv2d, 3))(8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 7)
        self.spare = nn.Linear(8, 7)
        if kind == "integers":
            self.levels = nn.Parameter(torch.arange(4), requires_grad=False)
        if kind == "sparse":
            self.register_buffer("table", torch.eye(4).to_sparse())
        if kind == "expanded":
            self.norm.weight = nn.Parameter(torch.ones(1).expand(8))

    def forward(self, x):
        if self.kind == "in_place":
            self.norm.bias.data.add_(1)
        if self.kind == "thawing":
            self.requires_grad_(True)
        x = self.norm(self.body(x)).mean((2, 3))
        if self.kind == "headless":
            return self.spare(x)
        if self.kind == "short":
            return self.fc(x)[1:]
        return self.fc(x)


@functools.cache
def once(kind):
    return Net(kind)


def build(kind):
    if kind == "global_dtype":
        torch.set_default_dtype(torch.float64)
    if kind == "global_no_grad":
        torch.set_grad_enabled(False)
    if kind == "cached":
        return once(kind)
    if kind == "inference":
        with torch.inference_mode():
            return Net(kind)
    with torch.device("meta" if kind == "meta" else "cpu"):
        net = Net(kind)
    if kind == "double":
        return net.double()
    if kind == "compiled":
        return torch.compile(net)
    if kind == "parallel":
        return nn.DataParallel(net)
    return torch.jit.trace(net, torch.ones(2, 3, 32, 32)) if kind == "traced" else net
"""

REFUSED = {
    "sparse": "'table' in its state dict, which is sparse",
    "expanded": "'norm.weight' in its state dict, which has several elements at one place",
    "inference": "'body.weight' in its state dict, which was created in inference mode",
    "meta": "'body.weight' in its state dict, which has no values",
    "double": "parameters of float64, and its input is float32",
    "global_dtype": "parameters of float64, and its input is float32",
    "compiled": "a wrapper of a network, OptimizedModule",
    "parallel": "a wrapper of a network, DataParallel",
    "traced": "a wrapper of a network, TopLevelTracedModule",
}
IN_TRAINING = {
    "in_place": ("head", "changes 1 frozen tensor, first norm.bias"),
    "thawing": ("head", "changes 6 frozen tensors, first body.weight"),
    "headless": ("head", "the output of the network has no gradient"),
    "short": ("all", "the network returned [0-9]+ outputs for [0-9]+ images"),
}
USED = ("global_no_grad", "lazy", "integers")
KINDS = [*REFUSED, *IN_TRAINING, *USED, "cached"]


@pytest.fixture(autouse=True)
def builders(install, tmp_path):
    (tmp_path / "site" / "plugin_builders_torch.py").write_text(NETWORKS)
    install("builders", BUILDERS.format(kinds=KINDS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_unfit_result_of_builder_is_refused(kind):
    with pytest.raises(zoo.BrokenBackbone, match=f"builders/{kind} .*{REFUSED[kind]}"):
        zoo.get(f"builders/{kind}").build(classes=3)
    assert torch.get_default_dtype() == torch.float32


def test_network_that_is_built_once_is_refused():
    backbone = zoo.get("builders/cached")
    first = backbone.build(classes=3)
    with pytest.raises(zoo.BrokenBackbone, match="returned the same Net again"):
        backbone.build(classes=5)
    assert first.fc.out_features == 3


@pytest.mark.parametrize("kind", USED)
def test_unusual_network_trains(kind, image_folder, tmp_path):
    run = zoo.finetune(
        f"builders/{kind}", data=image_folder, weights="none", epochs=1, out=tmp_path / "run"
    )
    assert torch.is_grad_enabled()
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert tensors["body.weight"].shape == (8, 3, 3, 3)
    assert run.model().predict(image_folder / "test" / "flag")


@pytest.mark.parametrize("kind", IN_TRAINING)
def test_network_that_cannot_train_is_reported(kind, image_folder, tmp_path):
    policy, message = IN_TRAINING[kind]
    for _ in range(2):
        with pytest.raises(zoo.BrokenBackbone, match=message):
            zoo.finetune(
                f"builders/{kind}",
                data=image_folder,
                weights="none",
                train=policy,
                epochs=1,
                out=tmp_path / "run",
            )
