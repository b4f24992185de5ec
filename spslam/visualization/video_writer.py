"""Write pictures to an MP4 or to a folder of PNG files; `image_window` shows them instead."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2

from spslam.errors import MissingDependencyError, OutputError
from spslam.io.files import PartFile, check_printable, write_atomic
from spslam.typing import UInt8Array


class VideoWriter(Protocol):
    """Receives pictures one after the other, inside of `with`."""

    def __enter__(self) -> VideoWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, image: UInt8Array) -> bool:
        """Receive a picture (H, W, 3) uint8, blue first; return False to end."""
        ...


class VideoFile:
    """Writes an MP4 (MPEG-4 Part 2, which every build of OpenCV can write).

    The last column of an odd width, or row of an odd height, is cut off. The file appears at the
    end of the `with` block, if it ends without an error; until then an older file stays.

    Args:
        path: path of the file.
        fps: pictures per second.

    Raises:
        OutputError: the file cannot be written, or is a pipe or a device: writing an MP4 needs
            random access.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._fps = fps
        self._size: tuple[int, int] | None = None
        self._writer = cv2.VideoWriter()
        # OpenCV takes UTF-8 only.
        check_printable(path)
        if path.is_dir():
            raise OutputError(
                f"cannot write a video to {path}: it is a folder; give --out a file name"
            )
        self._part = PartFile(path, suffix=".mp4")

    def __enter__(self) -> VideoFile:
        return self

    def show(self, image: UInt8Array) -> bool:
        """Add a picture.

        Raises:
            OutputError: its size differs from the first one's.
            MissingDependencyError: OpenCV cannot write videos.
        """
        size = (image.shape[1], image.shape[0])
        if self._size is None:
            self._size = size
            if not self._writer.open(
                str(self._part.path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size
            ):
                raise MissingDependencyError(
                    "this OpenCV cannot write MP4 (it was built without FFmpeg): "
                    "give --out a folder for PNG files"
                )
        if size != self._size:
            raise OutputError(
                f"a video has pictures of one size, found {size[0]}x{size[1]} after "
                f"{self._size[0]}x{self._size[1]}: give --out a folder for PNG files"
            )
        self._writer.write(image)
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.release()
        try:
            if kind is None and self._size is not None:
                self._part.publish()
        finally:
            self._part.discard()


class PngFolder:
    """Writes the files `000000.png`, `000001.png`, … to a folder.

    Raises:
        OutputError: the folder is not empty or cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise OutputError(
                    f"{path} is not empty and is left alone: give --out a new folder or FILE.mp4"
                )
        except OSError as error:
            raise OutputError(
                f"cannot write pictures to {path}: {error.strerror or error}"
            ) from None

    def __enter__(self) -> PngFolder:
        return self

    def show(self, image: UInt8Array) -> bool:
        """Write a picture."""
        _, data = cv2.imencode(".png", image)
        write_atomic(self._path / f"{self._count:06d}.png", data.tobytes())
        self._count += 1
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep the files."""
