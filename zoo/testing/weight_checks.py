"""Conformance checks of the weights that a plugin provides for backbones of other plugins."""

from __future__ import annotations

import time
import traceback

from zoo.errors import ZooError, one_line
from zoo.registry.registry import Registry
from zoo.spec import AddedWeights, WeightFile
from zoo.testing.findings import FAILED, PASSED, Finding


def name_of(item: WeightFile | AddedWeights) -> str:
    """Return the name of a record for people: its file, or the backbone with the tag."""
    return item.file if isinstance(item, WeightFile) else item.name


def run_weight_check(item: WeightFile | AddedWeights, registry: Registry) -> Finding:
    """Check one record, without a network unless its file must be downloaded.

    Args:
        item: a file, which must exist with its digest; or added weights, which must load into their
            backbone.
        registry: of the backbone.
    """
    is_file = isinstance(item, WeightFile)
    check = "file_matches_digest" if is_file else "added_weights_load"
    requirement = (
        "the file is installed and has its digest"
        if is_file
        else "they load into their backbone without a missing or unknown tensor"
    )
    start, status, trace = time.perf_counter(), PASSED, None
    try:
        detail = _check_file(item) if isinstance(item, WeightFile) else _check_added(item, registry)
    except (Exception, SystemExit) as error:
        status, detail = FAILED, str(error) if isinstance(error, ZooError) else one_line(error)
        trace = None if isinstance(error, ZooError) else traceback.format_exc()
    seconds = time.perf_counter() - start
    return Finding(name_of(item), check, requirement, status, detail, seconds, trace)


def _check_file(item: WeightFile) -> str:
    from zoo.modelfile import read_file
    from zoo.models.weight_sources import package_file

    data, _ = read_file(package_file(item.file), item.sha256)
    return f"{len(data):,} bytes"


def _check_added(item: AddedWeights, registry: Registry) -> str:
    backbone = registry.get(item.backbone)
    model = backbone.build(weights=item.weights.tag)
    return f"{len(model.state_dict()):,} tensors"
