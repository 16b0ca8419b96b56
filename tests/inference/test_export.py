"""`zoo export`: files that other programs run, and what is refused."""

import hashlib
import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

import zoo
from tests.networks import save_untrained
from zoo.inference.export import exporter
from zoo.inference.export.agreement import TOLERANCE
from zoo.modelfile import read_model, write_model
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.testing.fixtures import reset_caches

CLASSES = ("flag", "mammal", "playing card é")


@pytest.fixture
def model(tinynet, tmp_path) -> Path:
    """A model file of a tiny network with a temperature and a licence."""
    path = save_untrained(tinynet, tmp_path / "tiny.safetensors", CLASSES)
    card, content = read_model(path)
    card = replace(card, temperature=0.5, base={"license": "CC-BY-4.0"})
    write_model(path, content.tensors, card)
    return path


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def probabilities_of(model, images):
    """Return all probabilities in the order of the classes, of `zoo predict`."""
    found = zoo.load(model, "cpu", "fp32").predict(images)
    ranked = [{p["class"]: p["probability"] for p in each["predictions"]} for each in found]
    return np.array([[each[name] for name in CLASSES] for each in ranked])


def test_onnx_file_predicts_raw_images_like_zoo(model, tmp_path, cli):
    code, out, err = cli("export", model, "--json")
    assert code == 0, err
    result = json.loads(out)
    path = tmp_path / "tiny.onnx"
    assert (result["path"], result["bytes"]) == (str(path), path.stat().st_size)
    assert (result["any_batch"], result["outputs"]) == (True, ["probabilities"])
    agreement = result["agreement"]
    assert (agreement["images"], agreement["equal_decisions"]) == (16, 1.0)
    assert agreement["largest_difference"] < 0.01
    session = session_of(path)
    assert [each.shape[1:] for each in session.get_outputs()] == [[3]]
    generator = np.random.default_rng(0)
    for shape in ((2, 50, 70, 3), (1, 70, 31, 3), (3, 20, 20, 3)):
        images = generator.integers(0, 256, shape, dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        np.testing.assert_allclose(found, probabilities_of(model, [*images]), atol=2e-3)
        assert found.sum(1) == pytest.approx(np.ones(len(images)), abs=1e-5)
    facts = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert (facts["license"], facts["input_size"]) == ("CC-BY-4.0", "[32, 32]")
    assert facts["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    description = json.loads(facts["zoo"])
    assert (description["temperature"], description["backbone"]) == (0.5, "tiny/tinynet")
    for place in (Path(zoo.__file__).parent, tmp_path, Path(torch.__file__).parent):
        assert str(place).encode() not in path.read_bytes()
    code, _, err = cli("export", model)
    assert (code, err) == (2, f"zoo: error: {path} exists; give another --out, or remove it\n")
    assert sorted(each.suffix for each in tmp_path.iterdir()) == ["", ".onnx", ".safetensors"]


BRANCHING = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("branching", "plugin_odd:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        from torch import nn

        class Branching(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 7)

            def forward(self, images):
                means = images.mean((2, 3))
                return self.fc(means) if means.mean() > 0 else self.fc(2 * means)

        return Branching()
"""


SENSITIVE = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("sensitive", "plugin_sensitive:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        import torch
        from torch import nn

        class Sensitive(nn.Module):
            def __init__(self):
                super().__init__()
                pattern = torch.randn(3 * 32 * 32, generator=torch.Generator().manual_seed(0))
                self.register_buffer("pattern", pattern)
                self.fc = nn.Linear(2, 7)

            def forward(self, x):
                phase = 8 * (x.flatten(1) * self.pattern).sum(1, keepdim=True)
                return self.fc(4 * torch.cat([phase.cos(), phase.sin()], 1))

        return Sensitive()
"""


@pytest.mark.slow  # traces a network, in seconds
def test_network_that_pixels_of_one_level_change_is_exported(install, tmp_path, cli):
    install("sensitive", SENSITIVE)
    torch.manual_seed(0)
    network = zoo.get("sensitive").build(classes=3)
    path = zoo.save(network, tmp_path / "sensitive.safetensors", CLASSES)
    code, out, err = cli("export", path, "--json")
    assert code == 0, err
    assert json.loads(out)["agreement"]["largest_difference"] > TOLERANCE


@pytest.mark.slow  # traces a network twice, in seconds
def test_network_that_cannot_be_traced_is_refused(install, tmp_path, cli):
    install("odd", BRANCHING)
    path = zoo.save(zoo.get("branching").build(classes=3), tmp_path / "odd.safetensors", CLASSES)
    code, _, err = cli("export", path)
    assert code == 5
    assert err.startswith("zoo: error: torch.export cannot trace odd/branching: ")
    assert "data-dependent" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.slow  # traces a network, in seconds
def test_operation_that_openvino_lacks_is_named(install, tmp_path, cli):
    pytest.importorskip("openvino")
    branch = "self.fc(means) if means.mean() > 0 else self.fc(2 * means)"
    install("odd", BRANCHING.replace(branch, "self.fc(means * images.det()[:, :1])"))
    path = zoo.save(zoo.get("branching").build(classes=3), tmp_path / "odd.safetensors", CLASSES)
    code, _, err = cli("export", path, "--format", "openvino")
    assert code == 5
    assert "No conversion rule found for operations: aten._linalg_det.default" in err
    assert not list(tmp_path.glob("*-openvino"))


FORMAT = """
    import zoo
    from zoo.inference.export.exporter import Exporter

    WRONG = False
    FAULT = None

    @zoo.hookimpl
    def zoo_register_formats():
        yield zoo.ExportFormat("leaf", "for leaves", "plugin_leaf:LeafExporter")

    class LeafExporter(Exporter):
        requires = ("pluggy",)

        def write(self, source, path):
            if FAULT == "write":
                raise KeyError("stem")
            if FAULT == "nothing":
                return {}
            path.mkdir()
            (path / "classes.txt").write_text(" ".join(source.description["classes"]))
            return {"notes": ["a folder of leaves"], "leaves": 7}

        def load(self, source, path):
            from zoo.inference.export.agreement import predict

            def run(images):
                if FAULT == "run":
                    raise RuntimeError("no chip")
                if FAULT == "list":
                    return [images]
                outputs = {k: v.numpy() for k, v in predict(source.model, images[0]).items()}
                return {k: v + WRONG for k, v in outputs.items()}

            return run
"""


OF_PLUGIN = r"format 'leaf' of plugin leaf \(plugin-leaf 1.0\)"
FAULTS = {
    "write": f"{OF_PLUGIN} fails: KeyError: 'stem'",
    "nothing": rf"{OF_PLUGIN} returned {{}} from write\(\)",
    "run": f"{OF_PLUGIN} cannot run what it wrote: RuntimeError: no chip",
    "list": f"{OF_PLUGIN} returned a list for images",
}


def test_plugin_registers_a_format(model, install, tmp_path, cli):
    module = importlib.import_module(install("leaf", FORMAT))
    reset_caches()
    code, out, err = cli("export", model, "--format", "leaf")
    assert code == 0, err
    assert out.splitlines() == [
        f"export  {tmp_path / 'tiny-leaf'}, 0.0 MB",
        "        a folder of leaves",
        "check   compared on 16 images, 100 % equal top-1, largest difference 0",
    ]
    assert (tmp_path / "tiny-leaf" / "classes.txt").read_text() == " ".join(CLASSES)
    assert zoo.export(model, "leaf", tmp_path / "other")["leaves"] == 7
    module.WRONG = True
    code, _, err = cli("export", model, "--format", "leaf", "--out", "wrong")
    assert code == 5
    assert "the exported tiny/tinynet differs from the network: probabilities by 1" in err
    assert not (tmp_path / "wrong").exists()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".zoo-")]
    for fault, message in FAULTS.items():
        module.FAULT = fault
        with pytest.raises(zoo.BrokenBackbone, match=message):
            zoo.export(model, "leaf", tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()
    module.LeafExporter.requires = ("leaf-compiler",)
    with pytest.raises(zoo.EnvironmentProblem, match="pip install leaf-compiler"):
        zoo.export(model, "leaf", tmp_path / "third")


def test_export_refuses_unknown_format_and_names_registered(model, install, cli):
    code, _, err = cli("export", model, "--format", "onxx")
    assert (code, err) == (2, "zoo: error: no format is named 'onxx'; did you mean onnx?\n")
    install("leaf", FORMAT.replace('"for leaves"', '""'))
    code, _, err = cli("export", model, "--format", "leaf", "--no-plugin", "report")
    assert code == 2
    assert "no format is named 'leaf' (plugins switched off: " in err
    assert "; plugins failed: leaf); one of onnx" in err


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr(exporter, "_is_installed", lambda name: name == "onnx")
    from zoo.inference.export.onnx import ONNXExporter

    with pytest.raises(zoo.EnvironmentProblem) as caught:
        ONNXExporter().check_installed()
    assert str(caught.value) == (
        "onnxruntime and onnxscript are not installed; pip install 'zoo-registry[onnx]'"
    )


SMALL = "timm/resnet10t"


@pytest.fixture
def small(tmp_path) -> Path:
    """A model file of a small network of timm, with a preprocess that is not its own."""
    torch.manual_seed(0)
    module = zoo.get(SMALL).build(classes=3, input_size=64)
    return zoo.save(module, tmp_path / "small.safetensors", CLASSES)


def test_timm_loads_the_folder_with_equal_logits(small, tmp_path, cli):
    code, out, err = cli("export", small, "--format", "timm", "--json")
    assert code == 0, err
    folder = tmp_path / "small-timm"
    result = json.loads(out)
    assert (result["path"], result["architecture"]) == (str(folder), "resnet10t")
    assert result["logits_difference"] < 1e-5
    assert result["agreement"]["equal_decisions"] == 1.0
    assert {each.name for each in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    config = timm.data.resolve_data_config({}, model=network)
    pixels = timm.data.create_transform(**config)(image)[None]
    own = zoo.load(small, "cpu", "fp32")
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), own.module(pixels))
    torch.testing.assert_close(pixels[0], zoo.transform(own)(image), atol=0.03, rtol=0)
    assert json.loads((folder / "config.json").read_text())["label_names"] == list(CLASSES)
    assert "library_name: timm" in (folder / "README.md").read_text()


def test_torchvision_network_that_timm_has_is_proven(tmp_path, cli):
    torch.manual_seed(0)
    module = zoo.get("torchvision/resnet18").build(classes=3, input_size=32)
    path = zoo.save(module, tmp_path / "vision.safetensors", CLASSES)
    result = zoo.export(path, "timm")
    assert (result["architecture"], result["agreement"]["equal_decisions"]) == ("resnet18", 1.0)
    network = timm.create_model(f"local-dir:{result['path']}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), module.eval()(pixels))


def test_timm_refuses_other_networks_with_the_reason(model, tmp_path, cli):
    code, _, err = cli("export", model, "--format", "timm")
    reason = "timm has no network named tinynet, as tiny/tinynet is"
    assert (code, err) == (2, f"zoo: error: {reason}; --format onnx needs no network of timm's\n")
    module = zoo.get("torchvision/efficientnet_b0").build(classes=3)
    path = zoo.save(module, tmp_path / "b0.safetensors", CLASSES)
    code, _, err = cli("export", path, "--format", "timm")
    assert code == 2
    assert (
        "timm's efficientnet_b0 does not have the tensors of torchvision/efficientnet_b0: Runt"
        in err
    )
    assert not list(tmp_path.glob("*-timm"))


@pytest.mark.slow  # traces a network twice, in seconds
def test_pt2_and_openvino_predict_raw_images(model, tmp_path):
    result = zoo.export(model, "pt2")
    assert result["agreement"]["equal_decisions"] == 1.0
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 50, 3), dtype=np.uint8)
    expected = probabilities_of(model, [*images])
    program = torch.export.load(tmp_path / "tiny.pt2").module()
    found = program(torch.from_numpy(images))["probabilities"]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-3)
    library = pytest.importorskip("openvino")
    result = zoo.export(model, "openvino")
    assert result["agreement"]["equal_decisions"] == 1.0
    compiled = library.compile_model(tmp_path / "tiny-openvino" / "model.xml", "CPU")
    np.testing.assert_allclose(compiled([images])["probabilities"], expected, atol=1e-2)


@pytest.mark.slow  # a network with published weights, on every image of the embedded set
def test_exports_have_the_top1_of_predict_on_raw_pixels(tmp_path):
    for name, path in (("onnx", tmp_path / "lite0.onnx"), ("openvino", tmp_path / "lite0")):
        result = zoo.export("lite0", name, out=path)
        assert result["agreement"]["equal_decisions"] == 1.0
    session = session_of(tmp_path / "lite0.onnx")
    openvino, settings = pytest.importorskip("openvino"), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "lite0" / "model.xml", "CPU", settings)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    files = sorted(path for path in EMBEDDED.rglob("*.*") if path.suffix in (".jpg", ".png"))
    images = [np.array(Image.open(path).convert("RGB")) for path in files]
    answers = zoo.predict("lite0", images, top=2, device="cpu")
    assert len(images) == 483
    different = []
    for path, image, answer in zip(files, images, answers, strict=True):
        first, second = answer["predictions"]
        (found,) = session.run(None, {"images": image[None]})[0]
        (other,) = compiled([image[None]])["probabilities"]
        for each in (found, other):
            if classes[each.argmax()] != first["class"]:
                different.append((path.name, first["probability"] - second["probability"]))
            assert abs(each.max() - first["probability"]) < 0.02
    # One level of 255 in some pixels is all that differs: it decides where two classes are equal.
    assert all(margin < 0.01 for _, margin in different), different
    assert len(different) <= 2
