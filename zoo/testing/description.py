"""Checks of a plugin's descriptions, and of what its import loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from zoo.errors import UnknownBackbone, UsageError
from zoo.testing.findings import CheckFailed, NotApplicable
from zoo.testing.subject import Subject

HEAVY = ("torch", "torchvision", "timm", "tensorflow", "jax", "transformers", "numpy")

# Imports a plugin's module by name or from its file, as zoo does, in a subprocess.
IMPORT = """
import importlib, importlib.util, json, sys
name, file, sys.path = json.loads(sys.argv[1])
if importlib.util.find_spec(name) or not file:
    module = importlib.import_module(name)
else:
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
for hook in filter(None, [getattr(module, "zoo_register_backbones", None)]):
    if getattr(hook, "zoo_impl", {}).get("wrapper"):
        next(hook())
    else:
        list(hook())
print(json.dumps(sorted(set(sys.modules) & set(json.loads(sys.argv[2])))))
"""


@cache
def _imported(module: str, file: str | None) -> tuple[list[str], str]:
    """Return the heavy libraries that a module imports, and the error if the import fails."""
    arguments = json.dumps([module, file, sys.path])
    command = [sys.executable, "-c", IMPORT, arguments, json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def imports_nothing_heavy(subject: Subject) -> str:
    """Import the plugin's module in a subprocess, and list the heavy libraries it loads."""
    records = [r for r in subject.registry.host.records if r.name == subject.backbone.plugin]
    name = records[0].module.partition(":")[0] if records else ""
    module = sys.modules.get(name)
    if module is None:
        raise NotApplicable("its plugin is not an importable module")
    file = getattr(module, "__file__", None)
    heavy, error = _imported(name, str(Path(file).absolute()) if file else None)
    if error:
        raise CheckFailed(f"{name} cannot be imported in a subprocess: {error}")
    if heavy:
        message = f"importing {name} imports {', '.join(heavy)}, which slows every zoo command"
        raise CheckFailed(message)
    return f"{name} imports none of {', '.join(HEAVY)}"


def name_is_unique(subject: Subject) -> str:
    """Resolve the backbone by its id and by its bare name."""
    backbone, registry = subject.backbone, subject.registry
    same = [match for match in registry.find([backbone.id]) if match.id == backbone.id]
    if len(same) != 1 or registry.get(backbone.id) != backbone:
        raise CheckFailed(f"{len(same)} backbones have the id {backbone.id}")
    try:
        other = registry.get(backbone.name).id
    except (UsageError, UnknownBackbone) as error:
        return f"by its id; {error.message}"
    if other != backbone.id:
        return f"by its id; the bare name {backbone.name} resolves to {other}"
    return f"by its id and as {backbone.name}"


def licences_and_digests(subject: Subject) -> str:
    """Validate licence and sha256 of each set of published weights."""
    weights = subject.backbone.weights
    if not weights:
        raise NotApplicable("no weights are published")
    for published in weights:
        if published.license is not None and published.license.strip().lower() in ("", "unknown"):
            message = f"{published.tag} has the licence {published.license!r}; omit an unknown one"
            raise CheckFailed(message)
        if published.sha256 and not re.fullmatch(r"[0-9a-fA-F]{8,64}", published.sha256):
            raise CheckFailed(f"{published.tag} has an invalid sha256: {published.sha256!r}")
    licences = sum(published.license is not None for published in weights)
    digests = sum(published.digest is not None for published in weights)
    return f"{len(weights)} weights: {licences} with a licence, {digests} with a digest"
