"""An installed plugin of tiny networks: one conforms, the others have one fault each."""

ADAPTER = """
    import zoo

    FAULTS = {faults}

    @zoo.hookimpl
    def zoo_register_backbones():
        heads = (zoo.Head("head.fc", output=0), zoo.Head("aux", role="aux", output=1))
        known = dict(
            builder="faulty_model:build", heads=heads, preprocess=zoo.Preprocess(size=32, resize=36)
        )
        yield zoo.Backbone("sound", **known, params=1622)
        for fault in FAULTS:
            yield zoo.Backbone(fault, **known, kwargs={{"fault": fault}})
        yield zoo.Backbone("wide", **known | {{"heads": (zoo.Head("head.fc", in_features=17),)}},
                           kwargs={{"aux": False}})
        containers = zoo.Head("head", output="logits"), zoo.Head("aux", role="aux", output="aux")
        yield zoo.Backbone("containers", **known | {{"heads": containers}},
                           kwargs={{"fault": "containers"}})
        yield zoo.Backbone("ten", **known, kwargs={{"num_classes": 10}})
        yield zoo.Backbone("counted", **known, params=5)
        yield zoo.Backbone("excepted", **known, kwargs={{"fault": "unused"}},
                           exceptions={{"everything_has_a_gradient": "one layer is a spare"}})
        yield zoo.Backbone("too_modest", **known,
                           exceptions={{"everything_has_a_gradient": "one layer is a spare"}})
        for conforming in ("cumulative", "lazy", "speechless", "subclass"):
            yield zoo.Backbone(conforming, **known, kwargs={{"fault": conforming}})
        yield zoo.Backbone("misnamed", **known, exceptions={{"everything_has_gradients": "so"}})
        yield zoo.Backbone("bare", **known | {{"heads": heads[:1]}}, kwargs={{"aux": False}},
                           weights=(
            zoo.Weights("w", url="https://example.org/w.pth", kwargs={{"fault": "soft"}}),))
        yield zoo.Backbone("licence", **known, weights=(
            zoo.Weights("w", url="https://example.org/w.pth", license="Unknown", num_classes=7),))
        yield zoo.Backbone("digest", **known, weights=(
            zoo.Weights("w", url="https://example.org/w.pth", sha256="5eed5eed", num_classes=7),))
        yield zoo.Backbone("starving", **known, kwargs={{"fault": "starving"}})
        yield zoo.Backbone("segfault", **known, kwargs={{"fault": "segfault"}})
        yield zoo.Backbone("deadly", **known, kwargs={{"fault": "deadly"}})
        yield zoo.Backbone("encoder", **known | {{"heads": ()}}, refuse="it has no head")
"""

MODEL = """
import os
import signal
import socket
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Output:
    logits: torch.Tensor
    aux: torch.Tensor | None = None


class Cosine(nn.Linear):
    def forward(self, x):
        weight = nn.functional.normalize(self.weight)
        return nn.functional.linear(nn.functional.normalize(x), weight, self.bias)


class Plain(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


class Net(nn.Module):
    def __init__(self, num_classes, fault, aux):
        super().__init__()
        self.fault = fault
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.head = nn.Module()
        self.head.fc = nn.Linear(16, num_classes)
        self.aux = nn.Linear(8, num_classes) if aux else None
        if fault == "containers":
            self.aux = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, num_classes))
        if fault == "soft":
            self.head.fc = nn.Softmax(1)
        self.num_classes = 99 if fault == "stale" else num_classes
        if fault == "unused":
            self.spare = nn.Linear(3, 3)
        if fault == "counting":
            self.register_buffer("calls", torch.zeros(()), persistent=False)
        if fault == "cosine":
            self.head.fc = Cosine(16, num_classes)
        if fault == "subclass":
            self.head.fc = Plain(16, num_classes)
        if fault == "normed":
            nn.utils.parametrizations.weight_norm(self.head.fc)
        if fault == "batchwise":
            self.stem[1] = nn.BatchNorm2d(8, track_running_stats=False)
        if fault == "cumulative":
            self.stem[1].momentum = None
        if fault == "lazy":
            self.body[0] = nn.LazyConv2d(16, 3, 2)
        if fault == "other_names":
            self.bottom = nn.Linear(2, 2) if num_classes == 7 else None

    def forward_features(self, x):
        if self.fault == "drifting":
            self.stem[1].training = True
        return self.body(self.stem(x))

    def train(self, mode=True):
        super().train(mode or self.fault == "sleepless")
        return None if self.fault == "speechless" else self

    def forward(self, x):
        if self.fault == "counting":
            self.calls += 1
        if self.fault == "segfault" and self.training and torch.is_grad_enabled():
            if self.stem[0].weight.requires_grad:
                os.kill(os.getpid(), signal.SIGSEGV)
        x = self.stem(x)
        middle = x.mean((2, 3))
        x = self.drop(self.body(x).mean((2, 3)))
        if self.fault == "restless":
            x = nn.functional.dropout(x, 0.5, training=True)
        if self.fault == "awake":
            x = nn.functional.dropout(x, 0.5, training=self.training)
        if self.fault == "other_names" and self.bottom is not None:
            x = x + self.bottom.weight.sum()
        logits = self.head.fc(x)
        if self.fault == "three":
            logits = logits[:, :, None]
        if not self.training or self.aux is None:
            return Output(logits) if self.fault == "containers" else logits
        extra = self.aux(middle)
        if self.fault == "containers":
            return Output(logits, extra)
        return logits, extra.detach() if self.fault == "detached" else extra


def build(weights=None, num_classes=7, fault=None, aux=True):
    if fault == "online":
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except OSError:
            pass
    if fault == "deadly":
        os._exit(3)
    if fault == "starving":
        raise MemoryError
    if fault == "crashing":
        raise RuntimeError("no such layer")
    return Net(num_classes, fault, aux)
"""

# By network: the check that fails, and a part of its detail.
FAULTS = {
    "online": ("builds_offline", "opens a network connection: socket."),
    "crashing": ("builds_offline", "no such layer"),
    "stale": ("replaced_like_for_like", "num_classes is 99"),
    "cosine": ("replaced_like_for_like", "a Cosine was replaced with a Linear"),
    "normed": ("replaced_like_for_like", "a ParametrizedLinear was replaced with a Linear"),
    "sleepless": ("outputs_have_the_classes", "is in train mode after eval()"),
    "batchwise": ("frozen_answers_the_same", "beside other images"),
    "three": ("outputs_have_the_classes", "not logits"),
    "counting": ("frozen_stays_frozen", "calls by up to"),
    "drifting": ("frozen_stays_frozen", "stem.1.running_mean by up to"),
    "restless": ("frozen_answers_the_same", "differs by"),
    "awake": ("frozen_answers_the_same", "in training and in use"),
    "detached": ("new_heads_learn", "the new aux.weight has no gradient"),
    "unused": ("everything_has_a_gradient", "2 of 14 parameters get no gradient"),
    "other_names": ("library_loads_it", "cannot load the file"),
}
OTHERS = {
    "wide": ("width_is_the_declared_one", "has 16 input features, 17 are declared"),
    "counted": ("builds_offline", "its description states 5"),
    "too_modest": ("everything_has_a_gradient", "excepts it (one layer is a spare), but it passes"),
    "bare": (
        "weights_fit",
        "a Softmax with nothing to replace, in the network of w",
    ),
    "licence": ("licences_and_digests", "'Unknown'"),
}
FAILED = FAULTS | OTHERS
