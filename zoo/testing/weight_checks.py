"""Conformance checks of the weights that a plugin provides for backbones of other plugins."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo.errors import UnknownBackbone
from zoo.registry.registry import Registry
from zoo.spec import AddedWeights, WeightFile
from zoo.testing.findings import Check, CheckFailed, Finding, NotTried

WEIGHTS = "weights"


def name_of(item: WeightFile | AddedWeights) -> str:
    """Return the name of a record for people: its file, or the backbone with the tag."""
    return item.file if isinstance(item, WeightFile) else item.name


@dataclass
class WeightSubject:
    """Weights under test.

    Args:
        item: a file, or weights of a backbone.
        registry: of the backbone.
        causes: as of `zoo.testing.subject.Subject`.
    """

    item: WeightFile | AddedWeights
    registry: Registry
    causes: dict[str, str] = field(default_factory=dict)

    @property
    def check(self) -> Check:
        """The check of a file, or of added weights."""
        if isinstance(self.item, WeightFile):
            requirement = "the file is installed and has its digest"
            return Check("file_matches_digest", requirement, WEIGHTS, _check_file)
        requirement = "they load into their backbone without a missing or unknown tensor"
        return Check("added_weights_load", requirement, WEIGHTS, _check_added)

    def run(self) -> Finding:
        """Run the check."""
        from zoo.testing.suite import evaluate_check

        return evaluate_check(name_of(self.item), self.check, self)


def run_weight_check(item: WeightFile | AddedWeights, registry: Registry) -> Finding:
    """Check one record, without a network; what must be downloaded is not tried.

    Args:
        item: a file, which must exist with its digest; or added weights, which must load into their
            backbone.
        registry: of the backbone.
    """
    return WeightSubject(item, registry).run()


def find_weights(name: str, registry: Registry) -> WeightSubject:
    """Return the weights of a name, as `name_of` returns it."""
    items = [item for record in registry.host.records for item in record.weights]
    return WeightSubject(next(item for item in items if name_of(item) == name), registry)


def _check_file(subject: WeightSubject) -> str:
    from zoo.models.weight_sources import package_file
    from zoo.tensorfile import read_file

    assert isinstance(subject.item, WeightFile)
    data, _ = read_file(package_file(subject.item.file), subject.item.sha256)
    return f"{len(data):,} bytes"


def _check_added(subject: WeightSubject) -> str:
    from zoo.models.weight_sources import DOWNLOAD, locate
    from zoo.testing.weights import problem_of

    item = subject.item
    assert isinstance(item, AddedWeights)
    try:
        backbone = subject.registry.get(item.backbone)
    except UnknownBackbone as error:
        if item.backbone.partition("/")[0] in subject.registry.sources:
            raise CheckFailed(str(error)) from error
        raise NotTried(f"{item.backbone} is not installed") from error
    for record in subject.registry.host.records:
        if record.name == item.source and record.error is not None:
            raise CheckFailed(record.error)  # left out when the catalogue was read
    weights = backbone.find_weights(item.weights.tag)
    if (location := locate(backbone, weights)) == DOWNLOAD:
        raise NotTried("to be downloaded")
    if problem := problem_of(backbone, weights):
        raise CheckFailed(problem)
    return f"loaded, {location.text}"
