"""Classify licences by kind, such as permissive or non-commercial.

The kind describes the terms and is not legal advice. A text that cannot be parsed is never
classified as permissive.

Sources: `permissive` contains the SPDX identifiers that the Blue Oak Council rates
(https://blueoakcouncil.org/list), and the data licences of Creative Commons, Open Data Commons and
the Linux Foundation that require attribution at most. `copyleft` and `non-commercial` follow the
text of each licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from zoo.errors import UsageError, nearest
from zoo.spec import Backbone

PERMISSIVE, COPYLEFT, CUSTOM = "permissive", "copyleft", "custom"
UNKNOWN, NON_COMMERCIAL = "unknown", "non-commercial"

# In order of preference: `A OR B` has the first kind of the two, `A AND B` the last.
KINDS = (PERMISSIVE, COPYLEFT, CUSTOM, UNKNOWN, NON_COMMERCIAL)

# The requirement of each restricted kind, for notices.
ADVICE = {
    COPYLEFT: "derived works may have to be shared under the same terms",
    CUSTOM: "their own terms, to be read before use",
    NON_COMMERCIAL: "not for commercial use",
}

_NOT_STATED = {"", "unknown", "other", "none", "noassertion", "n/a"}

_PERMISSIVE_IDS = """
0bsd adsl afl-1.1 afl-1.2 afl-2.0 afl-2.1 afl-3.0 apache-1.0 apache-1.1 apache-2.0 artistic-2.0
blueoak-1.0.0 bsd-1-clause bsd-2-clause bsd-2-clause-freebsd bsd-2-clause-patent bsd-3-clause
bsd-3-clause-attribution bsd-3-clause-clear bsd-3-clause-lbnl bsd-4-clause bsd-4-clause-uc bsl-1.0
cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-1.0 ecl-2.0 isc mit mit-0 mit-cmu ms-pl ncsa
odc-by-1.0 pddl-1.0 postgresql python-2.0 unlicense upl-1.0 w3c wtfpl x11 zlib
"""
_COPYLEFT_IDS = """
cddl-1.0 cddl-1.1 cdla-sharing-1.0 cecill-2.0 cecill-2.1 cpl-1.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2
mpl-1.0 mpl-1.1 mpl-2.0 odbl-1.0 osl-3.0
"""
_PERMISSIVE, _COPYLEFT = set(_PERMISSIVE_IDS.split()), set(_COPYLEFT_IDS.split())
_NON_COMMERCIAL = {
    "apple-amlr",  # "exclusively for Research Purposes"
    "fair-noncommercial-research-license",
    "polyform-noncommercial-1.0.0",
    "seer-license",  # "solely for your non-commercial research purposes"
}
# An SPDX exception only adds permissions; an unknown one after WITH may add conditions.
_EXCEPTIONS = {"llvm-exception", "swift-exception"}

_CREATIVE_COMMONS = r"cc-by(-nc)?(-sa|-nd)?(-\d\.\d(?:-[a-z]{2,3})?)?"
_GNU = r"([al]?gpl(-\d\.\d)?|gfdl-1\.\d)(-only|-or-later)?"

# The identifier of a licence by the pattern of its URL.
_URLS = {
    r"creativecommons\.org/licenses/(by[a-z-]*)/(\d\.\d)(/(deed|legalcode)[\w.-]*)?": r"cc-\1-\2",
    r"creativecommons\.org/publicdomain/zero/1\.0(/(deed|legalcode)[\w.-]*)?": "cc0-1.0",
    r"(?:opensource|spdx)\.org/licenses?/([\w.-]+?)(\.html|\.json|\.txt)?": r"\1",
    r"apache\.org/licenses/license-2\.0(\.html|\.txt)?": "apache-2.0",
    r"gnu\.org/licenses/([al]?gpl-\d\.\d)(\.en)?(\.html|\.txt)?": r"\1",
    r"github\.com/facebookresearch/swag/blob/main/license": "cc-by-nc-4.0",
}
# Longer or deeper expressions are not parsed: they could exhaust the stack.
_MAX_LENGTH, _MAX_DEPTH = 500, 20


class _SyntaxError(Exception):
    """The text is not an SPDX expression."""


def classify(license: object) -> str:
    """Return the kind of a licence, one of `KINDS`.

    Args:
        license: an SPDX identifier or expression, case-insensitive; a URL; any other text; None
            where not stated.

    Returns:
        `permissive`: may be used, modified, sold and distributed. `copyleft`: derived works must
        have the same terms. `non-commercial`. `custom`: an unknown text. `unknown`: not stated.
    """
    if license is None:
        return UNKNOWN
    text = license.strip().lower() if isinstance(license, str) else "?"
    if len(text) > _MAX_LENGTH or text.count("(") > _MAX_DEPTH:
        return CUSTOM
    if "://" in text:
        return _kind_of(_identifier(text))
    if text in _NOT_STATED:
        return UNKNOWN
    tokens = iter([*re.findall(r"[()]|[^\s()]+", text), ""])
    try:
        kind, end = _parse_or(tokens)
    except _SyntaxError:
        return CUSTOM
    return kind if not end else CUSTOM


def in_words(license: str | None) -> str:
    """Return a licence with its kind, `cc-by-nc-4.0 (non-commercial)`, or `unknown`."""
    kind = classify(license)
    return kind if kind == UNKNOWN else f"{license} ({kind})"


def matches(license: str | None, wanted: str) -> bool:
    """Whether a licence is of a kind, or its text matches a shell-style pattern."""
    wanted = wanted.strip().lower()
    if wanted in KINDS:
        return classify(license) == wanted
    return license is not None and fnmatchcase(license.lower(), wanted)


def with_license(
    license: str, candidates: Iterable[Backbone], everything: Iterable[Backbone]
) -> list[Backbone]:
    """Return the candidates whose default weights have a licence, in their order.

    Args:
        license: as for `matches`.
        candidates: to filter; those without weights never match.
        everything: all backbones; read only where a kind may be misspelt.

    Raises:
        UsageError: it is a misspelt kind, and no backbone has a licence of that name.
    """

    def filtered(backbones: Iterable[Backbone]) -> list[Backbone]:
        return [b for b in backbones if b.weights and matches(b.license, license)]

    licensed = filtered(candidates)
    near = () if licensed or license.strip().lower() in KINDS else nearest(license, KINDS)
    if near and not filtered(everything):
        message = f"no licence and no kind of licence is named {license!r}"
        raise UsageError(message, f"did you mean {', '.join(near)}?")
    return licensed


def _identifier(url: str) -> str:
    """Return the licence identifier of a URL, or the URL if it is unknown."""
    bare = re.sub(r"^https?://(www\.)?", "", url).rstrip("/")
    for pattern, name in _URLS.items():
        if match := re.fullmatch(pattern, bare):
            return match.expand(name)
    return url


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
    if match := re.fullmatch(_CREATIVE_COMMONS, name):
        non_commercial, condition, version = match.groups()
        if non_commercial:
            return NON_COMMERCIAL
        if condition == "-sa":
            return COPYLEFT
        # NoDerivatives forbids fine-tuning, or distributing the result.
        return PERMISSIVE if version and not condition else CUSTOM
    return CUSTOM


def _parse_or(tokens: Iterator[str]) -> tuple[str, str]:
    """Parse `A OR B ...`; return the best kind and the token after it."""
    kind, token = _parse_and(tokens)
    while token == "or":
        other, token = _parse_and(tokens)
        kind = min(kind, other, key=KINDS.index)
    return kind, token


def _parse_and(tokens: Iterator[str]) -> tuple[str, str]:
    """Parse `A AND B ...`; return the worst kind and the token after it."""
    kind, token = _parse_term(tokens)
    while token == "and":
        other, token = _parse_term(tokens)
        kind = max(kind, other, key=KINDS.index)
    return kind, token


def _parse_term(tokens: Iterator[str]) -> tuple[str, str]:
    """Parse an identifier with an optional exception, or an expression in parentheses."""
    token = next(tokens)
    if token == "(":
        kind, closing = _parse_or(tokens)
        if closing != ")":
            raise _SyntaxError
        return kind, next(tokens)
    if token in ("", ")", "and", "or", "with"):
        raise _SyntaxError
    kind, token = _kind_of(token), next(tokens)
    if token == "with":
        exception = next(tokens)
        if exception in ("", "(", ")", "and", "or", "with"):
            raise _SyntaxError
        if kind == PERMISSIVE and exception not in _EXCEPTIONS:
            kind = CUSTOM
        token = next(tokens)
    return kind, token
