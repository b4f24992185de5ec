"""The work of `spslam features` on one image: read, scale, extract; it runs in any process."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import __version__
from spslam.config import FeatureConfig
from spslam.errors import DatasetError, FeatureFileError, FrameError
from spslam.features.h5 import StoredFeatures
from spslam.frame import check_features, unit_descriptors
from spslam.process.failures import is_out_of_memory
from spslam.typing import BoolArray

if TYPE_CHECKING:
    from spslam.datasets.images.grey_levels import GreyScaling
    from spslam.features.masks import ImageMasks
    from spslam.interfaces import Extractor

# Bytes at the beginning of a file in which the orientation tag is searched.
_TAG_WITHIN = 1 << 17


@dataclass(frozen=True)
class ImageTask:
    """An image to process.

    Attributes:
        name: its name in the file of features.
        path: its file.
    """

    name: str
    path: Path


@dataclass(frozen=True, eq=False)
class Extracted:
    """Features of an image.

    Attributes:
        features: the features, in pixels of the original image.
        orientation: orientation tag of the image, 1 to 8; it is ignored.
        masked: fraction of the image that is masked; None: it has no mask.
    """

    features: StoredFeatures
    orientation: int
    masked: float | None = None


@dataclass(frozen=True)
class Unreadable:
    """An image without features.

    Attributes:
        reason: why it could not be read, in one line.
    """

    reason: str


@dataclass(frozen=True)
class ExtractionJob:
    """Settings of all processes that extract features.

    Attributes:
        config: the front end, as JSON.
        max_size: larger images are reduced to this many pixels on their longer side; None: never.
        black, white: values of 16-bit images that become 0 and 255.
        expected: version of spslam, identity and engine of the extractor; a process that has others
            refuses to work.
        shared: the job runs on other machines, where files may be missing.
        masks: mask image or folder, see `ImageMasks`; None: whole images are used.
    """

    config: str
    max_size: int | None
    black: int
    white: int
    expected: tuple[str, str, str]
    shared: bool = False
    masks: Path | None = None

    @contextmanager
    def start(self) -> Iterator[Callable[[ImageTask], Extracted | Unreadable]]:
        """Create the extractor; the block gets the function that processes an image.

        Raises:
            DatasetError: there are no masks.
            FeatureFileError: this process has another version, extractor or engine.
            WeightsError: the weights cannot be used.
        """
        from spslam.frontend.extractors.registry import create_extractor

        extractor = create_extractor(FeatureConfig.model_validate_json(self.config))
        found = (__version__, extractor.identity, extractor.engine)
        if found != self.expected:
            raise FeatureFileError(
                f"the worker on {platform.node()} has {' / '.join(found)}, expected "
                f"{' / '.join(self.expected)}: install the same version on all machines and choose "
                "the arithmetic by --set features.precision=fp32"
            )
        if self.masks is None:
            yield lambda task: self.process(extractor, task)
            return
        from spslam.features.masks import ImageMasks

        masks = ImageMasks(self.masks)
        yield lambda task: self.process(extractor, task, masks)

    def process(
        self, extractor: Extractor, task: ImageTask, masks: ImageMasks | None = None
    ) -> Extracted | Unreadable:
        """Extract the features of an image, where its mask uses it.

        Raises:
            FeatureFileError: the file is missing on a machine of a cluster.
        """
        from spslam.datasets.images.decoding import orientation_tag
        from spslam.datasets.images.grey_levels import GreyScaling

        if self.shared and not task.path.is_file():
            raise FeatureFileError(
                f"the worker on {platform.node()} has no file {task.path}: it must exist on all "
                "machines"
            )
        try:
            image = read_scaled(task.path, GreyScaling(self.black, self.white))
            try:
                mask = None if masks is None else masks.of(task.name, image.shape)
            except DatasetError as error:
                return Unreadable(str(error))
            features = extract_scaled(extractor, image, self.max_size, mask)
            with task.path.open("rb") as file:
                tag = orientation_tag(file.read(_TAG_WITHIN))
            return Extracted(features, tag, None if mask is None else float(np.mean(~mask)))
        except FrameError as error:
            # The name of the image is printed beside it.
            return Unreadable(str(error).removeprefix(f"{task.path.name}: "))
        except OSError as error:
            return Unreadable(error.strerror or str(error))
        except Exception as error:
            if is_out_of_memory(error):
                return Unreadable("out of memory: reduce it, or use --max-size")
            raise


def extract_scaled(
    extractor: Extractor,
    image: NDArray[np.uint8],
    max_size: int | None,
    mask: BoolArray | None = None,
) -> StoredFeatures:
    """Extract features in a reduced image, with positions in the given one.

    A point p of the reduced image lies at (p + 0.5) s - 0.5: pixel 0 is the centre of the first
    pixel, and s is the ratio of the sizes.

    Args:
        extractor: the extractor.
        image: (H, W) uint8.
        max_size: maximum length of the longer side, pixels; None: no limit.
        mask: (H, W), where keypoints may be, but for the margin that runs keep; None: everywhere.

    Raises:
        ExtractorError: the extractor returns features that cannot be right.
    """
    height, width = image.shape
    reduced = _reduced(image, max_size)
    scale = np.array([width / reduced.shape[1], height / reduced.shape[0]])
    found = (
        extractor.extract(reduced)
        if mask is None
        else extractor.extract_inside(reduced, _reduced_mask(mask, reduced.shape))
    )
    found = check_features(found, reduced.shape, extractor.name)
    descriptors = unit_descriptors(found.descriptors)
    keypoints = np.asarray(found.keypoints, np.float32)
    if reduced is not image:
        keypoints = np.asarray((keypoints + 0.5) * scale - 0.5, np.float32)
    return StoredFeatures(
        keypoints,
        np.asarray(found.scores, np.float32),
        descriptors,
        (width, height),
        float(extractor.pixel_sigma * scale.mean()),
    )


def on_cluster(
    request: tuple[int, ExtractionJob, ImageTask], stopped: Callable[[], bool]
) -> Extracted | Unreadable:
    """Process an image on a worker of a Dask cluster; see `spslam.process.cluster`."""
    _, job, task = request
    with _one_at_a_time:
        return _started(job)(task)


# Threads of a Dask worker would share the extractor, which may allow one thread only.
_one_at_a_time = Lock()
_entered = ExitStack()


@lru_cache(maxsize=1)
def _started(job: ExtractionJob) -> Callable[[ImageTask], Extracted | Unreadable]:
    # Never left: the extractor lives as long as the worker.
    return _entered.enter_context(job.start())


def read_scaled(path: Path, scaling: GreyScaling) -> NDArray[np.uint8]:
    """Read an image as (H, W) uint8, as runs do: 16 bits are scaled, tags are ignored."""
    from spslam.datasets.images.decoding import read_grey

    pixels = read_grey(path)
    if pixels.dtype == np.uint16:
        return scaling.apply(pixels.astype(np.uint16, copy=False))
    return pixels.astype(np.uint8, copy=False)


def _reduced(image: NDArray[np.uint8], max_size: int | None) -> NDArray[np.uint8]:
    height, width = image.shape
    if max_size is None or max(height, width) <= max_size:
        return image
    factor = max_size / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _reduced_mask(mask: BoolArray, shape: tuple[int, int]) -> BoolArray:
    """Return a mask in the size of a reduced image, with the margin that runs keep."""
    from spslam.slam.preprocessing import with_margin

    if mask.shape != shape:
        resized = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
        mask = np.asarray(resized) > 0
    return with_margin(mask)
