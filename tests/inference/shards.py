"""WebDataset shards for tests, of real images."""

import io
import tarfile
from pathlib import Path


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar file of members by name."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def labelled(folder: Path, split: str = "train") -> list[tuple[str, bytes, str]]:
    """Return key, bytes and class of the images of a folder of class folders, in path order."""
    return [
        (f"{path.parent.name}-{path.stem}", path.read_bytes(), path.parent.name)
        for path in sorted((folder / split).rglob("*.*"))
    ]


def write_shards(folder: Path, samples: list[tuple[str, bytes, str]], each: int) -> list[Path]:
    """Write samples as shards with a label of the extension `.cls`."""
    folder.mkdir(exist_ok=True)
    paths = []
    for first in range(0, len(samples), each):
        members: dict[str, bytes] = {}
        for key, image, name in samples[first : first + each]:
            members |= {f"{key}.jpg": image, f"{key}.cls": name.encode()}
        paths.append(write_shard(folder / f"shard-{first // each:03}.tar", members))
    return paths
