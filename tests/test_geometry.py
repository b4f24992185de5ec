import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spslam.geometry import (
    apply,
    hat,
    inverse,
    make_transform,
    orthonormalize,
    quaternion_to_rotation,
    rotation_angle,
    rotation_to_quaternion,
    se3_adjoint,
    se3_exp,
    se3_log,
    sim3_exp,
    sim3_log,
    similarity_scale,
    so3_exp,
    so3_log,
    umeyama,
)
from spslam.typing import FloatArray

examples = settings(deadline=None, max_examples=60)


def vectors(size: int, bound: float, rows: int = 5) -> st.SearchStrategy[FloatArray]:
    return arrays(
        np.float64, (rows, size), elements=st.floats(-bound, bound, allow_subnormal=False)
    )


# Rotation vectors shorter than pi: beyond, the exponential repeats and logarithms differ.
rotations = vectors(3, 1.8)
# Small angles, where the series and the closed form meet.
tiny_rotations = st.integers(-12, 0).flatmap(lambda power: vectors(3, 10.0**power))
translations = vectors(3, 100.0)
log_scales = vectors(1, 2.0)


@examples
@given(st.one_of(rotations, tiny_rotations))
def test_so3_exponential_and_logarithm_are_inverse(omega: FloatArray) -> None:
    R = so3_exp(omega)
    np.testing.assert_allclose(
        R @ R.swapaxes(1, 2), np.broadcast_to(np.eye(3), R.shape), atol=1e-14
    )
    np.testing.assert_allclose(so3_log(R), omega, atol=1e-12)
    np.testing.assert_allclose(rotation_angle(R), np.linalg.norm(omega, axis=1), atol=1e-12)


def test_so3_exponential_turns_in_the_right_direction() -> None:
    R = so3_exp(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(R @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)


def test_half_turns_have_logarithms_of_length_pi() -> None:
    axes = np.array([[1.0, 0, 0], [0, 0, -1.0], [0.6, 0.8, 0]])
    omega = so3_log(so3_exp(np.pi * axes))
    np.testing.assert_allclose(np.linalg.norm(omega, axis=1), np.pi, atol=1e-7)
    np.testing.assert_allclose(np.abs(np.sum(omega * axes, axis=1)), np.pi, atol=1e-7)


@examples
@given(translations, st.one_of(rotations, tiny_rotations))
def test_se3_logarithm_inverts_the_exponential(rho: FloatArray, omega: FloatArray) -> None:
    xi = np.concatenate([rho, omega], axis=1)
    np.testing.assert_allclose(se3_log(se3_exp(xi)), xi, atol=1e-10)


@examples
@given(translations, rotations)
def test_se3_exponential_is_the_limit_of_small_steps(rho: FloatArray, omega: FloatArray) -> None:
    xi = np.concatenate([rho, omega], axis=1)
    stepped = np.linalg.matrix_power(se3_exp(xi / 64), 64)
    np.testing.assert_allclose(se3_exp(xi), stepped, atol=1e-9)


@examples
@given(translations, st.one_of(rotations, tiny_rotations), log_scales)
def test_sim3_logarithm_inverts_the_exponential(
    rho: FloatArray, omega: FloatArray, sigma: FloatArray
) -> None:
    xi = np.concatenate([rho, omega, sigma], axis=1)
    S = sim3_exp(xi)
    np.testing.assert_allclose(similarity_scale(S), np.exp(sigma[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(sim3_log(S), xi, atol=1e-9)


@examples
@given(translations, rotations)
def test_sim3_without_scale_is_se3(rho: FloatArray, omega: FloatArray) -> None:
    xi = np.concatenate([rho, omega], axis=1)
    np.testing.assert_allclose(sim3_exp(np.pad(xi, ((0, 0), (0, 1)))), se3_exp(xi), atol=1e-10)


@examples
@given(translations, rotations, log_scales, translations)
def test_inverse_inverts_apply(
    rho: FloatArray, omega: FloatArray, sigma: FloatArray, points: FloatArray
) -> None:
    S = sim3_exp(np.concatenate([rho, omega, sigma], axis=1))
    np.testing.assert_allclose(apply(inverse(S), apply(S, points)), points, atol=1e-9)
    np.testing.assert_allclose(inverse(S) @ S, np.broadcast_to(np.eye(4), S.shape), atol=1e-9)


@examples
@given(translations, rotations, translations)
def test_apply_is_the_same_for_one_transform_and_for_many(
    rho: FloatArray, omega: FloatArray, points: FloatArray
) -> None:
    T = se3_exp(np.concatenate([rho, omega], axis=1))
    np.testing.assert_allclose(apply(T[0], points)[0], apply(T, points)[0], atol=1e-12)
    np.testing.assert_allclose(
        apply(T[0], points), apply(np.broadcast_to(T[0], T.shape), points), atol=1e-12
    )


@examples
@given(translations, rotations, translations, rotations, translations)
def test_products_apply_one_after_the_other(
    rho0: FloatArray, omega0: FloatArray, rho1: FloatArray, omega1: FloatArray, points: FloatArray
) -> None:
    A = se3_exp(np.concatenate([rho0, omega0], axis=1))
    B = se3_exp(np.concatenate([rho1, omega1], axis=1))
    np.testing.assert_allclose(apply(A @ B, points), apply(A, apply(B, points)), atol=1e-9)


@examples
@given(st.one_of(rotations, tiny_rotations), st.floats(0.1, 10.0))
def test_quaternions_of_any_length_give_the_same_rotation(omega: FloatArray, length: float) -> None:
    R = so3_exp(omega)
    q = rotation_to_quaternion(R)
    assert (q[:, 3] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(quaternion_to_rotation(-length * q), R, atol=1e-13)


@examples
@given(translations, rotations, translations, rotations)
def test_adjoint_carries_a_motion_into_another_frame(
    rho: FloatArray, omega: FloatArray, rho_moved: FloatArray, omega_moved: FloatArray
) -> None:
    T = se3_exp(np.concatenate([rho, omega], axis=1))
    xi = 0.1 * np.concatenate([rho_moved, omega_moved], axis=1)
    carried = (se3_adjoint(T) @ xi[..., None])[..., 0]
    np.testing.assert_allclose(se3_exp(carried), T @ se3_exp(xi) @ inverse(T), atol=1e-8)


def test_quaternions_are_x_y_z_w() -> None:
    np.testing.assert_allclose(
        rotation_to_quaternion(so3_exp(np.array([1.0, 0, 0]))), [np.sin(0.5), 0, 0, np.cos(0.5)]
    )


@examples
@given(translations, rotations, vectors(9, 1e-3))
def test_orthonormalize_recovers_a_noisy_transform(
    rho: FloatArray, omega: FloatArray, noise: FloatArray
) -> None:
    T = se3_exp(np.concatenate([rho, omega], axis=1))
    noisy = T.copy()
    noisy[:, :3, :3] += noise.reshape(-1, 3, 3)
    clean = orthonormalize(noisy)
    np.testing.assert_allclose(clean, T, atol=1e-2)
    R = clean[:, :3, :3]
    np.testing.assert_allclose(
        R @ R.swapaxes(1, 2), np.broadcast_to(np.eye(3), R.shape), atol=1e-13
    )
    np.testing.assert_allclose(np.linalg.det(R), 1.0, atol=1e-13)


def test_hat_is_the_cross_product() -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([-2.0, 0.5, 4.0])
    np.testing.assert_allclose(hat(a) @ b, np.cross(a, b))


def test_leading_axes_of_any_shape_and_none_pass_through() -> None:
    xi = np.random.default_rng(0).normal(size=(2, 3, 7))
    np.testing.assert_allclose(sim3_log(sim3_exp(xi)), xi, atol=1e-12)
    np.testing.assert_allclose(se3_log(se3_exp(xi[..., :6])), xi[..., :6], atol=1e-12)
    for size, exp, log in ((6, se3_exp, se3_log), (7, sim3_exp, sim3_log)):
        assert log(exp(np.zeros((0, size)))).shape == (0, size)
    assert rotation_to_quaternion(np.zeros((0, 3, 3))).shape == (0, 4)


cloud = np.random.default_rng(1).normal(size=(20, 3))


@examples
@given(translations, rotations, log_scales)
def test_umeyama_finds_the_similarity(
    rho: FloatArray, omega: FloatArray, sigma: FloatArray
) -> None:
    S = sim3_exp(np.concatenate([rho, omega, sigma], axis=1))[0]
    np.testing.assert_allclose(umeyama(cloud, apply(S, cloud), with_scale=True), S, atol=1e-9)
    T = make_transform(so3_exp(omega[0]), rho[0])
    np.testing.assert_allclose(umeyama(cloud, apply(T, cloud), with_scale=False), T, atol=1e-9)


def test_umeyama_gives_a_rotation_even_for_a_mirrored_cloud() -> None:
    R = umeyama(cloud, cloud * [1, 1, -1], with_scale=False)[:3, :3]
    assert np.linalg.det(R) == pytest.approx(1.0)


def test_umeyama_is_least_squares() -> None:
    rng = np.random.default_rng(2)
    target = apply(se3_exp(rng.normal(size=6)), cloud) + 0.1 * rng.normal(size=cloud.shape)
    best = umeyama(cloud, target, with_scale=True)
    cost = np.sum((apply(best, cloud) - target) ** 2)
    for step in 1e-3 * np.concatenate([np.eye(7), -np.eye(7)]):
        assert np.sum((apply(best @ sim3_exp(step), cloud) - target) ** 2) > cost


@examples
@given(translations, rotations)
def test_umeyama_refuses_points_on_one_line_or_in_one_place(
    offset: FloatArray, direction: FloatArray
) -> None:
    line = offset[0] + np.linspace(0, 30, 40)[:, None] * so3_exp(direction[0])[0]
    place = np.tile(offset[0] + 0.1, (40, 1))
    for degenerate in (line, place):
        with pytest.raises(ValueError, match="ambiguous"):
            umeyama(degenerate, degenerate[::-1], with_scale=False)


def test_umeyama_accepts_a_nearly_straight_path() -> None:
    path = np.stack(
        [np.linspace(0, 100, 50), 0.001 * np.sin(np.arange(50)), 0.001 * np.cos(np.arange(50))],
        axis=1,
    )
    T = se3_exp(np.array([1.0, 2, 3, 0.1, 0.2, 0.3]))
    np.testing.assert_allclose(umeyama(path, apply(T, path), with_scale=False), T, atol=1e-6)


def test_umeyama_refuses_two_points() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        umeyama(cloud[:2], cloud[:2], with_scale=False)
