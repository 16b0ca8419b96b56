"""Kinds of licences; what cannot be parsed is never permissive."""

import subprocess
import sys
from collections import Counter

import pytest

import zoo
from zoo.registry.licenses import ADVICE, KINDS, classify, in_words, matches

SWAG = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"

# Every licence of torchvision's, timm's and the Lite plugin's weights that is not plainly
# permissive, with the decisive quotation. Read a new one before adding it.
RESTRICTED = {
    "cc-by-nc-4.0": "non-commercial",  # "NonCommercial purposes only"
    SWAG: "non-commercial",  # "released under the CC-BY-NC 4.0 license"
    "seer-license": "non-commercial",  # "solely for your non-commercial research purposes"
    "apple-amlr": "non-commercial",  # "exclusively for Research Purposes"
    "fair-noncommercial-research-license": "non-commercial",  # its name
    # Apple's sample code terms: of copyright only, with "no other rights or licenses".
    "apple-ascl": "custom",
    "cvnets-license": "custom",
    "fastvit-license": "custom",
    "mobileone-license": "custom",
    # Agreements of single publishers.
    "dinov3-license": "custom",
    "gemma": "custom",
    "nvidia-open-model-license": "custom",
    "qwen-community-1.0": "custom",
    "sapiens2-license": "custom",
}
PERMISSIVE = {"apache-2.0", "Apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"}


def test_classify_every_license_in_registry():
    backbones = zoo.list_backbones()
    licenses = {weights.license for backbone in backbones for weights in backbone.weights}
    kinds = {text: classify(text) for text in licenses}
    read = {**RESTRICTED, **dict.fromkeys(PERMISSIVE, "permissive"), None: "unknown"}
    # Older versions of timm do not have all of them.
    assert kinds.items() <= read.items()
    assert {SWAG, "apple-amlr", "apache-2.0", None} <= kinds.keys()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, "unknown"),
        ("", "unknown"),
        (" ", "unknown"),
        ("Unknown", "unknown"),
        ("other", "unknown"),
        ("NOASSERTION", "unknown"),
        ("MIT", "permissive"),
        ("  mIt ", "permissive"),
        ("0BSD", "permissive"),
        ("Apache-2.0+", "permissive"),
        ("CC0-1.0", "permissive"),
        ("CC-BY-4.0", "permissive"),
        ("cc-by-3.0-igo", "permissive"),
        ("CC-BY-SA-4.0", "copyleft"),
        ("CC-BY-ND-4.0", "custom"),
        ("cc-by-nc-4.0", "non-commercial"),
        ("CC-BY-NC-SA-2.0-UK", "non-commercial"),
        ("cc-by-nc-nd-3.0", "non-commercial"),
        ("cc-by-nc", "non-commercial"),
        ("cc-by", "custom"),
        ("cc", "custom"),
        ("GPL-3.0", "copyleft"),
        ("gpl-2.0-or-later", "copyleft"),
        ("GPL-2.0+", "copyleft"),
        ("AGPL-3.0-only", "copyleft"),
        ("lgpl-2.1", "copyleft"),
        ("MPL-2.0", "copyleft"),
        ("ODbL-1.0", "copyleft"),
        ("xgpl-3.0", "custom"),
        ("PolyForm-Noncommercial-1.0.0", "non-commercial"),
        ("LicenseRef-Leaf", "custom"),
        ("openrail", "custom"),
        ("MIT License", "custom"),
        ("mitten", "custom"),
        ("bsd-3-clause-no-nuclear-license", "custom"),
        ("all rights reserved", "custom"),
    ],
)
def test_classify_identifier(text, kind):
    assert classify(text) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MIT OR Apache-2.0", "permissive"),
        ("mit or cc-by-nc-4.0", "permissive"),
        ("GPL-3.0 OR gemma", "copyleft"),
        ("gemma OR cc-by-nc-4.0", "custom"),
        ("MIT AND Apache-2.0", "permissive"),
        ("MIT AND GPL-3.0-only", "copyleft"),
        ("MIT AND gemma", "custom"),
        ("MIT AND other", "unknown"),
        ("other AND cc-by-nc-4.0", "non-commercial"),
        ("MIT and GPL-3.0 and CC-BY-NC-4.0", "non-commercial"),
        # AND has precedence over OR.
        ("MIT OR GPL-3.0 AND cc-by-nc-4.0", "permissive"),
        ("GPL-3.0 AND cc-by-nc-4.0 OR MIT", "permissive"),
        ("(MIT OR GPL-3.0) AND cc-by-nc-4.0", "non-commercial"),
        ("(MIT OR GPL-3.0)AND(Apache-2.0)", "permissive"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
        ("MIT WITH Commons-Clause", "custom"),
        ("MIT OR", "custom"),
        ("OR MIT", "custom"),
        ("MIT Apache-2.0", "custom"),
        ("MIT, Apache-2.0", "custom"),
        ("MIT/Apache-2.0", "custom"),
        ("(MIT", "custom"),
        ("MIT)", "custom"),
        ("()", "custom"),
        ("MIT WITH", "custom"),
        ("MIT WITH (LLVM-exception)", "custom"),
        ("MIT AND NOT GPL-3.0", "custom"),
        ("(" * 5 + "MIT" + ")" * 5, "permissive"),
        ("(" * 240 + "MIT" + ")" * 240, "custom"),
        ("(" * 490 + "MIT", "custom"),
        ("(" * 9000 + "MIT" + ")" * 9000, "custom"),
        ("MIT " * 9000, "custom"),
    ],
)
def test_classify_expression(text, kind):
    assert classify(text) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SWAG, "non-commercial"),
        (SWAG.replace("https://", "http://").lower() + "/", "non-commercial"),
        ("https://creativecommons.org/licenses/by-nc/4.0/", "non-commercial"),
        ("http://www.creativecommons.org/licenses/by-nc-sa/3.0/legalcode.en", "non-commercial"),
        ("https://creativecommons.org/licenses/by/4.0/deed.de", "permissive"),
        ("https://creativecommons.org/licenses/by-sa/4.0", "copyleft"),
        ("https://creativecommons.org/licenses/by-nd/4.0", "custom"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "permissive"),
        ("https://opensource.org/licenses/MIT", "permissive"),
        ("https://opensource.org/license/bsd-3-clause/", "permissive"),
        ("https://spdx.org/licenses/Apache-2.0.html", "permissive"),
        ("https://spdx.org/licenses/", "custom"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "permissive"),
        ("https://www.gnu.org/licenses/gpl-3.0.en.html", "copyleft"),
        ("https://github.com/pytorch/vision/blob/main/LICENSE", "custom"),
        ("https://github.com/someone/SWAG/blob/main/LICENSE", "custom"),
        ("https://example.org/opensource.org/licenses/MIT", "custom"),
        ("https://opensource.org/licenses/MIT?or=not", "custom"),
        ("https://opensource.org/licenses/MIT OR gemma", "custom"),
        ("ftp://opensource.org/licenses/MIT", "custom"),
    ],
)
def test_classify_url(text, kind):
    assert classify(text) == kind


@pytest.mark.parametrize("junk", [5, ["MIT"], {"id": "MIT"}, b"MIT", True])
def test_classify_non_string_is_custom(junk):
    assert classify(junk) == "custom"


def test_in_words_appends_kind():
    assert in_words("cc-by-nc-4.0") == "cc-by-nc-4.0 (non-commercial)"
    assert in_words("Apache-2.0") == "Apache-2.0 (permissive)"
    assert in_words(None) == in_words("other") == "unknown"
    assert set(ADVICE) == set(KINDS) - {"permissive", "unknown"}


def test_matches_kind_or_pattern():
    assert matches("Apache-2.0", "permissive")
    assert matches("Apache-2.0", "Permissive ")
    assert matches("Apache-2.0", "apache-*")
    assert matches(SWAG, "https://*swag*")
    assert not matches("Apache-2.0", "apache")
    assert not matches("cc-by-nc-4.0", "permissive")
    assert matches(None, "unknown")
    assert not matches(None, "*")


def test_find_by_license_kind_of_default_weights():
    everything = zoo.list_backbones()
    kinds = Counter()
    for kind in KINDS:
        backbones = zoo.list_backbones(license=kind)
        assert all(classify(b.weights[0].license) == kind for b in backbones)
        kinds[kind] = len(backbones)
    # Each backbone with weights has one kind, one without weights none.
    assert kinds.total() == sum(b.pretrained for b in everything) < len(everything)
    assert kinds["unknown"] > 78
    assert kinds["copyleft"] == 0
    # Its default weights are permissive, other weights of it are not.
    name = "timm/vit_base_patch16_224"
    assert name in {b.id for b in zoo.list_backbones(license="permissive")}


def test_find_by_license_pattern():
    swag = zoo.list_backbones("vit_h_14", license="https://*SWAG*")
    assert [b.id for b in swag] == ["torchvision/vit_h_14"]
    lite = zoo.list_backbones(source="efficientnet_lite", license="apache-2.0")
    assert len(lite) == 3
    assert zoo.list_backbones(license="apache-3.0") == []
    assert zoo.list_backbones("lite0", license="mit") == []
    for misspelt, meant in (("permisive", "permissive"), ("Custm", "custom")):
        with pytest.raises(zoo.UsageError, match=f"did you mean {meant}"):
            zoo.list_backbones("lite0", license=misspelt)


def test_find_by_license_spelt_like_a_kind(install):
    install(
        "odd",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            for name, license in (("one", "customs"), ("two", "GPL-3.0"), ("three", None)):
                weights = (zoo.Weights("w", url="https://a.b/c", license=license),)
                yield zoo.Backbone(name, "a:b", (zoo.Head("fc"),), zoo.Preprocess(8),
                                   weights=weights)
            yield zoo.Backbone("four", "a:b", (zoo.Head("fc"),), zoo.Preprocess(8), license="MIT")
        """,
    )

    def names(license):
        return [b.name for b in zoo.list_backbones(source="odd", license=license)]

    assert names("customs") == names("custom") == ["one"]
    assert zoo.list_backbones("lite0", license="customs") == []
    assert names("copyleft") == ["two"]
    assert names("unknown") == ["three"]
    # Without weights there is nothing to license.
    assert names("permissive") == names("mit") == []


def test_licenses_module_imports_nothing_heavy():
    heavy = "{'torch', 'timm', 'numpy'}"
    code = f"import sys, zoo.registry.licenses; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
