"""Descriptions of timm's backbones, from timm's registry, without building a network.

Parameter counts and head widths, which timm does not publish, are measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from timm.data import infer_imagenet_subset
from timm.models import (
    PretrainedCfg,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    list_models,
    split_model_name_tag,
)

from zoo.builtin.measured import read_measured, with_widths
from zoo.spec import Backbone, Head, Preprocess, Weights

BUILD_MODULE = "zoo.builtin.timm_build"

# timm's config lists one head for these two, but builds a second one for distillation.
HEAD_PATHS: Mapping[str, tuple[str, ...]] = {
    "levit_384_s8": ("head.linear", "head_dist.linear"),
    "levit_conv_384_s8": ("head.linear", "head_dist.linear"),
}

# Encoders whose config inherits a classifier path from their classification variant. The configs
# of timm's other encoders have no classifier.
ENCODERS = frozenset({"gemma4_vit_167m_enc", "gemma4_vit_570m_enc", "mobilenetv5_300m_enc"})

NO_HEAD = "an encoder without a classification head, on which timm ignores num_classes in silence"

# timm sets another batch norm epsilon when it loads weights itself. The state dict does not contain
# it, and without it the published weights yield other logits.
WEIGHTS_KWARGS: Mapping[str, Mapping[str, Any]] = {"fbnetc_100": {"bn_eps": 1e-3}}

# By the subset that timm infers from the number of classes: the parts of a tag that confirm it, and
# the function that returns the class names. Unconfirmed are resmlp's `fb_dino` weights: trained
# without labels, listed with 1,000 classes.
CLASS_NAMES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "imagenet-1k": (("in1k",), "imagenet_1k"),
    "imagenet-12k": (("in12k",), "imagenet_12k"),
    "imagenet-21k-goog": (("in21k",), "imagenet_21k_goog"),
    "imagenet-21k-miil": (("in21k",), "imagenet_21k_miil"),
    "imagenet-22k": (("in22k", "in21k"), "imagenet_22k"),
    "imagenet-22k-ms": (("in22k", "in21k"), "imagenet_22k_ms"),
}


def enumerate_backbones() -> Iterator[Backbone]:
    """Yield every architecture that timm lists, with all of its published weights."""
    measured = read_measured("timm")
    for name in list_models():
        measurements = measured.get(name, {})
        default = get_pretrained_cfg(name) or PretrainedCfg()
        preprocess = _preprocess(default)
        heads = with_widths(_heads(name, default), measurements)
        yield Backbone(
            name=name,
            builder=f"{BUILD_MODULE}:build",
            heads=heads,
            preprocess=preprocess,
            weights=_weights(name, preprocess),
            kwargs={"name": name},
            params=measurements.get("params"),
            min_size=min(default.min_input_size[1:]) if default.min_input_size else None,
            fixed_size=default.fixed_input_size,
            image_size="img_size" if default.fixed_input_size else None,
            in_chans="in_chans",
            refuse=None if heads else NO_HEAD,
        )


def _heads(name: str, cfg: PretrainedCfg) -> tuple[Head, ...]:
    if name in ENCODERS or cfg.classifier is None:
        return ()
    listed = (cfg.classifier,) if isinstance(cfg.classifier, str) else tuple(cfg.classifier)
    return tuple(Head(path, role=_role(path)) for path in HEAD_PATHS.get(name, listed))


def _role(path: str) -> str:
    """Return `distill` for a distillation head, else `main`.

    VOLO's `aux_head` is a main head: timm adds half of its largest token logits to the other
    head's, in training and in evaluation, and returns one tensor, so it has no loss of its own.
    """
    return "distill" if any(step.endswith("_dist") for step in path.split(".")) else "main"


def _preprocess(cfg: PretrainedCfg) -> Preprocess:
    """Return the published evaluation transform, at the training size.

    Not at `test_input_size`: it takes up to twice the time for tenths of a percent, and a network
    of fixed size is built for `input_size`.
    """
    height, width = cfg.input_size[1:]
    return Preprocess(
        size=(height, width),
        resize=math.floor(min(height, width) / cfg.crop_pct),
        crop=cfg.crop_mode,
        interpolation=cfg.interpolation,
        mean=cfg.mean,
        std=cfg.std,
    )


def _weights(name: str, default: Preprocess) -> tuple[Weights, ...]:
    """Return the available weights in timm's order, its default first."""
    return tuple(
        _describe(name, split_model_name_tag(full_name)[1], cfg, default)
        for full_name, cfg in get_arch_pretrained_cfgs(name).items()
        if cfg.has_weights
    )


def _describe(name: str, tag: str, cfg: PretrainedCfg, default: Preprocess) -> Weights:
    own = _preprocess(cfg)
    hub, url = _location(cfg)
    return Weights(
        tag=tag,
        hub=hub,
        url=url,
        license=None if cfg.license == "unknown" else cfg.license,
        preprocess=None if own == default else own,
        num_classes=cfg.num_classes,
        classes=_class_names(tag, cfg),
        kwargs={"tag": tag, **WEIGHTS_KWARGS.get(name, {})},
        convert=f"{BUILD_MODULE}:convert",
        features_only=cfg.num_classes == 0,
    )


def _location(cfg: PretrainedCfg) -> tuple[str | None, str | None]:
    """Return the repository on the hub or, without one, the URL."""
    if cfg.hf_hub_id:
        return ":".join(filter(None, (cfg.hf_hub_id, cfg.hf_hub_filename))), None
    return None, cfg.url if isinstance(cfg.url, str | None) else cfg.url[0]


def _class_names(tag: str, cfg: PretrainedCfg) -> str | None:
    subset = infer_imagenet_subset({"num_classes": cfg.num_classes})
    markers, function = CLASS_NAMES.get(subset or "", ((), ""))
    return f"{BUILD_MODULE}:{function}" if any(marker in tag for marker in markers) else None
