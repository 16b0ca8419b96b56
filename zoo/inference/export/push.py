"""Push a model file to a repository on the Hugging Face hub, for zoo, timm and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo.inference.export.export import describe
from zoo.inference.export.exporter import Source
from zoo.inference.export.timm import hub_files, model_card
from zoo.inference.loading import load_model
from zoo.models.hub import PREFIX, HubFile, hub_endpoint, hub_errors, is_hub_address
from zoo.models.own_file import locate_model
from zoo.registry.registry import Registry

CARD = "README.md"
MODEL = "model.safetensors"


def push(
    name: str | Path, repository: str, registry: Registry, private: bool = False
) -> dict[str, Any]:
    """Push a model, and return what `zoo push --json` prints.

    The repository is created where it does not exist. A model card that it has already stays.

    Args:
        name: a run folder, a model file, or the name of a registered model.
        repository: `OWNER/NAME`.
        registry: of backbones.
        private: whether a new repository is private.

    Raises:
        UsageError: the model is no file of yours, or the repository is no name.
        WeightsError: the model cannot be loaded, or the hub refuses.
    """
    target = HubFile.parse(f"{PREFIX}{repository.removeprefix(PREFIX)}")
    if repository.removeprefix(PREFIX) != target.repository:
        raise UsageError(f"{repository} names a file or a revision", "give OWNER/NAME")
    location = None if is_hub_address(name) else locate_model(name)
    if location is None:
        message = f"{name} is neither a run folder nor a model file"
        raise UsageError(message, "weights that are published already are not pushed")
    model = load_model(name, registry, "cpu", "fp32")
    source = Source(model, model.backbone.rpartition("/")[2], describe(model, location))
    files: dict[str, str | bytes] = {MODEL: str(location.path)}
    reason = None
    try:
        files |= hub_files(source)
    except UsageError as error:
        reason = error.message
        files[CARD] = model_card(source, None).encode()
    url, commit = _upload(target.repository, files, private)
    return {
        "repository": target.repository,
        "url": url,
        "commit": commit,
        "files": sorted(files),
        "sha256": source.description["sha256"],
        "not_for_timm_because": reason,
    }


def _upload(repository: str, files: dict[str, str | bytes], private: bool) -> tuple[str, str]:
    """Commit files; return the address of the repository and the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    with hub_errors(f"cannot push to {repository}"):
        api = HfApi(endpoint=hub_endpoint(), library_name="zoo-registry")
        url = api.create_repo(repository, private=private, exist_ok=True)
        if api.file_exists(repository, CARD):
            files.pop(CARD, None)
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        info = api.create_commit(repository, operations, commit_message="Push a model of zoo")
    return str(url), info.oid
