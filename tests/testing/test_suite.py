"""The suite: a sound network keeps every promise, and each fault is found by the check for it."""

import pytest
import torch
from torch import nn

import zoo
from tests.testing.faults import BROKEN
from zoo.registry.registry import load_registry
from zoo.testing.findings import ABSENT, EXCEPTED, KEPT
from zoo.testing.fresh import in_fresh_process
from zoo.testing.subject import Subject, noise, settle_statistics
from zoo.testing.suite import SUITE, hold, hold_all, select

pytestmark = pytest.mark.usefixtures("faulty")


def subject(name, fresh=None):
    registry = load_registry()
    return Subject(registry.get(name), registry, fresh)


def check(name):
    (found,) = select(names=[name])
    return found


def test_a_sound_network_keeps_every_promise():
    found = {f.check: f for f in hold_all(subject("faulty/sound", in_fresh_process()))}
    away = {"refuses_without_head", "licences_and_digests", "weights_fit"}
    assert {name for name, f in found.items() if f.status == ABSENT} == away
    assert {name for name, f in found.items() if f.status == KEPT} == found.keys() - away
    assert [check.name for check in SUITE] == list(found)
    assert found["saved_and_loaded"].detail == "equal logits in this process and in a fresh one"
    assert "(2, 7) beside (2, 10)" in found["wrong_auxiliary_width_is_an_error"].detail


def test_as_many_classes_as_the_published_are_another_width():
    found = hold(subject("faulty/ten"), check("wrong_auxiliary_width_is_an_error"))
    assert (found.status, "(2, 10) beside (2, 11)" in found.detail) == (KEPT, True)


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_found_by_the_check_for_it(name):
    broken, said = BROKEN[name]
    found = hold(subject(f"faulty/{name}"), check(broken))
    assert found.broken
    assert said in found.detail
    assert str(found).startswith(f"faulty/{name} breaks {broken!r} (")


def test_what_a_description_excepts_is_told_with_its_reason():
    found = hold(subject("faulty/excepted"), check("everything_has_a_gradient"))
    assert (found.status, found.detail) == (EXCEPTED, "one layer is a spare")


def test_an_exception_names_a_promise():
    with pytest.raises(zoo.UsageError, match="did you mean everything_has_a_gradient"):
        list(hold_all(subject("faulty/misnamed")))


def test_what_is_no_fault_of_the_backbone_s_is_no_finding():
    with pytest.raises(MemoryError, match="faulty/starving, builds_offline: out of memory"):
        hold(subject("faulty/starving"), check("builds_offline"))


def test_an_encoder_must_be_refused():
    found = {f.check: f for f in hold_all(subject("faulty/encoder"))}
    assert "it has no head" in found["refuses_without_head"].detail
    assert found["frozen_stays_frozen"].status == ABSENT
    assert not any(f.broken for f in found.values())


def test_a_plugin_that_imports_torch_is_named(install):
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
    found = hold(subject("heavy/net"), check("imports_nothing_heavy"))
    assert found.broken
    assert "importing plugin_heavy imports" in found.detail
    assert "torch" in found.detail


def test_the_shape_of_the_input_is_told(install):
    install(
        "rigid",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            for name, options in (("told", {"fixed_size": True}), ("open", {"min_size": 32})):
                yield zoo.Backbone(name, "plugin_rigid:build", (zoo.Head("1"),),
                                   zoo.Preprocess(size=32), **options)

        def build(weights=None, num_classes=7):
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
        """,
    )
    told = hold(subject("rigid/told"), check("sizes_are_told"))
    assert told.status == KEPT
    assert "rigid/told takes 32x32 images only" in told.detail
    found = hold(subject("rigid/open"), check("sizes_are_told"))
    assert found.status == KEPT
    assert "the nearest that it takes is 32" in found.detail


def test_statistics_are_those_of_one_batch():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    images = noise(4, zoo.Preprocess(size=8), seed=1)
    settle_statistics(model, images)
    inputs = images.float() / 127.5 - 1
    torch.testing.assert_close(model[0].running_mean, inputs.mean((0, 2, 3)))
    assert [part.momentum for part in (model[0], model[2])] == [0.1, 0.1]
    model.eval()
    with torch.no_grad():
        assert 0.5 < float(model(inputs).std()) < 2
