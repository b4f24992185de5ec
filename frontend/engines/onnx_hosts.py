"""SuperPoint as ONNX files for programs that load a foreign model by the names of its outputs.

Each program has its own input, coordinates and shapes; docs/export.md lists them with the
versions that they were read from. All models convert their input to the grey bytes that the
extractor gets, so the keypoints are the extractor's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spslam.config import FeatureConfig
from spslam.errors import ConfigError

from ..superpoint.decoder import CELL
from ..superpoint.dense_heads import DenseHeads
from ..superpoint.superpoint import SuperPoint, detector_probabilities
from .onnx_model import AxisNames, export_onnx, half_weights
from .onnx_points import selection_metadata
from .point_selection import PointSelection, limited

HostName = Literal["opencv-disk", "opencv-aliked", "colmap", "lightglue-onnx", "nchw"]
# Weights of red, green and blue in OpenCV's conversion to grey, in units of 1/32768.
_GREY_WEIGHTS = (9798.0, 19235.0, 3735.0)
# OpenCV's DISK returns whole pixels. Its model takes an image of twice the size and answers in
# its pixels, so that positions come in steps of half a pixel.
DISK_STEPS = 2
# Undoes a bilinear enlargement by 2 along one axis: (-1, 3, 3, -1) / 4 around each pair of pixels.
_REDUCING = (-0.25, 0.75, 0.75, -0.25)
# COLMAP pads images to multiples of this number, pixels.
_COLMAP_PADDING = 32
# Descriptors of the networks in OpenCV's two slots have this length.
_OPENCV_LENGTH = 128
# Height and width of the example for models of any size, pixels.
_TRACED_SIZE = (4 * _COLMAP_PADDING, 5 * _COLMAP_PADDING)


@dataclass(frozen=True)
class Host:
    """A program, or a layout that several programs share.

    Attributes:
        size: default width and height of the network's image, pixels; None: any size.
        length: length of the descriptors; None: any.
        taken: settings of the selection that the program gives itself.
        usage: how the program loads the file, with {file}, {width} and {height}.
        coordinates: the rule of its keypoints, for the metadata.
        description: inputs and outputs, for the file; with {width} and {height}.
        build: makes the module, for the size (width, height).
        outputs: names of the outputs and of their axes.
        selects: whether the model selects keypoints.
    """

    size: tuple[int, int] | None
    length: int | None
    taken: tuple[str, ...]
    usage: str
    coordinates: str
    description: str
    build: Callable[[SuperPoint, FeatureConfig], nn.Module]
    outputs: AxisNames
    selects: bool = True


def check_host(name: HostName, network: SuperPoint, size: tuple[int, int] | None) -> None:
    """Check that a network and a size of image (width, height) fit a host.

    Raises:
        ConfigError: they do not.
    """
    host = HOSTS[name]
    if host.length not in (None, network.descriptor_dim):
        raise ConfigError(
            f"{name} needs descriptors of {host.length} numbers, as superpoint_lite has, "
            f"found {network.descriptor_dim}"
        )
    if size is None:
        return
    if host.size is None:
        raise ConfigError(f"--size needs --to opencv-disk or opencv-aliked: {name} takes any size")
    if any(side % CELL or side < 4 * CELL for side in size):
        raise ConfigError(
            f"--size needs multiples of {CELL} from {4 * CELL} on, found {size[0]}x{size[1]}"
        )


def convert_host(
    name: HostName,
    network: SuperPoint,
    config: FeatureConfig,
    size: tuple[int, int] | None = None,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
) -> bytes:
    """Convert a network to the ONNX file of a host.

    Args:
        name: the host.
        network: the network.
        config: the settings of the selection.
        size: width and height of the network's image, pixels; None: the host's default.
        metadata: additional entries of the file's metadata.
        half: store the weights in float16; the arithmetic stays float32.

    Raises:
        ConfigError: the network or the size does not fit the host.
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    check_host(name, network, size)
    host = HOSTS[name]
    used = size or host.size
    about = {
        **(metadata or {}),
        **selection_metadata(network, config),
        "host": name,
        "coordinates": host.coordinates,
    }
    if not host.selects:
        del about["selection"]
    if used is not None:
        about["image_size"] = f"{used[0]}x{used[1]}"
    text = host.description.format(**_sizes(used))
    examples, axes = _inputs(name, used)
    model = export_onnx(host.build(network, config), examples, axes, host.outputs, text, about)
    return half_weights(model) if half else model


def usage(name: HostName, file: str, size: tuple[int, int] | None) -> str:
    """Return a line that says how the host loads a file."""
    return HOSTS[name].usage.format(file=file, **_sizes(size or HOSTS[name].size))


def _sizes(size: tuple[int, int] | None) -> dict[str, int]:
    """Return the numbers for the texts of a host."""
    width, height = size or (0, 0)
    return {
        "width": width,
        "height": height,
        "double_width": DISK_STEPS * width,
        "double_height": DISK_STEPS * height,
    }


def _inputs(
    name: HostName, size: tuple[int, int] | None
) -> tuple[dict[str, Tensor], list[dict[int, Any]]]:
    """Return an example of each input by its name, and its axes that may have any size."""
    generator = torch.Generator().manual_seed(0)
    if size is not None:
        steps = DISK_STEPS if name == "opencv-disk" else 1
        width, height = (steps * side for side in size)
        return {"image": torch.rand(1, 3, height, width, generator=generator)}, [{}]
    dim = torch.export.Dim
    if name == "colmap":
        rows, columns = dim("rows", min=1), dim("columns", min=1)
        examples = {
            "image": torch.rand(1, 3, *_TRACED_SIZE, generator=generator),
            "max_keypoints": torch.tensor(500),
            "min_score": torch.tensor(0.1),
        }
        return examples, [{2: _COLMAP_PADDING * rows, 3: _COLMAP_PADDING * columns}, {}, {}]
    if name == "nchw":
        axes = {0: dim("batch", min=1), 2: CELL * dim("rows", min=1)}
        axes[3] = CELL * dim("columns", min=1)
        return {"image": torch.rand(2, 1, *_TRACED_SIZE, generator=generator)}, [axes]
    axes = {2: dim("height", min=2 * CELL), 3: dim("width", min=2 * CELL)}
    traced = _TRACED_SIZE[0] + 3, _TRACED_SIZE[1] + 5
    return {"image": torch.rand(1, 1, *traced, generator=generator)}, [axes]


class _Model(nn.Module):
    """The network and the selection of keypoints."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._dense = DenseHeads(network)
        self._select = PointSelection(config, network.sampling)

    def _fixed(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select keypoints in grey bytes (1, H, W) float32; always the same number of them."""
        heat, cells = self._dense(grey)
        return self._select.fixed(heat[0], cells[0])


class _OpenCvDisk(_Model):
    """The model for `cv2.DISK`; its input is twice as large as the network's image."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `HOSTS`."""
        kernel = torch.tensor(_REDUCING)
        red_green_blue = functional.pad(_channels(_bytes(image)), (1, 1, 1, 1), mode="replicate")
        reduced = functional.conv2d(
            red_green_blue.transpose(0, 1), (kernel[:, None] * kernel)[None, None], stride=2
        ).transpose(0, 1)
        points, scores, descriptors = self._fixed(_grey(torch.round(reduced).clamp(0, 255)))
        return torch.round(points * DISK_STEPS).long()[None], scores[None], descriptors[None]


class _OpenCvAliked(_Model):
    """The model for `cv2.ALIKED`."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `HOSTS`."""
        height, width = image.shape[2:]
        points, scores, descriptors = self._fixed(_grey(_channels(_bytes(image))))
        # OpenCV keeps points whatever their scores: return those that are points, and one at least.
        real = (scores > 0) | (torch.arange(scores.shape[0]) == 0)
        kept = torch.nonzero(real)[:, 0]
        points, descriptors = (
            torch.index_select(each, 0, kept)
            for each in (
                points * (2 / torch.tensor([float(width), float(height)])) - 1,
                descriptors,
            )
        )
        return points, descriptors, torch.index_select(scores, 0, kept)


class _Colmap(_Model):
    """The model for the ALIKED slot of COLMAP."""

    def forward(
        self, image: Tensor, max_keypoints: Tensor, min_score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `HOSTS`."""
        height, width = image.shape[2:]
        heat, cells = self._dense(_grey(_bytes(image)))
        points, scores, descriptors = self._select(heat[0], cells[0], max_keypoints, min_score)
        scale = [
            2 / (torch.scalar_tensor(side, dtype=torch.float32) - 1) for side in (width, height)
        ]
        return (points * torch.stack(scale) - 1)[None], descriptors[None], scores[None]


class _LightGlueOnnx(_Model):
    """The extractor for LightGlue-ONNX's pipelines."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `HOSTS`."""
        height, width = image.shape[2:]
        rows, columns = (
            limited(torch.arange((side + CELL - 1) // CELL * CELL), side - 1)
            for side in (height, width)
        )
        padded = torch.index_select(torch.index_select(_bytes(image)[0], 1, rows), 2, columns)
        heat, cells = self._dense(padded)
        points, scores, descriptors = self._select(heat[0, :height, :width], cells[0])
        return points[None], scores[None], descriptors[None]


class _DenseFloats(nn.Module):
    """The maps in the layout of SuperPoint's decoders in other languages."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._network = DenseHeads(network).network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `HOSTS`."""
        logits, descriptors = self._network(image)
        return detector_probabilities(logits), functional.normalize(descriptors, dim=1)


def _bytes(image: Tensor) -> Tensor:
    """Return the bytes, as floats, that a program divided by 255."""
    return torch.round(image * 255)


def _channels(image: Tensor) -> Tensor:
    """Return the three channels (1, 3, H, W) of an image of three channels or one.

    OpenCV's slots pass on grey images as one channel, whatever the model says.
    """
    return torch.cat([image[:, :1], image[:, -2:][:, :1], image[:, -1:]], dim=1)


def _grey(image: Tensor) -> Tensor:
    """Convert bytes (1, 3, H, W) to grey (1, H, W) as `cv2.cvtColor` does, bit by bit.

    The sums stay below 2²⁴, so float32 holds them exactly.
    """
    red, green, blue = (image[:, channel] * weight for channel, weight in enumerate(_GREY_WEIGHTS))
    return torch.floor((red + green + blue + 16384.0) / 32768.0)


_OPENCV_OUTPUTS: AxisNames = {
    "keypoints": (None, None, None),
    "scores": (None, None),
    "descriptors": (None, None, None),
}
HOSTS: dict[HostName, Host] = {
    "opencv-disk": Host(
        size=(640, 480),
        length=_OPENCV_LENGTH,
        taken=(),
        usage='cv2.DISK_create("{file}", imageSize=({double_width}, {double_height}))',
        coordinates="whole pixels of the input, which is twice as large as the network's image",
        description="""SuperPoint in the DISK slot of OpenCV 5.
image: (1, 3, {double_height}, {double_width}) float32, RGB in [0, 1], an image of \
{width}x{height} enlarged by 2.
keypoints: (1, N, 2) int64, x y in pixels of the input; N is always the same.
scores: (1, N) float32, best first; 0 where the image has fewer keypoints.
descriptors: (1, N, 128) float32 of length 1.
""",
        build=_OpenCvDisk,
        outputs=_OPENCV_OUTPUTS,
    ),
    "opencv-aliked": Host(
        size=(640, 640),
        length=_OPENCV_LENGTH,
        taken=(),
        usage='cv2.ALIKED_create("{file}", params) with params.inputSize = ({width}, {height})',
        coordinates="2 * pixel / side - 1",
        description="""SuperPoint in the ALIKED slot of OpenCV 5.
image: (1, 3, {height}, {width}) float32, RGB in [0, 1].
keypoints: (N, 2) float32, x y: 2 * pixel / side - 1.
descriptors: (N, 128) float32 of length 1.
scores: (N,) float32, best first. An image without keypoints gives one of score 0.
""",
        build=_OpenCvAliked,
        outputs={
            "keypoints": ("points", None),
            "descriptors": ("points", None),
            "scores": ("points",),
        },
    ),
    "colmap": Host(
        size=None,
        length=None,
        taken=("max_keypoints", "threshold"),
        usage="colmap feature_extractor --FeatureExtraction.type ALIKED_N16ROT "
        "--AlikedExtraction.n16rot_model_path {file} --AlikedExtraction.min_score 0.0001",
        coordinates="2 * pixel / (side - 1) - 1",
        description="""SuperPoint in the ALIKED slot of COLMAP 4.
image: (1, 3, H, W) float32, RGB in [0, 1]; H and W are multiples of 32.
max_keypoints: () int64.
min_score: () float32, the least probability of a keypoint.
keypoints: (1, N, 2) float32, x y: 2 * pixel / (side - 1) - 1.
descriptors: (1, N, D) float32 of length 1.
scores: (1, N) float32, best first.
""",
        build=_Colmap,
        outputs={
            "keypoints": (None, "points", None),
            "descriptors": (None, "points", None),
            "scores": (None, "points"),
        },
    ),
    "lightglue-onnx": Host(
        size=None,
        length=None,
        taken=(),
        usage="LightGlue-ONNX: load {file} as its extractor, with a matcher that was trained for "
        "these weights",
        coordinates="pixels, (0, 0) is the centre of the first one",
        description="""SuperPoint, the extractor of LightGlue-ONNX.
image: (1, 1, H, W) float32, grey in [0, 1], of any size.
keypoints: (1, N, 2) float32, x y in pixels, (0, 0) is the centre of the first one.
scores: (1, N) float32, best first.
descriptors: (1, N, D) float32 of length 1.
""",
        build=_LightGlueOnnx,
        outputs={
            "keypoints": (None, "points", None),
            "scores": (None, "points"),
            "descriptors": (None, "points", None),
        },
    ),
    "nchw": Host(
        size=None,
        length=None,
        taken=(),
        usage="image (B, 1, H, W) float32 -> scores (B, H, W), descriptors (B, D, H/8, W/8)",
        coordinates="pixels, (0, 0) is the centre of the first one",
        description="""SuperPoint, dense, in the layout of its decoders in other languages.
image: (B, 1, H, W) float32, grey in [0, 1]; H and W are multiples of 8 \
(repeat the last row and column).
scores: (B, H, W) float32, the probability of a keypoint at each pixel, no suppression.
descriptors: (B, D, H/8, W/8) float32, of cells of 8x8 pixels, of length 1: \
interpolate by the rule descriptor_sampling, and divide by the length again.
""",
        build=_DenseFloats,
        outputs={
            "scores": ("batch", f"{CELL}*rows", f"{CELL}*columns"),
            "descriptors": ("batch", None, "rows", "columns"),
        },
        selects=False,
    ),
}
