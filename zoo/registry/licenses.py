"""What kind of licence a text names, for a person who asks "may I use this at work?".

A description of terms and no advice: whoever relies on weights reads their licence. A text that is
not understood is never called permissive.

Where the kinds are from: `permissive` is what the Blue Oak Council's list of permissive licences
(https://blueoakcouncil.org/list) rates, under its SPDX identifiers, and for data the licences of
Creative Commons, Open Data Commons and the Linux Foundation that by their own text ask for credit
at most. `copyleft` and `non-commercial` are what the licence's own text says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

PERMISSIVE, COPYLEFT, CUSTOM = "permissive", "copyleft", "custom"
UNKNOWN, NON_COMMERCIAL = "unknown", "non-commercial"

# The best first: of `A OR B` the first of two holds, of `A AND B` the last.
KINDS = (PERMISSIVE, COPYLEFT, CUSTOM, UNKNOWN, NON_COMMERCIAL)

# What each kind but the permissive one asks of its user, in a notice.
ADVICE = {
    COPYLEFT: "what is made of them may have to be shared under the same terms",
    CUSTOM: "terms of their own, to be read before use",
    NON_COMMERCIAL: "not for commercial use",
}

_NOT_STATED = {"", "unknown", "other", "none", "noassertion", "n/a"}

_FREE_TEXT = """
0bsd adsl afl-1.1 afl-1.2 afl-2.0 afl-2.1 afl-3.0 apache-1.0 apache-1.1 apache-2.0 artistic-2.0
blueoak-1.0.0 bsd-1-clause bsd-2-clause bsd-2-clause-freebsd bsd-2-clause-patent bsd-3-clause
bsd-3-clause-attribution bsd-3-clause-clear bsd-3-clause-lbnl bsd-4-clause bsd-4-clause-uc bsl-1.0
cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-1.0 ecl-2.0 isc mit mit-0 mit-cmu ms-pl ncsa
odc-by-1.0 pddl-1.0 postgresql python-2.0 unlicense upl-1.0 w3c wtfpl x11 zlib
"""
_SHARED_TEXT = """
cddl-1.0 cddl-1.1 cdla-sharing-1.0 cecill-2.0 cecill-2.1 cpl-1.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2
mpl-1.0 mpl-1.1 mpl-2.0 odbl-1.0 osl-3.0
"""
_PERMISSIVE, _COPYLEFT = set(_FREE_TEXT.split()), set(_SHARED_TEXT.split())
_NON_COMMERCIAL = {
    "apple-amlr",  # "exclusively for Research Purposes"
    "fair-noncommercial-research-license",
    "polyform-noncommercial-1.0.0",
    "seer-license",  # "solely for your non-commercial research purposes"
}
# Exceptions only ever add a permission, but a word after WITH that is none could be anything.
_EXCEPTIONS = {"llvm-exception", "swift-exception"}

_CREATIVE_COMMONS = r"cc-by(-nc)?(-sa|-nd)?(-\d\.\d(?:-[a-z]{2,3})?)?"
_GNU = r"([al]?gpl(-\d\.\d)?|gfdl-1\.\d)(-only|-or-later)?"

# Addresses that say by themselves, or in what is kept there, which licence it is.
_ADDRESSES = {
    r"creativecommons\.org/licenses/(by[a-z-]*)/(\d\.\d)(/(deed|legalcode)[\w.-]*)?": r"cc-\1-\2",
    r"creativecommons\.org/publicdomain/zero/1\.0(/(deed|legalcode)[\w.-]*)?": "cc0-1.0",
    r"(?:opensource|spdx)\.org/licenses?/([\w.-]+?)(\.html|\.json|\.txt)?": r"\1",
    r"apache\.org/licenses/license-2\.0(\.html|\.txt)?": "apache-2.0",
    r"gnu\.org/licenses/([al]?gpl-\d\.\d)(\.en)?(\.html|\.txt)?": r"\1",
    r"github\.com/facebookresearch/swag/blob/main/license": "cc-by-nc-4.0",
}
# What is longer or deeper is no licence that anybody would write, and might exhaust the stack.
_LONGEST, _DEEPEST = 500, 20


class _NotUnderstood(Exception):
    """The text is no expression of SPDX's."""


def classify(license: object) -> str:
    """Return the kind of a licence, one of `KINDS`.

    Args:
        license: an SPDX identifier or expression, in any case; an address; anything else, and None
            where none is stated.

    Returns:
        `permissive`: use, change, sell, pass on. `copyleft`: what is made of it must be shared
        under its terms. `non-commercial`. `custom`: a text that zoo does not know. `unknown`: none
        is stated.
    """
    if license is None:
        return UNKNOWN
    text = license.strip().lower() if isinstance(license, str) else "?"
    if len(text) > _LONGEST or text.count("(") > _DEEPEST:
        return CUSTOM
    if "://" in text:
        return _kind_of(_named_by(text))
    if text in _NOT_STATED:
        return UNKNOWN
    tokens = iter([*re.findall(r"[()]|[^\s()]+", text), ""])
    try:
        kind, last = _alternatives(tokens)
    except _NotUnderstood:
        return CUSTOM
    return kind if not last else CUSTOM


def in_words(license: str | None) -> str:
    """Return a licence with its kind for people: `cc-by-nc-4.0 (non-commercial)`, or `unknown`."""
    kind = classify(license)
    return kind if kind == UNKNOWN else f"{license} ({kind})"


def matches(license: str | None, wanted: str) -> bool:
    """Whether a licence is of a kind, or its text is as a shell-style wildcard has it."""
    wanted = wanted.strip().lower()
    if wanted in KINDS:
        return classify(license) == wanted
    return license is not None and fnmatchcase(license.lower(), wanted)


def _named_by(address: str) -> str:
    """Return the identifier that an address stands for, or the address."""
    bare = re.sub(r"^https?://(www\.)?", "", address).rstrip("/")
    for pattern, name in _ADDRESSES.items():
        if found := re.fullmatch(pattern, bare):
            return found.expand(name)
    return address


def _kind_of(name: str) -> str:
    """Return the kind of one identifier."""
    name = name.removesuffix("+")
    if name in _NOT_STATED:
        return UNKNOWN
    if name in _PERMISSIVE:
        return PERMISSIVE
    if name in _COPYLEFT or re.fullmatch(_GNU, name):
        return COPYLEFT
    if name in _NON_COMMERCIAL:
        return NON_COMMERCIAL
    if common := re.fullmatch(_CREATIVE_COMMONS, name):
        non_commercial, condition, version = common.groups()
        if non_commercial:
            return NON_COMMERCIAL
        if condition == "-sa":
            return COPYLEFT
        # What may not be changed may not be fine-tuned, or not be passed on then.
        return PERMISSIVE if version and not condition else CUSTOM
    return CUSTOM


def _alternatives(tokens: Iterator[str]) -> tuple[str, str]:
    """Read `A OR B ...`; return the best kind, and the token that ended it."""
    kind, token = _together(tokens)
    while token == "or":
        other, token = _together(tokens)
        kind = min(kind, other, key=KINDS.index)
    return kind, token


def _together(tokens: Iterator[str]) -> tuple[str, str]:
    """Read `A AND B ...`; return the worst kind, and the token that ended it."""
    kind, token = _one(tokens)
    while token == "and":
        other, token = _one(tokens)
        kind = max(kind, other, key=KINDS.index)
    return kind, token


def _one(tokens: Iterator[str]) -> tuple[str, str]:
    """Read an identifier, maybe with an exception, or what stands in brackets."""
    token = next(tokens)
    if token == "(":
        kind, closing = _alternatives(tokens)
        if closing != ")":
            raise _NotUnderstood
        return kind, next(tokens)
    if token in ("", ")", "and", "or", "with"):
        raise _NotUnderstood
    kind, token = _kind_of(token), next(tokens)
    if token == "with":
        exception = next(tokens)
        if exception in ("", "(", ")", "and", "or", "with"):
            raise _NotUnderstood
        if kind == PERMISSIVE and exception not in _EXCEPTIONS:
            kind = CUSTOM
        token = next(tokens)
    return kind, token
