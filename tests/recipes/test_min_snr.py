"""The recipes of arXiv 2303.09556: each can be planned without data or weights, and has the published size."""

from pathlib import Path

import pytest

from inlay.run.config import PretrainConfig
from inlay.run.job import execute
from inlay.run.load_job import load_job
from inlay.run.plan import make_plan

FOLDER = Path(__file__).parents[2] / "recipes" / "min-snr"
PUBLISHED = {  # millions of parameters, and the sides and channels of what is denoised
    "celeba64-unet": (59, (3, 64, 64)),
    "celeba64-vit-s": (43, (3, 64, 64)),
    "imagenet64-vit-l4": (270, (3, 64, 64)),
    "imagenet256-unet": (395, (4, 32, 32)),
    "imagenet256-vit-b2": (89, (4, 32, 32)),
    "imagenet256-vit-l2": (308, (4, 32, 32)),
    "imagenet256-vit-xl2": (452, (4, 32, 32)),
}
MINIATURES = sorted(path.stem for path in (FOLDER / "miniature").glob("*.yaml"))


def test_every_recipe_is_checked():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_size(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the pictures are not here
    config = load_job(FOLDER / f"{name}.yaml")
    assert isinstance(config, PretrainConfig)
    plan = make_plan(config)
    millions, shape = PUBLISHED[name]
    assert plan.trainable_parameters / 1e6 == pytest.approx(millions, rel=0.011)
    assert plan.effective.latent_shape == shape
    assert plan.effective.prediction == "sample"
    assert plan.data.missing is not None
    # min-SNR-5 on x0 is min(S, 5): five where there is little noise.
    assert plan.effective.weight_range[1] == pytest.approx(5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_name_their_table_and_train_as_published(name):
    path = FOLDER / f"{name}.yaml"
    comment = path.read_text(encoding="utf-8").partition("\n")[0]
    assert "arXiv 2303.09556" in comment
    assert "able" in comment or "ection" in comment
    config = load_job(path)
    assert config.train.optimizer.betas == (0.99, 0.99)
    assert config.train.optimizer.weight_decay == 0.03
    assert config.learning_rate == 1e-4
    batch = {"celeba": 128, "imagenet64": 1024, "imagenet256": 256}
    assert config.train.batch_size == next(size for start, size in batch.items() if name.startswith(start))
    assert config.data.caption_dropout == (0 if name.startswith("celeba") else 0.15)


@pytest.mark.parametrize("name", MINIATURES)
def test_miniatures_can_be_planned_here(name):
    if name.startswith("digits"):
        pytest.importorskip("sklearn")
    config = load_job(FOLDER / "miniature" / f"{name}.yaml", ["data.count=40", "data.validation=4"])
    plan = make_plan(config)
    assert 1e5 < plan.trainable_parameters < 1e6
    assert plan.data.pictures == 36


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIATURES)
def test_miniatures_train_and_draw(name, tmp_path):
    if name.startswith("digits"):
        pytest.importorskip("sklearn")
    few = ["data.count=40", "data.validation=4", "train.steps=2", "train.batch_size=4", "train.schedule.warmup_steps=0"]
    config = load_job(FOLDER / "miniature" / f"{name}.yaml", [*few, "preview.pictures=1", "preview.steps=2"])
    record = execute(config, tmp_path / "run").record
    assert record["status"] == "done"
    assert (tmp_path / "run" / "samples.png").is_file()
