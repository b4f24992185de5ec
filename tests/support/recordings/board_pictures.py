"""Pictures of calibration boards, rendered through a known lens."""

from functools import cache

import cv2
import numpy as np

from spslam.calibrate.boards import AprilGrid, Board, CharucoBoard, Checkerboard
from spslam.camera import Camera

# Pixels of the board's picture a metre.
PER_METRE = 4000
# White paper around the corners, metres.
MARGIN_M = 0.06


def poses(board: Board, count: int, seed: int = 0, distance: float = 0.45) -> np.ndarray:
    """Poses (N, 4, 4) of a board before a camera: in the corners, tilted, near and far."""
    middle = board.corners.mean(axis=0)
    rng = np.random.default_rng(seed)
    found = np.tile(np.eye(4), (count, 1, 1))
    for T in found:
        R = np.asarray(cv2.Rodrigues(rng.uniform(-0.55, 0.55, 3) * (1, 1, 0.5))[0])
        aside = rng.uniform((-0.12, -0.09, distance), (0.12, 0.09, 2.2 * distance))
        T[:3, :3], T[:3, 3] = R, aside - R @ middle
    return found


def paper(board: Board) -> tuple[np.ndarray, np.ndarray]:
    """The board's picture, and the position (2,) of its upper left corner on the board, metres."""
    if isinstance(board, Checkerboard):
        squares = np.indices((board.rows + 1, board.columns + 1)).sum(axis=0) % 2 * 255
        inner = np.kron(squares, np.ones((round(board.square_m * PER_METRE),) * 2))
    elif isinstance(board, CharucoBoard):
        drawn = cv2.aruco.CharucoBoard(
            (board.columns, board.rows),
            board.square_m,
            board.marker_m,
            cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary)),
        )
        pixels = round(board.square_m * PER_METRE)
        inner = drawn.generateImage((board.columns * pixels, board.rows * pixels), marginSize=0)
    else:
        assert isinstance(board, AprilGrid)
        inner = april_paper(board)
    margin = round(MARGIN_M * PER_METRE)
    whole = cv2.copyMakeBorder(
        inner.astype(np.uint8), margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(255,)
    )
    return np.asarray(whole), np.full(2, -MARGIN_M)


def april_paper(board: AprilGrid) -> np.ndarray:
    """An AprilGrid whose tags begin at another corner than OpenCV's, as Kalibr prints them."""
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
    width, height = np.rint(board.corners[:, :2].max(axis=0) * PER_METRE).astype(int)
    inner = np.full((height, width), 255, np.uint8)
    tag = round(board.tag_m * PER_METRE)
    for number in range(board.columns * board.rows):
        x, y = np.rint(board.corners[4 * number, :2] * PER_METRE).astype(int)
        marker = cv2.aruco.generateImageMarker(dictionary, number, tag, borderBits=2)
        inner[y : y + tag, x : x + tag] = np.rot90(marker, 2)
        # Small squares make every corner of a tag a crossing of black and white.
        gap = round(board.tag_m * board.spacing * PER_METRE)
        for left in (x - gap, x + tag):
            for top in (y - gap, y + tag):
                if left >= 0 and top >= 0:
                    inner[top : top + gap, left : left + gap] = 0
    return inner


@cache
def rays_of(camera: Camera) -> np.ndarray:
    """Unit rays (H W, 3) of all pixels of a camera."""
    v, u = np.indices((camera.height, camera.width), dtype=np.float64)
    return camera.lens_rays(np.stack([u.ravel(), v.ravel()], axis=1))


def see(board: Board, camera: Camera, T_camera_board: np.ndarray) -> np.ndarray:
    """The picture (H, W) uint8 that a camera takes of a board in the plane z = 0."""
    texture, origin = paper(board)
    rays = rays_of(camera)
    T_board_camera = np.linalg.inv(T_camera_board)
    directions = rays @ T_board_camera[:3, :3].T
    centre = T_board_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        far = -centre[2] / directions[:, 2]
        points = centre + far[:, None] * directions
    maps = (points[:, :2] - origin) * PER_METRE - 0.5
    maps[~(far > 0)] = -1e4
    maps = np.clip(np.nan_to_num(maps, nan=-1e4), -1e4, 1e4).astype(np.float32)
    # Blurred first: a pixel of the camera is larger than one of the paper.
    soft = cv2.GaussianBlur(texture, (0, 0), 2.0)
    shape = (camera.height, camera.width)
    x, y = (np.ascontiguousarray(maps[:, k].reshape(shape)) for k in (0, 1))
    return np.asarray(cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderValue=(90,)), np.uint8)
