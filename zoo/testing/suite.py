"""The checks of a backbone, and functions to run them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from zoo.errors import EnvironmentProblem, UsageError, ZooError, did_you_mean, one_line
from zoo.models.plugin_errors import is_out_of_memory
from zoo.testing import description, structure, values, weights
from zoo.testing.findings import (
    EXCEPTED,
    FAILED,
    NOT_APPLICABLE,
    NOT_TRIED,
    PASSED,
    Check,
    CheckFailed,
    Finding,
    NotApplicable,
    NotTried,
)
from zoo.testing.subject import Subject

DESCRIPTION, STRUCTURE, VALUES = NETWORK_KINDS = ("description", "structure", "values")
WEIGHTS = "weights"
KINDS = (*NETWORK_KINDS, WEIGHTS)

SUITE = (
    Check(
        "imports_nothing_heavy",
        "importing the plugin does not import torch",
        DESCRIPTION,
        description.imports_nothing_heavy,
        encoders=True,
    ),
    Check(
        "name_is_unique",
        "its id is unique",
        DESCRIPTION,
        description.name_is_unique,
        encoders=True,
    ),
    Check(
        "licences_and_digests",
        "licences and digests of its weights are stated, or reported as unknown",
        DESCRIPTION,
        description.licences_and_digests,
        encoders=True,
    ),
    Check(
        "builds_offline",
        "it builds without a network",
        STRUCTURE,
        structure.builds_offline,
        encoders=True,
    ),
    Check(
        "refuses_without_head",
        "without a head, fine-tuning is refused with the reason",
        STRUCTURE,
        structure.refuses_without_head,
        encoders=True,
    ),
    Check(
        "heads_resolve",
        "every head path resolves to a layer whose outputs are the classes",
        STRUCTURE,
        structure.heads_resolve,
        needs=("builds_offline",),
    ),
    Check(
        "weights_fit",
        "it has the same heads for each of its published weights",
        STRUCTURE,
        structure.weights_fit,
        needs=("heads_resolve",),
    ),
    Check(
        "replaced_like_for_like",
        "heads are replaced by layers of the same kind, and nothing else is replaced",
        STRUCTURE,
        structure.replaced_like_for_like,
        needs=("heads_resolve",),
    ),
    Check(
        "outputs_have_the_classes",
        "at its own size, every head that contributes to the loss outputs one logit per class",
        STRUCTURE,
        structure.outputs_have_the_classes,
        needs=("replaced_like_for_like",),
    ),
    Check(
        "wrong_auxiliary_width_is_an_error",
        "an auxiliary head with a different number of outputs is an error",
        STRUCTURE,
        structure.wrong_auxiliary_width_is_an_error,
        needs=("outputs_have_the_classes",),
    ),
    Check(
        "width_is_the_declared_one",
        "the input of each head has the declared width",
        STRUCTURE,
        structure.width_is_the_declared_one,
        needs=("outputs_have_the_classes",),
    ),
    Check(
        "sizes_are_told",
        "an unsupported image size is refused with a message that names a supported one",
        STRUCTURE,
        structure.sizes_are_told,
        needs=("outputs_have_the_classes",),
    ),
    Check(
        "frozen_stays_frozen",
        "training the heads leaves every other tensor bit-identical",
        VALUES,
        values.frozen_stays_frozen,
        needs=("outputs_have_the_classes",),
    ),
    Check(
        "new_heads_learn",
        "training the heads changes all of their parameters, and no others",
        VALUES,
        values.new_heads_learn,
        needs=("frozen_stays_frozen",),
    ),
    Check(
        "frozen_answers_the_same",
        "the frozen part computes the same features before and after training, in both modes, and "
        "the output for an image does not depend on the others of its batch",
        VALUES,
        values.frozen_answers_the_same,
        needs=("frozen_stays_frozen",),
    ),
    Check(
        "everything_has_a_gradient",
        "with policy `all`, every parameter gets a gradient, including in a last batch of one",
        VALUES,
        values.everything_has_a_gradient,
        needs=("frozen_stays_frozen",),
    ),
    Check(
        "saved_and_loaded",
        "a network loaded from its model file computes equal logits",
        VALUES,
        values.saved_and_loaded,
        needs=("frozen_stays_frozen",),
    ),
    Check(
        "library_loads_it",
        "its own library loads the model file without zoo",
        VALUES,
        values.library_loads_it,
        needs=("frozen_stays_frozen",),
    ),
    Check(
        "weights_load",
        "its weights on this machine have the stated digest and classes, and load into the network",
        WEIGHTS,
        weights.weights_load,
        encoders=True,
        needs=("heads_resolve",),
    ),
)


def select_checks(kinds: Sequence[str] = KINDS, names: Sequence[str] = ()) -> tuple[Check, ...]:
    """Return the checks of the given kinds and names; no names select all.

    Raises:
        UsageError: there is no check of a given name.
    """
    known = [check.name for check in SUITE]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no check {name!r}", did_you_mean(name, known))
    return tuple(
        check for check in SUITE if check.kind in kinds and (not names or check.name in names)
    )


def evaluate_check(name: str, check: Check, subject: Any) -> Finding:
    """Run one check; exceptions of a plugin's code become a finding.

    A check is not tried where one that it needs could not be completed for another reason than its
    requirement, so that each cause is reported once.

    Args:
        name: of the backbone, task or plugin.
        check: the check.
        subject: argument of the check; its `causes` are updated.

    Raises:
        EnvironmentProblem: the system fails, not the backbone or task.
        MemoryError: out of memory.
    """
    causes: dict[str, str] = subject.causes
    cause = next((causes[needed] for needed in check.needs if needed in causes), None)
    if cause is not None:
        causes[check.name] = cause
        return Finding(name, check.name, check.requirement, NOT_TRIED, f"{cause} failed", 0.0)
    start = time.perf_counter()
    trace = None
    try:
        status, detail = PASSED, check.run(subject)
    except NotApplicable as reason:
        status, detail = NOT_APPLICABLE, str(reason)
    except NotTried as reason:
        status, detail = NOT_TRIED, str(reason)
    except CheckFailed as failure:
        status, detail = FAILED, str(failure)
    except EnvironmentProblem:
        raise
    except ZooError as error:
        status, detail, causes[check.name] = FAILED, str(error), check.name
        trace = traceback.format_exc() if error.__cause__ else None
    except Exception as error:  # plugin code can raise anything
        if is_out_of_memory(error):
            raise MemoryError(f"{name}, {check.name}: out of memory") from error
        status, detail, causes[check.name] = FAILED, one_line(error), check.name
        trace = traceback.format_exc()
    seconds = time.perf_counter() - start
    return Finding(name, check.name, check.requirement, status, detail, seconds, trace)


def run_check(subject: Subject, check: Check) -> Finding:
    """Run one check on a backbone, and apply the exceptions of its description.

    Raises:
        EnvironmentProblem: the system fails, not the backbone.
        MemoryError: out of memory.
    """
    backbone = subject.backbone
    if backbone.refuse and not check.encoders:
        reason = f"it cannot be fine-tuned: {backbone.refuse}"
        return Finding(backbone.id, check.name, check.requirement, NOT_APPLICABLE, reason, 0.0)
    finding = evaluate_check(backbone.id, check, subject)
    excepted = backbone.exceptions.get(check.name)
    if excepted is not None and finding.status == FAILED:
        return replace(finding, status=EXCEPTED, detail=excepted, trace=None)
    if excepted is not None and finding.status == PASSED:
        detail = f"its description excepts it ({excepted}), but it passes: {finding.detail}"
        return replace(finding, status=FAILED, detail=detail)
    return finding


def run_checks(subject: Subject, checks: Sequence[Check] = SUITE) -> Iterator[Finding]:
    """Run checks on a backbone in order.

    Raises:
        UsageError: its description excepts an unknown check.
    """
    select_checks(names=list(subject.backbone.exceptions))
    for check in checks:
        yield run_check(subject, check)
