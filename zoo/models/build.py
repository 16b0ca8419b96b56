"""Building a backbone: the network as published, its weights, then its heads.

Networks are built as they were published and cut afterwards, since pretrained weights and another
number of classes are refused by 80 of torchvision's 80 builders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BrokenBackbone, UsageError, WeightsError
from zoo.modelfile import KEY, ModelCard, read_model, read_tensors
from zoo.models.build_options import UNCHANGED, Changes
from zoo.models.heads import head_classes, replace_heads, resolve_head
from zoo.models.license_notice import tell_terms
from zoo.models.plugin_errors import guard
from zoo.models.provenance import MADE, Base, Made
from zoo.models.state_dict import load_state
from zoo.models.weights import fetch
from zoo.options import HeadSpec
from zoo.spec import Backbone, Preprocess, Weights, resolve_target

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def find_published(backbone: Backbone, choice: str | None) -> Weights | None:
    """Return the published weights that a choice means; None for random ones or a file.

    Args:
        backbone: whose weights.
        choice: None, `none`, `auto`, a tag, or a `.safetensors` file.

    Raises:
        UsageError: no published weights have the tag.
    """
    if choice is None or choice == "none" or is_file_choice(choice):
        return None
    if choice == "auto":
        return backbone.weights[0] if backbone.weights else None
    return backbone.find_weights(choice)


def is_file_choice(choice: str | None) -> bool:
    """Whether a choice of weights names a file rather than a tag."""
    return choice is not None and ("/" in choice or Path(choice).suffix in FILE_SUFFIXES)


def check_trainable(backbone: Backbone) -> None:
    """Refuse a backbone that has no head to replace.

    Raises:
        UsageError: says why.
    """
    if backbone.refuse:
        hint = "`zoo list` marks those that cannot be fine-tuned"
        raise UsageError(f"{backbone.id} cannot be fine-tuned: {backbone.refuse}", hint)


def build_network(backbone: Backbone, kwargs: Mapping[str, Any]) -> nn.Module:
    """Call a backbone's builder and check what came back.

    Raises:
        BrokenPlugin: the builder cannot be imported.
        BrokenBackbone: it fails, or returns no network.
    """
    builder = resolve_target(backbone.builder, f"backbone {backbone.id}")
    with guard(f"{backbone.id} does not build"):
        model = builder(weights=None, **kwargs)
        if not isinstance(model, nn.Module):
            raise BrokenBackbone(f"{backbone.id} built a {type(model).__name__}, no torch module")
        state = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise BrokenBackbone(f"{backbone.id} has {odd[0]!r} in its state dict, which is no tensor")
    if next(model.parameters(), None) is None:
        raise BrokenBackbone(f"{backbone.id} has no parameters")
    return model


@dataclass(frozen=True)
class Setting:
    """What a choice of weights says about the network beside its tensors.

    Args:
        published: the weights, where they are published ones.
        kwargs: builder arguments.
        preprocess: from image to input.
        reason: where the preprocess is from.
        license: of the weights; None where it is not stated.
    """

    published: Weights | None
    kwargs: Mapping[str, Any]
    preprocess: Preprocess
    reason: str
    license: str | None = None


def setting_of(backbone: Backbone, choice: str | None, changes: Changes = UNCHANGED) -> Setting:
    """Return what the network must be built with, and fed, for a choice of weights.

    A state dict does not say it (`transform_input`, image size). A model file of zoo's does; any
    other file of a user's is taken for what the default weights are.

    Args:
        backbone: with the changes applied.
        choice: of weights.
        changes: that were asked for, and stand above what a model file says.

    Raises:
        UsageError: no published weights have the tag.
        WeightsError: a model file cannot be read, or is of another backbone.
    """
    published = find_published(backbone, choice)
    if choice is None or not is_file_choice(choice):
        kwargs = {**backbone.kwargs, **(published.kwargs if published else {})}
        reason = "of these weights" if published else "the backbone's own"
        license = published.license if published else None
        return Setting(published, kwargs, backbone.preprocess_for(published), reason, license)
    if KEY in read_tensors(Path(choice)).metadata:
        card, _ = read_model(Path(choice))
        if card.backbone != backbone.id:
            hint = f"`zoo finetune {card.backbone}` can start from it"
            raise WeightsError(f"{choice} is a model of {card.backbone}, not {backbone.id}", hint)
        check_card(card, backbone, choice)
        kwargs = {**card.kwargs, **changes.kwargs(backbone)}
        preprocess = changes.preprocess(card.preprocess)
        return Setting(None, kwargs, preprocess, "of the model file", card.base_license)
    like = backbone.weights[0] if backbone.weights else None
    kwargs = {**backbone.kwargs, **(like.kwargs if like else {})}
    reason = f"of {like.tag}, which the file is taken to be like" if like else "the backbone's own"
    return Setting(None, kwargs, backbone.preprocess_for(like), reason)


def check_card(card: ModelCard, backbone: Backbone, source: str | Path) -> None:
    """Refuse a model file that would build its backbone in a way the adapter does not know.

    Builder arguments reach a library's own code, which may open files or the network by them, so
    a file from a stranger must not choose them.

    Raises:
        WeightsError: an argument or a head is none of this backbone's.
    """
    known = [backbone.kwargs, *(weights.kwargs for weights in backbone.weights)]
    known.append({backbone.image_size: card.preprocess.height} if backbone.image_size else {})
    known.append({backbone.in_chans: card.preprocess.channels} if backbone.in_chans else {})
    for key, value in card.kwargs.items():
        if not any(key in kwargs and _plain(kwargs[key]) == _plain(value) for kwargs in known):
            message = f"{source} wants {backbone.id} built with {key}={value!r}"
            raise WeightsError(message, "its adapter knows no such argument; the file is refused")
    try:
        placed = Changes(head=HeadSpec.from_dict(card.new_head)).placed(backbone)
    except (UsageError, TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{source} has a damaged description: its head: {error}") from error
    paths = [head.module_path for head in placed.heads]
    if [head.module_path for head in card.heads] != paths:
        raise WeightsError(f"{source} names other heads than {backbone.id}: {', '.join(paths)}")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _load_published(model: nn.Module, backbone: Backbone, weights: Weights) -> Base:
    published = fetch(backbone, weights)
    _widen(model, backbone, weights, published.tensors)
    try:
        found = load_state(model, published.tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"weights {weights.tag!r} do not fit {backbone.id}: {error}") from error
    missing: list[str] = list(found.missing_keys)
    untrained: tuple[str, ...] = ()
    if weights.features_only and backbone.heads:
        # Published without their classifier; its layers keep their random start.
        head = backbone.heads[0].module_path
        top = f"{head.partition('.')[0]}."
        layers = {name.rpartition(".")[0] for name in missing if name.startswith(top)}
        untrained = tuple(sorted(layers - {head}))
        missing = [name for name in missing if not name.startswith(top)]
    if missing or found.unexpected_keys:
        odd = ", ".join([*missing, *found.unexpected_keys][:4])
        raise WeightsError(f"weights {weights.tag!r} do not fit {backbone.id}: {odd}")
    license = weights.license or published.license
    return Base("published", weights.tag, published.sha256, license, untrained=untrained)


def _widen(
    model: nn.Module, backbone: Backbone, weights: Weights, tensors: Mapping[str, Tensor]
) -> None:
    """Replace the heads where published weights have another number of classes than was built."""
    if not backbone.heads or not weights.num_classes:
        return
    leaf = resolve_head(model, backbone.heads[0].path)
    held = tensors.get(f"{leaf}.weight")
    built = head_classes(model.get_submodule(leaf))
    if held is not None and built != weights.num_classes == len(held):
        preprocess = backbone.preprocess_for(weights)
        replace_heads(model, backbone.heads, weights.num_classes, preprocess)


def load_own_file(model: nn.Module, backbone: Backbone, path: Path) -> Base:
    """Load a state dict that the user gave; a head that does not fit whole is left out.

    Raises:
        WeightsError: it cannot be opened, or fits elsewhere than in the heads only.
    """
    file = read_tensors(path)
    own = model.state_dict()
    heads = [resolve_head(model, head.path) for head in backbone.heads]

    def head_of(name: str) -> str | None:
        return next((head for head in heads if name.startswith(f"{head}.")), None)

    def fits(name: str) -> bool:
        return name in own and name in file.tensors and own[name].shape == file.tensors[name].shape

    names = {*own, *file.tensors}
    unfit = {head_of(name) for name in names if not fits(name)}
    wrong = sorted(name for name in names if not fits(name) and head_of(name) is None)
    if wrong:
        some = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        hint = "give a file with the backbone's own state dict"
        raise WeightsError(f"{path} does not fit {backbone.id}, {len(wrong)} entries: {some}", hint)
    kept = {name: tensor for name, tensor in file.tensors.items() if head_of(name) not in unfit}
    load_state(model, kept, strict=False)
    license = read_model(path)[0].base_license if KEY in file.metadata else None
    left_out = tuple(sorted(file.tensors.keys() - kept.keys()))
    return Base("file", None, file.sha256, license, left_out)


def _load_chosen(
    model: nn.Module, backbone: Backbone, choice: str | None, published: Weights | None
) -> Base:
    if published is not None:
        return _load_published(model, backbone, published)
    if choice is not None and is_file_choice(choice):
        return load_own_file(model, backbone, Path(choice))
    return Base("none")


def build_with_base(
    backbone: Backbone,
    classes: int | None,
    choice: str | None,
    seed: int | None = None,
    changes: Changes = UNCHANGED,
) -> tuple[nn.Module, Base]:
    """Build a network and say which weights it starts from.

    Args:
        backbone: what to build, as it is described.
        classes: width of the new heads; None leaves the published ones.
        choice: None or `none` for random weights, `auto`, a published tag, or a file.
        seed: makes random weights and new heads a function of it; None leaves torch's generator.
        changes: image size, channels and new head that were asked for.

    Raises:
        UsageError: no such tag, the changes cannot be had, or the backbone cannot be fine-tuned
            and `classes` is given.
        WeightsError: the weights cannot be reached or are refused.
        BrokenBackbone: it does not build, or is not what its adapter says.
    """
    if classes is not None:
        check_trainable(backbone)
    changed = changes.apply(backbone)
    placed = changes.placed(changed)
    setting = setting_of(changed, choice, changes)
    published = setting.published
    if choice == "auto" and published is None:
        hint = "give --weights FILE or --weights none"
        raise WeightsError(f"no weights are published for {backbone.id}", hint)
    _seed(seed)
    model = build_network(changed, setting.kwargs)
    # A user's file may hold the new heads, so it is loaded after they are in place.
    own = published is None and choice is not None and is_file_choice(choice)
    base = Base("none") if own else _load_chosen(model, changed, choice, published)
    # Again, since converting weights for the first time may have drawn numbers in between.
    _seed(seed)
    kept = own and changes.head.plain and _classes_of(model, changed) == [classes]
    before = None
    if classes is not None and not kept:
        before = _classes_of(model, changed)[-1]
        replace_heads(model, placed.heads, classes, setting.preprocess, changes.head)
    else:
        placed = changed
    if own:
        base = _load_chosen(model, placed, choice, None)
    made = Made(placed, setting.kwargs, setting.preprocess, base, changes.head, before)
    model.__dict__[MADE] = made
    told = (
        f"weights {base.tag} of {backbone.id} are"
        if base.tag
        else f"{choice} is trained from weights"
    )
    tell_terms(base.license, told)
    return model, base


def _seed(seed: int | None) -> None:
    if seed is not None:
        torch.manual_seed(seed)


def _classes_of(model: nn.Module, backbone: Backbone) -> Sequence[int | None]:
    leaves = [resolve_head(model, head.path) for head in backbone.heads]
    return sorted({head_classes(model.get_submodule(leaf)) or 0 for leaf in leaves})


def build_backbone(
    backbone: Backbone,
    classes: int | None,
    weights: str | Path | None,
    *,
    head: str | None,
    head_at: str | None,
    input_size: int | None,
    in_chans: int | None,
) -> nn.Module:
    """Build a network; what `Backbone.build` calls.

    Raises:
        UsageError, WeightsError, BrokenBackbone, BrokenPlugin: as `build_with_base`.
    """
    if (head or head_at) and classes is None:
        raise UsageError("a new head needs classes", "give classes=N")
    if classes is not None and classes < 1:
        raise UsageError(f"a head cannot end in {classes} classes", "1 is the least")
    changes = Changes(input_size, in_chans, HeadSpec.parse(head, head_at))
    choice = None if weights is None else str(weights)
    model, _ = build_with_base(backbone, classes, choice, changes=changes)
    return model
