"""A user's weights file: a state dict, or a model file of zoo, alone, in a run folder, or by name.

Where a path is expected, an existing file or folder comes before a registered name. Where a
backbone may be named too, a folder that is no run does not hide one of its name. `hf:OWNER/NAME` is
a file on the Hugging Face hub, which is downloaded into the hub's cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from zoo.errors import UnknownBackbone, UsageError, WeightsError
from zoo.modelfile import CHECKPOINTS, KEY, MODEL, UNFINISHED, ModelCard, check_present, parse_card
from zoo.models.hub import download_from_hub, is_hub_address
from zoo.options import HeadSpec
from zoo.options.readers import WEIGHTS_SUFFIXES
from zoo.registry.own_models import OwnModel, find_own_model
from zoo.registry.plugins import OFF
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tensorfile import OtherDigest, TensorFile, read_tensors

log = logging.getLogger("zoo")


@dataclass(frozen=True)
class OwnLocation:
    """Where a user's weights file is.

    Args:
        path: of the file.
        registered: the model that it was located by; None for a path.
    """

    path: Path
    registered: OwnModel | None = None

    def read(self) -> TensorFile:
        """Read the tensors; those of a registered model must have its digest.

        Raises:
            WeightsError: the file is missing, damaged, not safetensors, or has changed.
        """
        check_present(self.path)
        if self.registered is None:
            if runs := _runs_beside(self.path):
                raise WeightsError(f"{self.path} does not exist", f"did you mean {runs}?")
            return read_tensors(self.path)
        name = self.registered.name
        again = f"`zoo register {name} RUN --replace` registers another file by that name"
        if not self.path.exists():
            raise WeightsError(f"{self.path}, registered as {name}, does not exist", again)
        try:
            return read_tensors(self.path, self.registered.sha256)
        except OtherDigest as error:
            message = f"{self.path} has changed since it was registered as {name}"
            raise WeightsError(message, again) from error


def _runs_beside(path: Path) -> str:
    """Return the first run folders beside the model file of a folder that has none; else ''."""
    if path.name != MODEL or path.exists() or not path.parent.is_dir():
        return ""
    return ", ".join(str(each.parent) for each in sorted(path.parent.glob(f"*/{MODEL}"))[:3])


@dataclass(frozen=True)
class OwnFile:
    """A user's weights file, read once.

    Args:
        path: of the file.
        content: its tensors.
        card: the description of a model file; None of a state dict.
    """

    path: Path
    content: TensorFile
    card: ModelCard | None

    @classmethod
    def open(cls, location: OwnLocation) -> OwnFile:
        """Read a file.

        Raises:
            WeightsError: it is missing, damaged, not safetensors, or a model file that this zoo
                does not read.
        """
        path, content = location.path, location.read()
        return cls(path, content, parse_card(path, content) if KEY in content.metadata else None)

    def check_backbone(self, backbone: Backbone) -> None:
        """Check that a model file is of a backbone.

        Raises:
            WeightsError: it is of another.
        """
        if self.card is not None and not backbone.is_named(self.card.backbone):
            hint = f"`zoo finetune {quote(str(self.path))}` goes on from it"
            message = f"{self.path} is a model of {self.card.backbone}, not {backbone.id}"
            raise WeightsError(message, hint)

    @property
    def new_head(self) -> HeadSpec | None:
        """The head of a model file that has not the default one; else None.

        Raises:
            WeightsError: its description is damaged.
        """
        if self.card is None or not self.card.new_head:
            return None
        try:
            return HeadSpec.from_dict(self.card.new_head)
        except (UsageError, TypeError, KeyError, ValueError) as error:
            raise WeightsError(
                f"{self.path} has a damaged description: its head: {error}"
            ) from error


def warn_unfinished(card: ModelCard, path: Path) -> None:
    """Warn of a model file whose training is not finished."""
    if (done := card.settings.get(UNFINISHED)) is not None:
        message = "%s is of a training that is not finished: the best epoch up to %s"
        log.warning(message, path, done)


def locate_weights(choice: str | None, backbone: Backbone) -> OwnLocation | None:
    """Locate the file of a choice of weights: that, the model file of a run, or a registered one.

    Args:
        choice: as for `--weights`.
        backbone: the names of whose weights come before files.

    Returns:
        The location; None where the choice is `auto`, `none`, a tag, or any other word.
    """
    if choice is None or choice in ("auto", "none") or backbone.published_as(choice):
        return None
    if is_hub_address(choice):
        return OwnLocation(download_from_hub(choice))
    path = Path(choice)
    if path.is_dir():
        return OwnLocation(path / MODEL)
    if "/" in choice or path.suffix in WEIGHTS_SUFFIXES:
        return OwnLocation(path)
    return _locate_registered(choice)


def locate_model(name: str | Path, backbones: Registry | None = None) -> OwnLocation | None:
    """Locate a model file: a path of it, a run folder, or a registered name; None if it is neither.

    Args:
        name: of it.
        backbones: whose names come before a folder that is no run, and a file of another suffix.

    Raises:
        WeightsError: the name's own file is damaged, or an address on the hub unreachable.
    """
    if is_hub_address(name):
        return OwnLocation(download_from_hub(str(name)))
    path = Path(name)
    try:
        hides = backbones is not None and path.exists() and not _may_be_model(path)
        if hides and _is_named(str(name), backbones):
            return _locate_registered(str(name))
        if path.is_dir():
            return OwnLocation(path / MODEL)
        if path.exists() or path.suffix == ".safetensors":
            return OwnLocation(path)
    except OSError:
        return None  # too long for a path
    return _locate_registered(str(name))


def _may_be_model(path: Path) -> bool:
    """Whether a path is of a run folder, or has the suffix of a weights file."""
    if path.is_dir():
        return any((path / each).exists() for each in (MODEL, CHECKPOINTS))
    return path.suffix in WEIGHTS_SUFFIXES


def _is_named(name: str, backbones: Registry | None) -> bool:
    """Whether a backbone has a name."""
    try:
        return backbones is not None and bool(backbones.get(name))
    except UnknownBackbone:
        return False


def _locate_registered(name: str) -> OwnLocation | None:
    model = find_own_model(name)
    return None if model is None else OwnLocation(Path(model.path), model)


def backbone_of(card: ModelCard, file: Path, registry: Registry) -> Backbone:
    """Return the backbone of a model file.

    Raises:
        UnknownBackbone: it is not registered; the hint names the plugin that may provide it.
    """
    try:
        return registry.get(card.backbone)
    except UnknownBackbone as error:
        source = card.backbone.partition("/")[0]
        note = "; ".join(filter(None, (f"required by {file}", error.note)))
        statuses = {record.status for record in registry.host.records if record.name == source}
        hint = f"install plugin {source}, or load its file with --plugin FILE"
        if OFF in statuses:
            hint = f"plugin {source} is disabled: check --no-plugin and ZOO_PLUGINS"
        elif statuses:
            hint = f"another version of plugin {source} may provide it"
        else:
            hint += ", or a registry.toml that derives it with --registry FILE"
        raise UnknownBackbone(card.backbone, (), note, hint) from error
