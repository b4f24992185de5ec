"""Choose the topics of the images of a bag by type and name."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from spslam.errors import DatasetError
from spslam.frame import Sensor
from spslam.interfaces import SequenceRequest
from spslam.notices import notice

from .bag import Bag
from .camera_info import is_rectified
from .compressed import source_encoding
from .images import ImageRef, read_pixels
from .messages import CAMERA_INFO, COMPRESSED, IMAGE

_LOG = logging.getLogger(__name__)
# Ends of the names of topics that hold the images of another topic in another form.
_TRANSPORTS = ("/compressedDepth", "/compressed")
# Names of left and right cameras. Each is replaced in the whole name of a topic.
_SIDES = (
    ("left", "right"),
    ("infra1", "infra2"),
    ("infrared1", "infrared2"),
    ("fisheye1", "fisheye2"),
    ("ir1", "ir2"),
    ("cam0", "cam1"),
    ("cam_0", "cam_1"),
    ("camera0", "camera1"),
    ("camera_0", "camera_1"),
    ("image_0", "image_1"),
    ("image0", "image1"),
    ("cam1", "cam2"),
    ("cam_1", "cam_2"),
    ("camera1", "camera2"),
    ("camera_1", "camera_2"),
)
# Encodings of depth, and words in the names of topics with depth.
_DEPTH_ENCODINGS, _DEPTH_WORDS = ("16UC1", "32FC1", "mono16"), ("depth",)
# Words in the names of topics whose images are no pictures of a camera.
_NO_PICTURES = ("disparity", "confidence", "/mask", "theora")
# Messages that are tried for the encoding of a topic.
_PROBED = 3


@dataclass(frozen=True)
class ImageTopic:
    """A topic of images.

    Attributes:
        name: of the topic.
        base: its name without the transport (`/compressed`).
        encoding: of the images; before compression where that is known.
        frame: of the camera.
        size: width and height, pixels; None if no image could be decoded.
        is_depth: whether the images are depth.
    """

    name: str
    base: str
    encoding: str
    frame: str
    size: tuple[int, int] | None
    is_depth: bool

    def __str__(self) -> str:
        size = "undecodable" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        return f"{self.name} ({size} {self.encoding})"


@dataclass(frozen=True)
class Streams:
    """The topics of a sequence.

    Attributes:
        image: of the (left) images.
        right, depth: of the right or depth images, or None.
    """

    image: ImageTopic
    right: ImageTopic | None = None
    depth: ImageTopic | None = None

    @property
    def sensor(self) -> Sensor:
        """The sensor that the topics make."""
        if self.right is not None:
            return "stereo"
        return "mono" if self.depth is None else "rgbd"


def image_topics(bag: Bag) -> list[ImageTopic]:
    """Return the topics of images that hold messages."""
    names = [
        name
        for name, topic in bag.topics.items()
        if topic.kind in (IMAGE, COMPRESSED) and len(topic) and topic.encoding in ("ros1", "cdr")
    ]
    return [_describe(bag, name) for name in names]


def choose_streams(bag: Bag, request: SequenceRequest) -> Streams:
    """Choose the topics of a sequence.

    Args:
        bag: the bag.
        request: the user's choices.

    Raises:
        DatasetError: the bag has no images, the user's topics do not exist, or it is unclear which
            topics are meant.
    """
    every = image_topics(bag)
    if not every:
        kinds = sorted({topic.kind.split("/")[-1] for topic in bag.topics.values()})
        raise DatasetError(
            f"{bag.name} has no images (Image or CompressedImage), only {', '.join(kinds)}"
        )
    given = request.topics
    wanted = {
        option: _find(every, name, option)
        for option, name in (
            ("--topic", given.image),
            ("--right-topic", given.right),
            ("--depth-topic", given.depth),
        )
    }
    image, right, depth = wanted.values()
    if right is not None and depth is not None:
        raise DatasetError("give --right-topic or --depth-topic, not both")
    if (right or depth) is not None and request.sensor not in (
        "auto",
        "stereo" if right is not None else "rgbd",
    ):
        raise DatasetError(f"--sensor {request.sensor} does not use the topic {right or depth}")
    pictures = [topic for topic in _one_transport(every, bag) if _is_picture(topic)]
    if image is not None:
        pictures = [image]
    if right is not None or depth is not None:
        rest = [topic for topic in pictures if topic != right]
        image = image or (None if right is None else _partner(rest, right.base))
        return Streams(image or _only(rest, bag, "--topic"), right, depth)
    every_picture = [topic for topic in _one_transport(every, bag, image) if _is_picture(topic)]
    return _choose(bag, request.sensor, pictures, every_picture, every)


def _choose(
    bag: Bag,
    sensor: str,
    pictures: list[ImageTopic],
    partners: list[ImageTopic],
    every: list[ImageTopic],
) -> Streams:
    pairs = _pairs(pictures, partners)
    depths = [topic for topic in _one_transport(every, bag) if topic.is_depth]
    if sensor == "mono":
        if len(pairs) == 1 and len(pictures) == 2:
            return Streams(pairs[0][0])
        return Streams(_only(pictures, bag, "--topic"))
    if sensor == "stereo" or (sensor == "auto" and pairs):
        pair = _only_pair(pairs, bag, pictures)
        if sensor == "auto" and depths:
            text = "%s: the run is stereo (%s, %s), and %s is not used; --sensor rgbd uses it"
            names = pair[0].name, pair[1].name, depths[0].name
            notice(_LOG, "unused_stream", text, bag.name, *names)
        return Streams(*pair)
    if sensor == "rgbd" and not depths:
        raise DatasetError(f"{bag.name} has no topic of depth images: {_listed(every)}")
    registered = [
        (image, depth) for image in pictures for depth in depths if _is_registered(image, depth)
    ]
    if len(registered) == 1:
        return Streams(registered[0][0], depth=registered[0][1])
    if len(registered) > 1:
        raise DatasetError(
            f"{bag.name}: it is unclear which depth is meant: "
            f"{_listed(depth for _, depth in registered)}; choose with --topic and --depth-topic"
        )
    image = _only(pictures, bag, "--topic")
    if depths:
        why = _not_registered(image, depths[0])
        if sensor == "rgbd":
            raise DatasetError(f"{bag.name}: {why}")
        notice(_LOG, "unused_stream", "%s: the run is mono: %s", bag.name, why)
    return Streams(image)


def check_registered(image: ImageTopic, depth: ImageTopic, name: str) -> None:
    """Check depth that the user chose.

    Raises:
        DatasetError: it has another size than the images.
    """
    if image.size != depth.size:
        raise DatasetError(f"{name}: {_not_registered(image, depth)}")
    if image.frame != depth.frame:
        text = "%s: %s is of the frame %s, and %s of %s: used as registered, as it was chosen"
        notice(
            _LOG,
            "depth_frame",
            text,
            name,
            depth.name,
            depth.frame or "?",
            image.name,
            image.frame or "?",
        )


def find_camera_info(bag: Bag, image: ImageTopic) -> str | None:
    """Find the topic of the calibration of a topic of images: beside it, or below it."""
    parent = image.base.rpartition("/")[0]
    for name in (f"{parent}/camera_info", f"{image.base}/camera_info"):
        topic = bag.topics.get(name)
        if topic is not None and topic.kind == CAMERA_INFO and len(topic):
            return name
    same = [
        name
        for name, topic in bag.topics.items()
        if topic.kind == CAMERA_INFO
        and len(topic)
        and image.frame
        and _frame_of(bag, name) == image.frame
    ]
    return same[0] if len(same) == 1 else None


def _frame_of(bag: Bag, name: str) -> str:
    try:
        return str(bag.message(name, 0).header.frame_id)
    except DatasetError:
        return ""


def _describe(bag: Bag, name: str) -> ImageTopic:
    base = name
    for transport in _TRANSPORTS:
        base = base.removesuffix(transport)
    encoding, frame, size = "?", "", None
    for row in range(min(_PROBED, len(bag.topics[name]))):
        try:
            message = bag.message(name, row)
            form = str(getattr(message, "format", ""))
            encoding = str(getattr(message, "encoding", "")) or source_encoding(form) or form
            frame = str(message.header.frame_id)
            height, width = read_pixels(ImageRef(bag, name, row)).shape[:2]
            size = (int(width), int(height))
            break
        except DatasetError:
            continue
    return ImageTopic(name, base, encoding, frame, size, _is_depth(name, encoding))


def _is_depth(name: str, encoding: str) -> bool:
    if name.endswith("/compressedDepth") or encoding == "32FC1":
        return True
    words = any(word in name.lower() for word in _DEPTH_WORDS)
    return words and encoding in _DEPTH_ENCODINGS


def _is_picture(topic: ImageTopic) -> bool:
    return not topic.is_depth and not any(word in topic.name.lower() for word in _NO_PICTURES)


def _one_transport(
    topics: list[ImageTopic], bag: Bag, keep: ImageTopic | None = None
) -> list[ImageTopic]:
    """Return one topic of each image: the raw one, unless it has fewer messages.

    A topic that was chosen keeps its transport, and so does its partner.
    """
    best: dict[str, ImageTopic] = {}
    suffix = "" if keep is None else keep.name[len(keep.base) :]
    for topic in topics:
        other = best.get(topic.base)
        rank = (topic.name == topic.base + suffix and bool(suffix), len(bag.topics[topic.name]))
        if other is None or (rank, -len(topic.name)) > (
            (other.name == other.base + suffix and bool(suffix), len(bag.topics[other.name])),
            -len(other.name),
        ):
            best[topic.base] = topic
    return list(best.values())


def _find(topics: list[ImageTopic], name: str | None, option: str) -> ImageTopic | None:
    if name is None:
        return None
    found = next((topic for topic in topics if topic.name.strip("/") == name.strip("/")), None)
    if found is None:
        raise DatasetError(f"{option} {name} is no topic of images: {_listed(topics)}")
    return found


def _pairs(
    lefts: list[ImageTopic], partners: list[ImageTopic]
) -> list[tuple[ImageTopic, ImageTopic]]:
    by_name = {topic.base: topic for topic in partners}
    pairs = []
    for topic in lefts:
        for left, right in _SIDES:
            other = by_name.get(topic.base.replace(left, right))
            if left in topic.base and other is not None:
                pairs.append((topic, other))
                break
    return pairs


def _partner(topics: list[ImageTopic], right_base: str) -> ImageTopic | None:
    for left, right in _SIDES:
        name = right_base.replace(right, left)
        found = next((topic for topic in topics if topic.base == name != right_base), None)
        if found is not None:
            return found
    return None


def _only_pair(
    pairs: list[tuple[ImageTopic, ImageTopic]], bag: Bag, pictures: list[ImageTopic]
) -> tuple[ImageTopic, ImageTopic]:
    if not pairs:
        raise DatasetError(
            f"{bag.name}: no two topics have names of a left and a right camera: "
            f"{_listed(pictures)}; choose with --topic and --right-topic"
        )
    rectified = [pair for pair in pairs if is_rectified(pair[0].base)]
    if len(pairs) > 1 and len(rectified) == 1:
        text = "%s: of %d pairs, the rectified one is used (%s)"
        notice(_LOG, "chosen_topic", text, bag.name, len(pairs), rectified[0][0].name)
        return rectified[0]
    if len(pairs) > 1:
        raise DatasetError(
            f"{bag.name}: it is unclear which pair is meant: {_listed(p[0] for p in pairs)}; "
            "choose with --topic"
        )
    return pairs[0]


def _only(topics: list[ImageTopic], bag: Bag, option: str) -> ImageTopic:
    if len(topics) == 1:
        return topics[0]
    if not topics:
        raise DatasetError(f"{bag.name} has no images of a camera: {_listed(image_topics(bag))}")
    raise DatasetError(
        f"{bag.name}: it is unclear which images are meant: {_listed(topics)}; choose with {option}"
    )


def _is_registered(image: ImageTopic, depth: ImageTopic) -> bool:
    return image.size is not None and image.size == depth.size and image.frame == depth.frame


def _not_registered(image: ImageTopic, depth: ImageTopic) -> str:
    return (
        f"{depth} of the frame {depth.frame or '?'} is not registered to {image} of "
        f"{image.frame or '?'}: record depth that is aligned to the colour image "
        "(RealSense: aligned_depth_to_color), or choose with --depth-topic"
    )


def _listed(topics: Iterable[ImageTopic]) -> str:
    return ", ".join(map(str, topics))
