"""A TensorBoard event file, flushed after each record."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """Writes one event file, in the calling thread.

    Args:
        folder: of the file; both are created with the first record.

    Raises:
        OSError: from every method; the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: Path | None = None
        self._records: RecordWriter | None = None

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write scalars by tag."""
        self._write([Summary.Value(tag=t, simple_value=v) for t, v in values.items()], step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Write an image of mode RGB."""
        data = io.BytesIO()
        image.save(data, "PNG")
        summary = Summary.Image(
            height=image.height,
            width=image.width,
            colorspace=3,
            encoded_image_string=data.getvalue(),
        )
        self._write([Summary.Value(tag=tag, image=summary)], step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Write Markdown text."""
        plugin_data = SummaryMetadata.PluginData(plugin_name="text")
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(
            dtype=DT_STRING,
            tensor_shape=shape,
            string_val=[markdown.encode(errors="backslashreplace")],
        )
        metadata = SummaryMetadata(plugin_data=plugin_data)
        self._write([Summary.Value(tag=tag, metadata=metadata, tensor=tensor)], step)

    def discard_steps(self, first: int) -> None:
        """Let readers discard the records of earlier files from a step on."""
        start = SessionLog(status=SessionLog.START)
        self._put(Event(wall_time=time.time(), step=first, session_log=start))

    def close(self) -> None:
        """Close the file."""
        if self._records is not None:
            self._records.close()

    def discard(self) -> None:
        """Delete the file, and its folder if empty."""
        try:
            self.close()
        finally:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()

    def _write(self, values: list[Summary.Value], step: int) -> None:
        self._put(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _open(self) -> RecordWriter:
        self.folder.mkdir(exist_ok=True)
        # TensorBoard requires `tfevents` in the name.
        self.path = self.folder / f"events.out.tfevents.{time.time_ns()}.zoo"
        records = RecordWriter(self.path.open("xb"))
        first = Event(wall_time=time.time(), file_version="brain.Event:2")
        records.write(first.SerializeToString())
        return records

    def _put(self, event: Event) -> None:
        if self._records is None:
            self._records = self._open()
        self._records.write(event.SerializeToString())
        # So that a full disk is reported here, and TensorBoard shows the record at once.
        self._records.flush()
