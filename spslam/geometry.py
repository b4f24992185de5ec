"""Rigid motions and similarities as whole-array operations.

A transform `T_a_b` (..., 4, 4) maps coordinates of frame b to frame a. A similarity `S_a_b` has s·R
as its upper left block. Quaternions are x y z w. Tangent vectors are [translation, rotation] for
SE(3) and [translation, rotation, log scale] for Sim(3).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from spslam.typing import FloatArray

# Minimum ratio of the second to the first singular value (squared thickness to squared length) for
# an alignment. A thinner path is a line, and the roll about a line is unknown.
_DEGENERATE_RATIO = 1e-12
# Minimum spread of points, rounding errors of their coordinates; with less, they are in one place.
_ROUNDING_MARGIN = 1e3
# Maximum scale of an alignment, against overflow, and minimum covariance that is divided by.
_LARGEST_SCALE, _LEAST_VARIANCE = 1e30, 1e-300


def hat(v: FloatArray) -> FloatArray:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    out = np.zeros((*v.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -v[..., 2], v[..., 1]
    out[..., 1, 0], out[..., 1, 2] = v[..., 2], -v[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -v[..., 1], v[..., 0]
    return out


def so3_exp(omega: FloatArray) -> FloatArray:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), radians."""
    a, b, _ = _exponential_factors(omega)
    W = hat(omega)
    R: FloatArray = np.eye(3) + a * W + b * (W @ W)
    return R


def _exponential_factors(omega: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute sin θ / θ, (1 - cos θ) / θ² and (θ - sin θ) / θ³ of rotation vectors (..., 3).

    Each result has the shape (..., 1, 1).
    """
    theta2 = np.einsum("...i,...i->...", omega, omega)[..., None, None]
    small = theta2 < 1e-8
    safe2 = np.where(small, 1.0, theta2)
    safe = np.sqrt(safe2)
    # 2·sin²(θ/2) instead of 1 - cos θ, which loses digits for small θ.
    sine, sine_half = np.sin(safe), np.sin(0.5 * safe)
    a, b, c = sine / safe, 2.0 * sine_half * sine_half / safe2, (safe - sine) / (safe2 * safe)
    if small.any():
        a = np.where(small, 1.0 - theta2 / 6.0, a)
        b = np.where(small, 0.5 - theta2 / 24.0, b)
        c = np.where(small, 1.0 / 6.0 - theta2 / 120.0, c)
    return a, b, c


def so3_log(R: FloatArray) -> FloatArray:
    """Rotation vectors (..., 3) of rotation matrices (..., 3, 3), radians, of norm at most π."""
    flat = R.reshape(-1, 3, 3)
    rotvec: FloatArray = Rotation.from_matrix(flat).as_rotvec() if len(flat) else np.zeros((0, 3))
    return rotvec.reshape(*R.shape[:-2], 3)


def _left_jacobian_so3(omega: FloatArray) -> FloatArray:
    _, b, c = _exponential_factors(omega)
    W = hat(omega)
    J: FloatArray = np.eye(3) + b * W + c * (W @ W)
    return J


def se3_exp(xi: FloatArray) -> FloatArray:
    """Transforms (..., 4, 4) of tangent vectors (..., 6)."""
    a, b, c = _exponential_factors(xi[..., 3:])
    W = hat(xi[..., 3:])
    W2 = W @ W
    out = np.zeros((*xi.shape[:-1], 4, 4))
    out[..., :3, :3] = np.eye(3) + a * W + b * W2
    out[..., :3, 3:] = (np.eye(3) + b * W + c * W2) @ xi[..., :3, None]
    out[..., 3, 3] = 1.0
    return out


def se3_log(T: FloatArray) -> FloatArray:
    """Tangent vectors (..., 6) of transforms (..., 4, 4)."""
    omega = so3_log(T[..., :3, :3])
    rho = np.linalg.solve(_left_jacobian_so3(omega), T[..., :3, 3:])[..., 0]
    return np.concatenate([rho, omega], axis=-1)


def sim3_exp(xi: FloatArray) -> FloatArray:
    """Similarities (..., 4, 4) of tangent vectors (..., 7)."""
    generator = np.zeros((*xi.shape[:-1], 4, 4))
    generator[..., :3, :3] = hat(xi[..., 3:6]) + xi[..., 6, None, None] * np.eye(3)
    generator[..., :3, 3] = xi[..., :3]
    similarity: FloatArray = expm(generator)
    return similarity


def sim3_log(S: FloatArray) -> FloatArray:
    """Tangent vectors (..., 7) of similarities (..., 4, 4) with rotation angles up to π."""
    scale = similarity_scale(S)
    omega, sigma = so3_log(S[..., :3, :3] / scale[..., None, None]), np.log(scale)
    # t = W·rho with W = ∫₀¹ exp(τM) dτ: the upper right block of the exponential of
    # [[M, I], [0, 0]].
    generator = np.zeros((*S.shape[:-2], 6, 6))
    generator[..., :3, :3] = hat(omega) + sigma[..., None, None] * np.eye(3)
    generator[..., :3, 3:] = np.eye(3)
    W = expm(generator)[..., :3, 3:]
    rho = np.linalg.solve(W, S[..., :3, 3:])[..., 0]
    return np.concatenate([rho, omega, sigma[..., None]], axis=-1)


def se3_adjoint(T: FloatArray) -> FloatArray:
    """Adjoints (..., 6, 6) of transforms (..., 4, 4): T exp(xi) T⁻¹ = exp(adjoint · xi)."""
    out = np.zeros((*T.shape[:-2], 6, 6))
    out[..., :3, :3] = out[..., 3:, 3:] = R = T[..., :3, :3]
    out[..., :3, 3:] = hat(T[..., :3, 3]) @ R
    return out


def make_transform(R: FloatArray, t: FloatArray) -> FloatArray:
    """Transforms (..., 4, 4) of rotations (or s·R) (..., 3, 3) and translations (..., 3)."""
    out = np.zeros((*R.shape[:-2], 4, 4))
    out[..., :3, :3] = R
    out[..., :3, 3] = t
    out[..., 3, 3] = 1.0
    return out


def euler_poses(
    positions: FloatArray, yaw: FloatArray, pitch: FloatArray, roll: FloatArray
) -> FloatArray:
    """Return poses (N, 4, 4), camera to world, from positions (N, 3) and angles (N,), radians.

    Yaw turns right, pitch up, roll clockwise; at zero the camera looks along z.
    """
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def rows(*entries: FloatArray) -> FloatArray:
        return np.stack(entries, axis=-1).reshape(-1, 3, 3)

    c, s = np.cos(yaw), np.sin(yaw)
    turn = rows(c, zero, s, zero, one, zero, -s, zero, c)
    c, s = np.cos(pitch), np.sin(pitch)
    nod = rows(one, zero, zero, zero, c, -s, zero, s, c)
    c, s = np.cos(roll), np.sin(roll)
    tilt = rows(c, -s, zero, s, c, zero, zero, zero, one)
    return make_transform(turn @ nod @ tilt, positions)


def inverse(T: FloatArray) -> FloatArray:
    """Inverses of transforms or similarities (..., 4, 4)."""
    # Tracking inverts single poses dozens of times a frame, so this uses few NumPy calls.
    first_row = T[..., 0, :3]
    scale2 = np.einsum("...i,...i->...", first_row, first_row)
    out = np.zeros(T.shape)
    out[..., :3, :3] = A_inv = T[..., :3, :3].swapaxes(-1, -2) / scale2[..., None, None]
    out[..., :3, 3:] = A_inv @ -T[..., :3, 3:]
    out[..., 3, 3] = 1.0
    return out


def apply(T: FloatArray, points: FloatArray) -> FloatArray:
    """Apply a transform or similarity (4, 4) or (..., 4, 4) to points (..., 3)."""
    if T.ndim == 2:
        moved: FloatArray = points @ T[:3, :3].T + T[:3, 3]
        return moved
    return (T[..., :3, :3] @ points[..., None])[..., 0] + T[..., :3, 3]


def orthonormalize(T: FloatArray) -> FloatArray:
    """The nearest rigid transforms (..., 4, 4); keeps rounding errors from accumulating."""
    U, _, Vt = np.linalg.svd(T[..., :3, :3])
    U[..., 2] *= np.where(np.linalg.det(U @ Vt) < 0, -1.0, 1.0)[..., None]
    return make_transform(U @ Vt, T[..., :3, 3])


def rotation_angle(R: FloatArray) -> FloatArray:
    """Angles (...,), radians in [0, π], of rotation matrices (..., 3, 3).

    Small angles are accurate, too.
    """
    axis = np.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]],
        axis=-1,
    )
    trace = np.trace(R, axis1=-2, axis2=-1)
    angle: FloatArray = np.arctan2(np.linalg.norm(axis, axis=-1), trace - 1.0)
    return angle


def quaternion_to_rotation(q: FloatArray) -> FloatArray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) x y z w of any non-zero length."""
    flat = q.reshape(-1, 4)
    matrices: FloatArray = (
        Rotation.from_quat(flat).as_matrix() if len(flat) else np.zeros((0, 3, 3))
    )
    return matrices.reshape(*q.shape[:-1], 3, 3)


def rotation_to_quaternion(R: FloatArray) -> FloatArray:
    """Unit quaternions (..., 4) x y z w with w >= 0 of rotation matrices (..., 3, 3)."""
    flat = R.reshape(-1, 3, 3)
    q: FloatArray = (
        Rotation.from_matrix(flat).as_quat(canonical=True) if len(flat) else np.zeros((0, 4))
    )
    return q.reshape(*R.shape[:-2], 4)


def similarity_scale(S: FloatArray) -> FloatArray:
    """Scales (...,) of similarities (..., 4, 4)."""
    scale: FloatArray = np.cbrt(np.linalg.det(S[..., :3, :3]))
    return scale


def umeyama(source: FloatArray, target: FloatArray, with_scale: bool) -> FloatArray:
    """The similarity (4, 4) that maps points onto others with least squares.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    PAMI 1991.

    Args:
        source: (N, 3) points.
        target: (N, 3) the same points in the target's coordinates.
        with_scale: estimate the scale; otherwise it is 1.

    Raises:
        ValueError: there are fewer than three points, they lie in one place or on one line, or
            their scales differ too much.
    """
    if source.shape != target.shape or len(source) < 3:
        found = (
            len(source) if source.shape == target.shape else f"{source.shape} and {target.shape}"
        )
        raise ValueError(f"alignment needs at least 3 pairs of points, found {found}")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    U, d, Vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    # If the points lie on a line, the second singular value is a rounding error; if they lie in one
    # place, the first one is, too.
    rounding = np.finfo(float).eps * np.array([np.abs(source).max(), np.abs(target).max()])
    if d[0] <= _ROUNDING_MARGIN**2 * rounding.prod() or d[1] <= _DEGENERATE_RATIO * d[0]:
        raise ValueError("alignment is ambiguous: the points lie in one place or on one line")
    sign = np.array([1.0, 1.0, -1.0 if np.linalg.det(U) * np.linalg.det(Vt) < 0 else 1.0])
    R = (U * sign) @ Vt
    variance = float(np.mean(np.sum(source_centred**2, axis=1)))
    if (
        with_scale
        and not 1 / _LARGEST_SCALE < variance / max(float(d[0]), _LEAST_VARIANCE) < _LARGEST_SCALE
    ):
        raise ValueError(
            "the scale cannot be computed: one is too many times larger than the other"
        )
    scale = float(d @ sign) / variance if with_scale else 1.0
    return make_transform(scale * R, target_mean - scale * R @ source_mean)
