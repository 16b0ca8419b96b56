"""Model files compute in the precision of their training, where a device does not emulate it."""

import pytest

import zoo
from zoo.engine.runtime import device


@pytest.fixture
def trained(tinynet, image_folder, own_cache):
    given = {"data": image_folder, "weights": "none", "recipe": "probe", "device": "cpu"}
    return zoo.finetune(tinynet, precision="bf16", **given)


def test_model_of_bf16_computes_in_fp32_where_bf16_is_emulated(trained, monkeypatch, caplog):
    assert trained.model().card.precision == "bf16"
    for native, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "cpu_has_bf16", lambda native=native: native)
        caplog.clear()
        assert zoo.load(trained.path, device="cpu").network.precision == expected
        warned = "computing in fp32, though the model was trained in bf16" in caplog.text
        assert warned is not native
        caplog.clear()
        assert zoo.load(trained.path, device="cpu", precision="bf16").network.precision == "bf16"
        assert not caplog.records
