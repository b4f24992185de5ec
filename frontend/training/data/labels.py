"""Labels of photographs by homographic adaptation, and their files.

A detector sees many warps of a photograph; its probabilities are averaged in the photograph's frame
(DeTone, Malisiewicz, Rabinovich: SuperPoint, 2018, section 5).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spslam.errors import DatasetError
from spslam.io.files import write_atomic
from spslam.io.given_files import NO_ARRAYS

from ...superpoint.decoder import refine_on_heat
from ...superpoint.keypoints import find_maxima
from ...superpoint.superpoint import CELL, SuperPoint, detector_probabilities
from ..config import LabelConfig
from ..precision import Precision, autocast
from .homography import identity_homographies, sample_homographies, valid_mask, warp_images

# Side of the square in which a label's probabilities are summed, pixels.
_MASS_SIDE = 5


@dataclass(frozen=True)
class Labels:
    """Labels of one photograph, best first.

    Attributes:
        keypoints: (N, 2) float32 x y, pixels of the fitted photograph.
        scores: (N,) float32, averaged probability at the peak.
        mass: (N,) float32, sum of the averaged probabilities in 5×5 pixels around the peak, at most
            1.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    mass: NDArray[np.float32]


def adapt(
    network: SuperPoint,
    image: NDArray[np.uint8],
    config: LabelConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Average keypoint probabilities (H, W) of an image over random warps, including the identity.

    Each pixel is averaged over the warps that show it; without any it is 0 (SuperPoint, section
    5.2).

    Args:
        network: detector in evaluation mode, on `device`.
        image: (H, W) uint8, of any size.
        config: number and kind of warps.
        generator: random numbers, on any device.
        device: device of the computation.
    """
    size = (image.shape[0], image.shape[1])
    source = torch.from_numpy(image).to(device).float()[None, None] / 255
    homographies = torch.cat(
        [
            identity_homographies(1, generator.device),
            sample_homographies(config.homographies - 1, size, config.homography, generator),
        ]
    ).to(device)
    total = torch.zeros(size, device=device)
    count = torch.zeros(size, device=device)
    with torch.inference_mode():
        for first in range(0, len(homographies), config.batch):
            chunk = homographies[first : first + config.batch]
            warped = warp_images(source.expand(len(chunk), -1, -1, -1), chunk)
            valid = valid_mask(chunk, size, erosion=config.erosion_px)
            seen = torch.stack(
                [_detect(network, warped, config.precision) * valid, valid.float()], dim=1
            )
            back = warp_images(seen, torch.linalg.inv(chunk), size)
            # Use a pixel only if all pixels interpolated for it are valid, else its value is too
            # low.
            counted = back[:, 1] > 1 - 1e-3
            total += (back[:, 0] * counted).sum(dim=0)
            count += counted.sum(dim=0)
        average: NDArray[np.float32] = (total / count.clamp(min=1)).cpu().numpy()
    return average


def find_labels(probabilities: NDArray[np.float32], config: LabelConfig) -> Labels:
    """Find maxima of averaged probabilities (H, W), suppressed, at most `top_k`, best first."""
    rows, columns = find_maxima(probabilities, config.threshold, config.nms_radius, border=0)
    rows, columns = rows[: config.top_k], columns[: config.top_k]
    if config.subpixel:
        keypoints = refine_on_heat(probabilities, rows, columns)
    else:
        keypoints = np.stack([columns, rows], axis=1).astype(np.float32)
    side = (_MASS_SIDE, _MASS_SIDE)
    mass = cv2.boxFilter(
        probabilities, cv2.CV_32F, side, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return Labels(
        keypoints=keypoints,
        scores=probabilities[rows, columns],
        mass=np.clip(mass[rows, columns], 0, 1).astype(np.float32),
    )


def label_path(folder: Path, photo: Path, root: Path) -> Path:
    """Return the path of the label file of a photograph below `root`.

    Raises:
        DatasetError: the photograph is not below `root`.
    """
    return folder / f"{relative_name(photo, root)}.npz"


def write_labels(path: Path, labels: Labels, size: tuple[int, int]) -> None:
    """Write a label file atomically; `size` is height and width of the fitted photograph.

    Raises:
        OutputError: it cannot be written.
    """
    stream = io.BytesIO()
    np.savez(
        stream,
        keypoints=labels.keypoints,
        scores=labels.scores,
        mass=labels.mass,
        size=np.array(size, np.int64),
    )
    write_atomic(path, stream.getvalue())


def read_labels(path: str | Path, size: tuple[int, int]) -> Labels:
    """Read a label file.

    Args:
        path: path of the file.
        size: expected height and width of the fitted photograph, pixels.

    Raises:
        DatasetError: the file is missing, damaged, no label file, or of another size.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("keypoints", "scores", "mass", "size")}
    except FileNotFoundError:
        raise DatasetError(
            f"expected labels at {path}, found no file: label the photos first"
        ) from None
    except KeyError as error:
        raise DatasetError(
            f"expected a label file at {path}, found one without {error}: make it again"
        ) from None
    except NO_ARRAYS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(
            f"expected a label file at {path}, found a damaged one ({reason}): make it again"
        ) from None
    _check(arrays, path)
    found = (int(arrays["size"][0]), int(arrays["size"][1]))
    if found != size:
        raise DatasetError(
            f"expected labels of a photograph of {size[0]}x{size[1]} in {path}, "
            f"found them of {found[0]}x{found[1]}: set labels.size to that, or label again"
        )
    return Labels(*(arrays[key].astype(np.float32) for key in ("keypoints", "scores", "mass")))


def _check(arrays: dict[str, NDArray[Any]], path: str | Path) -> None:
    count = len(arrays["scores"]) if arrays["scores"].ndim == 1 else -1
    shapes = {"keypoints": (count, 2), "scores": (count,), "mass": (count,), "size": (2,)}
    for key, shape in shapes.items():
        if arrays[key].shape != shape or not np.issubdtype(arrays[key].dtype, np.number):
            raise DatasetError(
                f"expected {key} of shape {shape} in {path}, found {arrays[key].dtype} "
                f"{arrays[key].shape}: make the labels again"
            )
        if not np.all(np.isfinite(arrays[key])):
            raise DatasetError(
                f"expected finite {key} in {path}, found NaN or infinity: make the labels again"
            )


def _detect(network: SuperPoint, images: Tensor, precision: Precision) -> Tensor:
    """Return probabilities (B, H, W) for images (B, 1, H, W) of any size."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (0, -width % CELL, 0, -height % CELL), mode="replicate")
    with autocast(images.device, precision):
        logits = network.detector_logits(padded.contiguous(memory_format=torch.channels_last))
    return detector_probabilities(logits.float())[:, :height, :width]


def relative_name(photo: Path, root: Path) -> str:
    """Return a photograph's name relative to `root`.

    Raises:
        DatasetError: the photograph is not below `root`.
    """
    try:
        return photo.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise DatasetError(
            f"expected photos below {root}, found {photo}: give a folder that holds all of them"
        ) from None
