"""A user's weights file: a state dict, or a model file of zoo, alone or in a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from zoo.errors import UnknownBackbone, UsageError, WeightsError
from zoo.modelfile import KEY, MODEL, UNFINISHED, ModelCard, check_present, parse_card
from zoo.options import HeadSpec
from zoo.registry.plugins import OFF
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tensorfile import TensorFile, read_tensors

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
log = logging.getLogger("zoo")


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
    def open(cls, path: Path) -> OwnFile:
        """Read a file.

        Raises:
            WeightsError: it is missing, damaged, not safetensors, or a model file that this zoo
                does not read.
        """
        check_present(path)
        content = read_tensors(path)
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


def own_path(choice: str | None, backbone: Backbone) -> Path | None:
    """Return the file of a choice of weights: that, or the model file of a run folder.

    Args:
        choice: as for `--weights`.
        backbone: the names of whose weights come before files.

    Returns:
        The path; None where the choice is `auto`, `none`, a tag, or a word that is no folder.
    """
    if choice is None or choice in ("auto", "none") or backbone.published_as(choice):
        return None
    path = Path(choice)
    if path.is_dir():
        return path / MODEL
    return path if "/" in choice or path.suffix in SUFFIXES else None


def model_file_at(path: str | Path) -> Path | None:
    """Return the model file of a path, which is that or a run folder; None if it is neither."""
    file = Path(path)
    try:
        if file.is_dir():
            return file / MODEL
        return file if file.exists() or file.suffix == ".safetensors" else None
    except OSError:
        return None  # too long for a path


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
