"""Read shards of WebDataset: tar files whose members with one key are one sample.

The key of a member is its path up to the first dot of its name, the rest is its extension, and the
members of a sample follow one another. A shard is read as a stream: nothing is extracted to disk,
and a damaged one is an error, also where Python's `tarfile` would end it in silence.
"""

from __future__ import annotations

import glob
import io
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import EOFHeaderError, HeaderError, ReadError, TarFile  # type: ignore[attr-defined]
from typing import IO, Any, Self

from zoo.data.formats import is_image
from zoo.errors import DataError, UsageError, listed
from zoo.files import open_regular, parse_json

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Extensions of labels, the first that a sample has counts.
LABELS = ("cls", "json", "txt")
# Keys of a JSON object that name its class.
LABEL_KEYS = ("label", "class", "cls", "class_name")
# A member is in memory while it is decoded. Larger images are damaged or no photographs.
MAX_IMAGE = 1 << 28
MAX_LABEL = 1 << 20
# A class is a name, of at most as many characters; a longer text is a caption.
MAX_NAME = 200
# Size in bytes of a path or further metadata that precede a member.
MAX_HEADER = 1 << 20
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass
class Sample:
    """A sample of a shard.

    Args:
        key: common to its members.
        image: the bytes of its image; empty without a readable one.
        label: name of its class; None without one.
        problem: why it has no image; None where it has.
    """

    key: str
    image: bytes = b""
    label: str | None = None
    problem: str | None = None


class _Member(tarfile.TarInfo):
    """A member of a tar file whose faults are errors wherever they are."""

    @classmethod
    def frombuf(cls, *args: Any) -> Self:
        """Parse a header.

        Raises:
            tarfile.ReadError: it announces metadata of an impossible size.
        """
        member = super().frombuf(*args)
        if member.type in HEADERS and member.size > MAX_HEADER:
            raise ReadError(f"a header of {member.size:,} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        """Read the next header.

        Raises:
            tarfile.ReadError: it is damaged, or the file ends before the end of the archive, where
                `tarfile` ends the archive unless the fault is in its first header.
            tarfile.EOFHeaderError: at the end of the archive.
        """
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            reason = str(error).replace("empty header", "it ends without the end of an archive")
            raise ReadError(reason) from error


@dataclass
class Shard:
    """A shard, and what was seen in it while its samples were read.

    Args:
        path: of the tar file.

    Attributes:
        others: number of members that are neither image nor label, by extension.
        labels: number of labels by the extension that they were read from.
    """

    path: Path
    others: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in order.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        try:
            with open_regular(self.path) as raw, io.BufferedReader(raw) as file:
                yield from self._samples(file)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"cannot read {self.path}: {reason}") from error

    def _samples(self, file: IO[bytes]) -> Iterator[Sample]:
        sample: Sample | None = None
        labels: dict[str, str | None] = {}
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                if member.isdir():
                    continue
                key, extension = _split(member.name)
                if sample is None or sample.key != key:
                    if sample is not None and (done := self._complete(sample, labels)):
                        yield done
                    sample, labels = Sample(key), {}
                if not member.isreg() or member.sparse is not None:
                    self.others["no regular file"] += 1
                elif "." not in extension and is_image(f"x.{extension}"):
                    _add_image(sample, archive, member)
                elif extension in LABELS:
                    labels[extension] = _read_label(archive, member, extension)
                else:
                    self.others[f".{extension}" if extension else "no extension"] += 1
                # `tarfile` remembers every member, and a stream never goes back to one.
                archive.members = []  # type: ignore[attr-defined]
        if sample is not None and (done := self._complete(sample, labels)):
            yield done

    def _complete(self, sample: Sample, labels: dict[str, str | None]) -> Sample | None:
        """Return a sample with its label; None for one without an image."""
        source = next((each for each in LABELS if labels.get(each) is not None), None)
        if not sample.image and sample.problem is None:
            self.others.update(f".{each} without an image" for each in labels)
            return None
        self.others.update(f".{each} without a class" for each in labels if labels[each] is None)
        if source is not None:
            sample.label = labels[source]
            self.labels[f".{source}"] += 1
        return sample


def _split(name: str) -> tuple[str, str]:
    """Return key and extension of a member, as WebDataset does; the extension in lower case."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _add_image(sample: Sample, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if sample.image or sample.problem is not None:
        sample.image, sample.problem = b"", "it has several images"
    elif member.size > MAX_IMAGE:
        sample.problem = f"{member.size:,} bytes are more than {MAX_IMAGE:,}"
    elif not member.size:
        sample.problem = "the file is empty"
    else:
        sample.image = _read(archive, member)


def _read_label(archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> str | None:
    """Return the name of a class; None where the member has none."""
    if member.size > MAX_LABEL:
        return None
    try:
        text = _read(archive, member).decode()
        value = parse_json(text) if extension == "json" else text
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in LABEL_KEYS if key in value), None)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    name = str(value).strip()
    return name if name and len(name) <= MAX_NAME and len(name.splitlines()) == 1 else None


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) != member.size:
        raise ReadError("unexpected end of data")
    return data


def names_shards(source: object) -> bool:
    """Whether a source is a tar file, or a pattern of tar files."""
    if not isinstance(source, (str, Path)):
        return False
    text = str(source)
    return text.endswith(SUFFIXES) or any(name.endswith(SUFFIXES) for name in _matches(text))


def shards_in(source: object) -> str | None:
    """Return the pattern of the shards in a folder; None where it has none."""
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        for suffix in SUFFIXES:
            if next(Path(source).glob(f"*{suffix}"), None):
                return f"'{Path(source) / f'*{suffix}'}'"
    return None


def shards_hint(source: object) -> str | None:
    """Return how to train on shards, for what reads images; None for other sources."""
    pattern = f"'{source}'" if names_shards(source) else shards_in(source)
    if pattern is None:
        return None
    embed = f"`zoo embed NAME --data {pattern} --out DIR`"
    return f"{embed} computes features of shards, and `zoo finetune --features DIR` trains on them"


def _matches(text: str) -> list[str]:
    """Return the paths that a pattern matches; none where the text is itself a path."""
    if Path(text).exists() or not glob.has_magic(text):
        return []
    return glob.glob(text, recursive=True)  # noqa: PTH207 - any text


def find_shards(pattern: str | Path) -> list[Path]:
    """Return the shards that a path or a pattern names, in the order of their paths.

    Raises:
        DataError: there are none, or it names other files too.
        UsageError: two have the same name.
    """
    text = str(pattern)
    matches = [text] if Path(text).exists() else _matches(text)
    if not matches:
        hint = f"the current folder is {Path.cwd()}"
        if "{" in text:
            hint = "braces are not expanded: write * for any text, or [0-9] for a digit"
        what = f"no file matches {text}" if glob.has_magic(text) else f"{text} does not exist"
        raise DataError(what, hint)
    if others := sorted(path for path in matches if not path.endswith(SUFFIXES)):
        message = f"{text} matches files other than shards: {listed(others)}"
        raise DataError(message, f"shards end in {', '.join(SUFFIXES)}")
    shards = sorted(map(Path, matches))
    names: dict[str, Path] = {}
    for shard in shards:
        other = names.setdefault(name_of(shard), shard)
        if other != shard:
            message = f"{other} and {shard} would have one output, as their names are equal"
            raise UsageError(message, "rename one, or give their folders one after the other")
    return shards


def name_of(shard: Path) -> str:
    """Return the name of a shard without the suffix of a tar file."""
    suffix = next(each for each in SUFFIXES if shard.name.endswith(each))
    return shard.name.removesuffix(suffix)
