"""Shards of WebDataset, as streams."""

import gzip
import io
import tarfile

import pytest

import zoo
from tests.inference.shards import write_shard
from zoo.data import shards
from zoo.data.shards import Sample, Shard, find_shards, names_shards, shards_in


def test_members_of_one_key_are_a_sample(tmp_path):
    path = write_shard(
        tmp_path / "a.tar",
        {
            "x/1.jpg": b"one",
            "x/1.cls": b"7\n",
            "x/2.JPEG": b"two",
            "x/2.json": b'{"width": 3, "label": "cat"}',
            "x/3.txt": b"dog",
            "x/3.png": b"three",
            "x/4.png": b"four",
        },
    )
    assert list(Shard(path).samples()) == [
        Sample("x/1", b"one", "7"),
        Sample("x/2", b"two", "cat"),
        Sample("x/3", b"three", "dog"),
        Sample("x/4", b"four", None),
    ]


def test_other_members_are_counted_by_extension(tmp_path):
    members = {
        "1.jpg": b"one",
        "1.seg.png": b"mask",
        "1.npy": b"array",
        "2.npy": b"array",
        "3.jpg": b"three",
        "3.txt": b"a caption\nof two lines",
        "4.cls": b"0",
        "5.jpg": b"five",
        "5.png": b"five too",
        "README": b"text",
    }
    shard = Shard(write_shard(tmp_path / "a.tar", members))
    samples = list(shard.samples())
    assert [(s.key, s.label, s.problem) for s in samples] == [
        ("1", None, None),
        ("3", None, None),
        ("5", None, "it has several images"),
    ]
    assert shard.others == {
        ".seg.png": 1,
        ".npy": 2,
        ".txt without a class": 1,
        ".cls without an image": 1,
        "no extension": 1,
    }


def test_compressed_shard_is_read(tmp_path):
    plain = write_shard(tmp_path / "a.tar", {"1.jpg": b"one"})
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert [s.image for s in Shard(tmp_path / "b.tar.gz").samples()] == [b"one"]


def test_links_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        image = tarfile.TarInfo("2.jpg")
        image.size = 3
        archive.addfile(image, io.BytesIO(b"two"))
    shard = Shard(tmp_path / "a.tar")
    assert [s.key for s in shard.samples()] == ["2"]
    assert shard.others == {"no regular file": 1}


# `tarfile` itself ends at each of these without an error, but for the cut within a member.
@pytest.mark.parametrize("cut", ["member", "between", "header", "no end"])
def test_damaged_shard_is_refused(tmp_path, cut):
    path = write_shard(tmp_path / "a.tar", {"1.jpg": b"1" * 700, "2.jpg": b"2" * 700})
    data = bytearray(path.read_bytes())
    second = 512 + 1024
    if cut == "header":
        data[second : second + 100] = b"\xff" * 100
    else:
        data = data[: {"member": second + 600, "between": second, "no end": 2 * second}[cut]]
    path.write_bytes(data)
    with pytest.raises(zoo.DataError, match=r"a\.tar is damaged"):
        list(Shard(path).samples())


def test_sizes_of_members_are_bounded(tmp_path, monkeypatch):
    path = write_shard(tmp_path / "a.tar", {"1.jpg": b"one!", "2.jpg": b"two"})
    monkeypatch.setattr(shards, "MAX_IMAGE", 3)
    assert [s.problem for s in Shard(path).samples()] == ["4 bytes are more than 3", None]
    long = tarfile.TarInfo("1.jpg")
    long.type, long.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "b.tar").write_bytes(long.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(zoo.DataError, match="a header of 1,099,511,627,776 bytes"):
        list(Shard(tmp_path / "b.tar").samples())


def test_patterns_name_shards_in_order(tmp_path):
    for name in ("s-10.tar", "s-02.tar", "other.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_shards(tmp_path / "s-*.tar")] == ["s-02.tar", "s-10.tar"]
    for pattern, reason in (
        ("t-*.tar", r"no file matches .*; the current folder is /"),
        ("s-{01..10}.tar", "does not exist; braces are not expanded"),
        ("s-01.tar", r"s-01\.tar does not exist"),
        ("*", r"matches files other than shards: .*other\.txt; shards end in"),
    ):
        with pytest.raises(zoo.DataError, match=reason):
            find_shards(tmp_path / pattern)
    assert names_shards(tmp_path / "s-*")
    assert not names_shards(tmp_path / "o*")
    assert shards_in(tmp_path) == f"'{tmp_path}/*.tar'"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "s-02.tgz").write_bytes(b"")
    with pytest.raises(zoo.UsageError, match="would have one output"):
        find_shards(tmp_path / "**" / "s-*.t*")
