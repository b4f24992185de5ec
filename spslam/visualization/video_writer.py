"""Where drawn pictures go: an MP4 or a folder of PNG files. A window is in `viewer_image`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2

from spslam.errors import MissingDependencyError, OutputError
from spslam.io.files import PartFile, check_printable, write_atomic
from spslam.typing import UInt8Array


class PictureSink(Protocol):
    """Something that takes pictures one after the other, inside of `with`."""

    def __enter__(self) -> PictureSink: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, image: UInt8Array) -> bool:
        """Take a picture (H, W, 3) uint8, blue first; False when nobody wants more."""
        ...


class VideoFile:
    """An MP4 (MPEG-4 Part 2, which every build of OpenCV can write; of an odd width or height the last
    pixel is cut off). It is there when the block ends well, and until
    then the file of that name stays as it was.

    Args:
        fps: pictures a second when it is played.

    Raises:
        OutputError: nothing can be written there, or it is a pipe or a device: who writes an MP4 goes back in it.
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
            OutputError: it has another size than the first one.
            MissingDependencyError: OpenCV cannot write videos.
        """
        size = (image.shape[1], image.shape[0])
        if self._size is None:
            self._size = size
            if not self._writer.open(
                str(self._part.path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size
            ):
                raise MissingDependencyError(
                    "this OpenCV cannot write MP4 (it was built without FFmpeg): give --out a folder for PNG files"
                )
        if size != self._size:
            raise OutputError(
                f"a video has pictures of one size, found {size[0]}x{size[1]} after {self._size[0]}x{self._size[1]}: "
                "give --out a folder for PNG files"
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
    """A folder of `000000.png`, `000001.png`, …

    Raises:
        OutputError: the folder holds something, or cannot be made.
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
        """Keep what was written."""
