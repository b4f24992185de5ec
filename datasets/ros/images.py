"""Read the images of a bag by topic and number."""

from __future__ import annotations

from dataclasses import dataclass

from spslam.errors import DatasetError, FrameError

from .bag import Bag
from .compressed import decode_compressed
from .encodings import Pixels, decode_raw
from .messages import COMPRESSED


@dataclass(frozen=True, eq=False)
class ImageRef:
    """An image of a bag that is not read yet.

    Attributes:
        bag: the bag.
        topic: name of the topic.
        row: number of the message.
    """

    bag: Bag
    topic: str
    row: int

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return f"message {self.row} of {self.topic}"


def read_pixels(ref: ImageRef) -> Pixels:
    """Read an image as OpenCV has it: (H, W) or (H, W, channels), blue first.

    Raises:
        FrameError: the message or the image is damaged, or its encoding is unknown.
    """
    try:
        message = ref.bag.message(ref.topic, ref.row)
    except DatasetError as error:
        raise FrameError(str(error)) from None
    if ref.bag.topics[ref.topic].kind == COMPRESSED:
        return decode_compressed(message, ref.name)
    return decode_raw(message, ref.name)
