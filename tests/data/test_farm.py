"""Many pictures of the rendered world are drawn by other processes, and are the same ones."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from inlay.data import farm
from inlay.data.settings import DataSettings
from inlay.data.sources import load_examples
from inlay.data.tabletop import World
from inlay.errors import DataError


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(farm, "cores", lambda: 2)
    monkeypatch.setattr(farm, "FEW", 2)


@pytest.fixture
def hired(monkeypatch):
    """Every farm that a test opens."""
    found = []

    class Watched(farm.Farm):
        def __init__(self, processes):
            super().__init__(processes)
            self.processes = list(self._workers)
            found.append(self)

    monkeypatch.setattr(farm, "Farm", Watched)
    return found


def alive(one):
    return [worker for worker in one.processes if worker.poll() is None]


def test_other_processes_draw_what_this_one_draws(two_cores, hired):
    settings = DataSettings(source="tabletop:domain/vehicles/train", count=8, mask={"outside": 0.5})
    examples = load_examples(settings, 32).examples
    with farm.farm(), ThreadPoolExecutor(4) as pool:
        images = [np.array(picture) for picture in pool.map(lambda example: example.open(), examples)]
        masks = [np.array(mask) for mask in pool.map(lambda example: example.mask.reader(), examples)]
        (one,) = hired
        assert len(alive(one)) == 2
    assert alive(one) == []
    world = World("domain/vehicles/train", size=32)
    assert np.array_equal(images, [world[index].image for index in range(8)])
    assert np.array_equal(masks, [world.mask(index) for index in range(8)])


def test_several_pictures_in_one_request_come_in_its_order():
    world = World("train", seed=3, size=16)
    one = farm.Farm(1)
    try:
        found = one.images(world, [5, 2])
    finally:
        one.close()
    assert np.array_equal(found, [world[5].image, world[2].image])


def test_few_pictures_start_no_process(two_cores, hired):
    world = World("train", size=16)
    with farm.farm():
        farm.draw_image(world, 0)
        farm.draw_mask(world, 0)
    for index in range(3):
        farm.draw_image(world, index)
    assert hired == []


def test_a_process_that_dies_is_an_error_that_names_the_picture(two_cores, hired):
    world = World("train", size=16)
    with farm.farm():
        for index in range(3):
            farm.draw_image(world, index)
        for worker in hired[0].processes:
            worker.kill()
            worker.wait()
        # The second and third find a process that died before they asked it.
        for index in (7, 8, 9):
            with pytest.raises(DataError, match=rf"tabletop:train/{index}: .* exit code -9"):
                farm.draw_image(world, index)
    assert alive(hired[0]) == []


def test_what_a_process_says_in_dying_is_told():
    one = farm.Farm(1)
    world = World("train", size=16)
    world.part = "nowhere"
    try:
        with pytest.raises(DataError, match=r'exit code 1: .*no part "nowhere"'):
            one.images(world, [0])
    finally:
        one.close()


def test_processes_end_when_reading_fails(two_cores, hired):
    world = World("train", size=16)

    def read():
        with farm.farm():
            for index in range(3):
                farm.draw_image(world, index)
            raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        read()
    assert alive(hired[0]) == []


def test_a_script_needs_no_guard_and_its_search_path_is_no_matter(tmp_path):
    root = os.path.dirname(os.path.dirname(farm.__file__))
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {os.path.dirname(root)!r})\n"
        "from inlay.data import farm\n"
        "from inlay.data.tabletop import World\n"
        "farm.FEW, farm.cores = 0, lambda: 2\n"
        "with farm.farm():\n"
        "    print(farm.draw_image(World('train', size=16), 0).shape, 'torch' in sys.modules)\n"
    )
    # A file of this name in the working directory must not be taken for numpy.
    (tmp_path / "numpy.py").write_text("raise SystemExit('wrong numpy')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-P", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == "(16, 16, 3) False\n"
