"""The backbone suite: a conforming network passes, and each fault fails its check."""

import hashlib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save
from torch import nn

import zoo
from tests.testing.faults import FAILED
from zoo.registry.registry import load_registry
from zoo.testing.findings import EXCEPTED, NOT_APPLICABLE, NOT_TRIED, PASSED
from zoo.testing.fresh import in_fresh_process
from zoo.testing.subject import Subject, calibrate_batch_norm, noise
from zoo.testing.suite import SUITE, run_check, run_checks, select_checks

pytestmark = pytest.mark.usefixtures("faulty")


def subject(name, fresh=None):
    registry = load_registry()
    return Subject(registry.get(name), registry, fresh)


def check(name):
    (selected,) = select_checks(names=[name])
    return selected


def test_conforming_network_passes_every_check():
    findings = {f.check: f for f in run_checks(subject("faulty/sound", in_fresh_process()))}
    skipped = {"refuses_without_head", "licences_and_digests", "weights_fit", "weights_load"}
    assert {name for name, f in findings.items() if f.status == NOT_APPLICABLE} == skipped
    assert {name for name, f in findings.items() if f.status == PASSED} == findings.keys() - skipped
    assert [check.name for check in SUITE] == list(findings)
    assert findings["saved_and_loaded"].detail == "equal logits in this process and in a fresh one"
    assert "(2, 7) beside (2, 10)" in findings["wrong_auxiliary_width_is_an_error"].detail


def test_containers_and_dataclass_pass_every_check():
    findings = {f.check: f for f in run_checks(subject("faulty/containers"))}
    assert not [str(finding) for finding in findings.values() if finding.failed]
    detail = "head resolves to head.fc: Linear, aux resolves to aux.1: Linear"
    assert findings["heads_resolve"].detail == detail
    assert findings["outputs_have_the_classes"].detail == "1 tensor in eval mode, 2 in train mode"


@pytest.mark.parametrize("name", ["cumulative", "lazy", "speechless", "subclass"])
def test_unusual_network_passes_every_check(name):
    assert not [str(finding) for finding in run_checks(subject(f"faulty/{name}")) if finding.failed]


def test_auxiliary_width_differs_from_published_classes():
    finding = run_check(subject("faulty/ten"), check("wrong_auxiliary_width_is_an_error"))
    assert (finding.status, "(2, 10) beside (2, 11)" in finding.detail) == (PASSED, True)


@pytest.mark.parametrize("name", FAILED)
def test_fault_fails_its_check(name):
    failing, detail = FAILED[name]
    finding = run_check(subject(f"faulty/{name}"), check(failing))
    assert finding.failed
    assert detail in finding.detail
    assert str(finding).startswith(f"faulty/{name} fails {failing!r} (")


def test_excepted_check_has_reason_of_description():
    finding = run_check(subject("faulty/excepted"), check("everything_has_a_gradient"))
    assert (finding.status, finding.detail) == (EXCEPTED, "one layer is a spare")


def test_unknown_exception_is_usage_error():
    with pytest.raises(zoo.UsageError, match="did you mean everything_has_a_gradient"):
        list(run_checks(subject("faulty/misnamed")))


def test_out_of_memory_raises():
    with pytest.raises(MemoryError, match="faulty/starving, builds_offline: out of memory"):
        run_check(subject("faulty/starving"), check("builds_offline"))


def test_headless_network_skips_training_checks():
    findings = {f.check: f for f in run_checks(subject("faulty/encoder"))}
    assert "it has no head" in findings["refuses_without_head"].detail
    assert findings["frozen_stays_frozen"].status == NOT_APPLICABLE
    assert not any(f.failed for f in findings.values())


def test_one_cause_is_reported_once():
    findings = list(run_checks(subject("faulty/crashing")))
    failed = [finding.check for finding in findings if finding.failed]
    not_tried = {finding.detail for finding in findings if finding.status == NOT_TRIED}
    assert (failed, not_tried) == (["builds_offline"], {"builds_offline failed"})
    assert sum(finding.status == NOT_TRIED for finding in findings) == 14


def weights_finding(tmp_path, tensors=None, **changes):
    """Check one set of weights of the conforming network, by default of its own tensors."""
    known = subject("faulty/sound")
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(tensors or known.backbone.build().state_dict()))
    stated = {"file": str(path), "num_classes": 7} | changes
    known.backbone = replace(known.backbone, weights=(zoo.Weights("w", **stated),), params=None)
    return run_check(known, check("weights_load"))


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"file": "/nowhere/w.safetensors"}, "/nowhere/w.safetensors does not exist"),
        ({"file": "no_such_package:w.safetensors"}, "'no_such_package' is not installed"),
        ({"sha256": "0" * 64}, "is not the file that was published"),
        ({"num_classes": 5}, "its head head.fc has 7 classes, num_classes is 5"),
        ({"classes": "keyword:kwlist"}, "7 classes, but its adapter names 3"),
        ({"classes": "no_such_module:NAMES"}, "cannot be imported"),
        ({"kwargs": {"aux": False}}, "do not fit it"),
        ({"kwargs": {"depth": 50}}, "does not build"),
        ({"tensors": {"head.fc.weight": torch.zeros(7, 16)}}, "do not fit it"),
        ({"convert": "faulty_model:no_such"}, "cannot be imported"),
    ],
)
def test_weights_that_do_not_load_fail(tmp_path, changes, detail):
    finding = weights_finding(tmp_path, **changes)
    assert finding.failed, finding
    assert detail in finding.detail


def test_weights_here_load_and_others_are_not_tried(tmp_path):
    tensors = zoo.get("faulty/sound").build().state_dict()
    digest = hashlib.sha256(save(tensors)).hexdigest()
    finding = weights_finding(tmp_path, tensors, sha256=digest)
    assert (finding.status, finding.detail) == (PASSED, "loaded: w")
    url = "https://example.org/w.pth"
    finding = weights_finding(tmp_path, file=None, url=url)
    assert (finding.status, finding.detail) == (NOT_TRIED, "to be downloaded, not tried: w")


def test_plugin_importing_torch_fails(install):
    install(
        "heavy",
        """
        import torch
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("net", "faulty_model:build", (zoo.Head("head.fc"),),
                               zoo.Preprocess(size=32))
        """,
    )
    finding = run_check(subject("heavy/net"), check("imports_nothing_heavy"))
    assert finding.failed
    assert "importing plugin_heavy imports" in finding.detail
    assert "torch" in finding.detail


def test_input_size_error_names_valid_size(install):
    install(
        "rigid",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            for name, options in (("fixed", {"fixed_size": True}), ("open", {"min_size": 32})):
                yield zoo.Backbone(name, "plugin_rigid:build", (zoo.Head("1"),),
                                   zoo.Preprocess(size=32), **options)

        def build(weights=None, num_classes=7):
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
        """,
    )
    fixed = run_check(subject("rigid/fixed"), check("sizes_are_told"))
    assert fixed.status == PASSED
    assert "rigid/fixed takes 32x32 images only" in fixed.detail
    undeclared = run_check(subject("rigid/open"), check("sizes_are_told"))
    assert undeclared.status == PASSED
    assert "the nearest that it takes is 32" in undeclared.detail


def test_calibrate_batch_norm_uses_one_batch():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    images = noise(4, zoo.Preprocess(size=8), seed=1)
    calibrate_batch_norm(model, images)
    inputs = images.float() / 127.5 - 1
    torch.testing.assert_close(model[0].running_mean, inputs.mean((0, 2, 3)))
    assert [part.momentum for part in (model[0], model[2])] == [0.1, 0.1]
    model.eval()
    with torch.no_grad():
        assert 0.5 < float(model(inputs).std()) < 2
