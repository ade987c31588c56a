import numpy as np
import pytest

from inlay.data.tabletop.shapes import Faces, Ring, Round, ball, box, can, cone, gable, pyramid

SOLIDS = {
    "ball": ball(0.5),
    "egg": ball(0.4, 0.6),
    "dome": ball(0.5, 0.4, 0.0, 1.0),
    "can": can(0.3, 0.9),
    "cone": cone(0.5, 0.0, 1.0),
    "stump": cone(0.2, 0.4, 0.5),
    "box": box(0.6, 0.8, 0.4),
    "pyramid": pyramid(0.9, 0.8),
    "gable": gable(1.0, 0.5, 0.8),
    "ring": Ring(0.4, 0.15),
}


def inside(solid: Round | Faces | Ring, points: np.ndarray) -> np.ndarray:
    """Say which points [n, 3] a solid holds, from its definition alone."""
    x, y, z = points.T
    if isinstance(solid, Round):
        return (y >= solid.low) & (y <= solid.high) & (x**2 + z**2 <= solid.a + solid.b * y + solid.c * y**2)
    if isinstance(solid, Ring):
        return (np.hypot(x, z) - solid.large) ** 2 + y**2 <= solid.small**2
    return (points @ np.array(solid.normals).T <= np.array(solid.offsets)).all(1)


@pytest.mark.parametrize("name", SOLIDS)
def test_hit_agrees_with_small_steps_along_the_ray(name):
    solid = SOLIDS[name]
    draws = np.random.default_rng(0)
    origin = np.array([0.7, 0.9, 2.0])
    aims = draws.uniform(-0.7, 0.7, (400, 3))
    directions = (aims - origin).astype(np.float32)
    with np.errstate(all="ignore"):
        found = solid.hit(tuple(origin.tolist()), tuple(directions.T))
    steps = np.linspace(0.3, 2.0, 3000)
    held = np.stack([inside(solid, origin + step * directions) for step in steps])
    expected = np.where(held.any(0), steps[held.argmax(0)], np.inf)
    # Rays that graze may be seen by one side only; there are few.
    same = np.isfinite(found) == np.isfinite(expected)
    assert same.mean() > 0.985
    both = np.isfinite(found) & np.isfinite(expected)
    assert both.sum() > 40
    assert np.median(np.abs(found[both] - expected[both])) < 1e-3
    assert np.quantile(np.abs(found[both] - expected[both]), 0.97) < 4e-3


@pytest.mark.parametrize("name", SOLIDS)
def test_what_blocks_a_ray_is_what_the_ray_hits(name):
    """For origins inside, outside and beyond, each with four directions, as the four lamps of a shadow have it."""
    solid = SOLIDS[name]
    draws = np.random.default_rng(3)
    origin = tuple(draws.uniform(-1, 1, (3, 20, 20)).astype(np.float32))
    directions = tuple(draws.normal(size=(3, 4, 1, 1)).astype(np.float32))
    with np.errstate(all="ignore"):
        blocked, hit = solid.blocks(origin, directions), np.isfinite(solid.hit(origin, directions))
    assert blocked.shape == (4, 20, 20)
    assert np.array_equal(blocked, hit)
    assert 0.02 < blocked.mean() < 0.98


@pytest.mark.parametrize("name", SOLIDS)
def test_normals_point_outwards(name):
    solid = SOLIDS[name]
    draws = np.random.default_rng(1)
    aims = draws.uniform(-0.5, 0.5, (300, 3))
    origin = np.array([0.5, 0.8, 2.0])
    directions = (aims - origin).astype(np.float32)
    with np.errstate(all="ignore"):
        t = solid.hit(tuple(origin.tolist()), tuple(directions.T))
    points = (origin + t[:, None] * directions)[np.isfinite(t)]
    normals = np.stack(solid.normal(*points.astype(np.float32).T), 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    assert (~inside(solid, points + 0.02 * normals)).mean() > 0.98
    assert inside(solid, points - 0.02 * normals).mean() > 0.95


@pytest.mark.parametrize("name", SOLIDS)
def test_reach_holds_the_solid(name):
    solid = SOLIDS[name]
    points = np.random.default_rng(2).uniform(-1, 1, (20_000, 3))
    held = points[inside(solid, points)]
    assert np.linalg.norm(held, axis=1).max() <= solid.reach() + 1e-6


def test_open_can_shows_its_inside():
    down = (0.0, -1.0, 0.0)
    ray = tuple(np.full(1, v, np.float32) for v in down)
    with np.errstate(all="ignore"):
        closed = can(0.5, 1.0).hit((0.1, 2.0, 0.1), ray)
        opened = can(0.5, 1.0, lid=False).hit((0.1, 2.0, 0.1), ray)
    assert closed[0] == pytest.approx(1.5)
    assert opened[0] == pytest.approx(2.5)
