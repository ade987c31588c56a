"""Advice from records with a known truth, and the records that ship."""

import json
from dataclasses import replace

import numpy as np
import pytest

from inlay.errors import ConfigError
from inlay.run.config import RunConfig
from inlay.run.load import validate
from inlay.study.advice import Candidate, Records, choose, estimates, explain
from inlay.study.advice_records import SHIPPED, of_study, shipped
from inlay.study.cells import expand
from inlay.study.directory import write_design
from inlay.study.statistics.moderation import moderate
from tests.study.studies import make


def candidate(name: str, quality: float, runs: int = 1, size: float | None = 1e5, **costs: float) -> Candidate:
    return Candidate(name, quality, runs, None, {"result_bytes": size, **costs}, {"method": {"name": name}})


def records(*candidates: Candidate, scatter: float | None = 0.01, higher: bool = True) -> Records:
    own = tuple(one if one.scatter is not None else replace(one, scatter=scatter) for one in candidates)
    return Records("From a test.", "subject", "likeness", higher, own)


def test_the_best_within_the_budget_is_chosen_and_the_others_explained():
    found = choose(
        records(
            candidate("full", 0.9, size=6e7, peak_bytes=8e8),
            candidate("lora", 0.7, size=6e5, peak_bytes=6e8),
            candidate("ia3", 0.695, size=4e4, peak_bytes=6e8),
            candidate("bitfit", 0.3, size=6e4, peak_bytes=6e8),
        ),
        {"memory": 7e8},
    )
    assert (found.best.candidate.name, found.runner_up.candidate.name) == ("lora", "ia3")
    assert found.tied == ("ia3",)
    assert found.excluded == (("full", "peak memory 763 MiB"),)
    said = "\n".join(explain(found))
    assert "Take lora: expected likeness" in said
    assert "within chance: the runner-up is as good a choice, with less file" in said
    assert "1 setting is beyond the budget: full (peak memory 763 MiB)." in said
    assert "From a test." in said


def test_only_as_many_settings_are_planned_as_it_takes():
    qualities = {"full": 0.75, "lora": 0.7, "adapter": 0.698, "prefix": 0.697, "ia3": 0.696, "bitfit": 0.3, "none": 0.2}
    sizes = {"full": 6e7, "lora": 6e5, "adapter": 5e5, "prefix": 9e4, "ia3": 4e4, "bitfit": 1e4, "none": 1e3}
    asked = []

    def planned(one: Candidate) -> Candidate | None:
        asked.append(one.name)
        size = 10 * one.costs["result_bytes"]
        return None if one.name == "adapter" else replace(one, costs={"result_bytes": size, "peak_bytes": size})

    stated = records(*(candidate(name, quality, size=sizes[name]) for name, quality in qualities.items()))
    found = choose(stated, {"memory": 1e8}, planned)
    assert asked == ["full", "lora", "adapter", "prefix", "ia3"]  # the best two, and the smallest of those alike
    assert (found.best.candidate.name, found.runner_up.candidate.name) == ("lora", "prefix")
    assert found.excluded == (("full", "peak memory 572 MiB"),)
    assert found.tied == ("prefix", "ia3")
    assert found.lightest.candidate.name == "ia3"
    assert "2 settings cannot be told from the first by these records; of these ia3 has a small file (391 KiB)." in (
        explain(found)
    )
    with pytest.raises(ConfigError, match="prefix has the least peak memory"):
        choose(
            records(*(candidate(name, 0.5, size=sizes[name]) for name in ("full", "prefix"))), {"memory": 1}, planned
        )
    with pytest.raises(ConfigError, match="none of the methods can be used on this base"):
        choose(stated, {}, lambda one: None)


def test_lower_can_be_better_and_clear_differences_are_called_so():
    found = choose(records(candidate("a", 3.0), candidate("b", 1.0), candidate("c", 2.0), higher=False), {})
    assert found.best.candidate.name == "b"
    assert found.tied == ()
    assert "more than chance from run to run explains" in "\n".join(explain(found))


def test_an_impossible_budget_says_what_comes_nearest():
    with pytest.raises(ConfigError, match="ia3 has the least file, 39"):
        choose(records(candidate("lora", 0.7, size=6e5), candidate("ia3", 0.6, size=4e4)), {"file_size": 1000.0})
    with pytest.raises(ConfigError, match="training time is not known of any"):
        choose(records(candidate("lora", 0.7)), {"seconds": 10.0})


def test_without_repetition_nothing_has_an_interval_and_all_are_tied():
    found = choose(records(candidate("a", 3.0), candidate("b", 1.0), scatter=None), {})
    assert found.best.low is None
    assert len(found.tied) == 1
    assert "nothing was repeated" in explain(found)[0]


def test_the_luck_of_the_best_of_many_is_taken_off_and_intervals_cover():
    generator = np.random.default_rng(0)
    covered, raw, shrunk = [], [], []
    for _ in range(400):
        truth = generator.normal(0.5, 0.01, 20)
        seen = truth + 0.02 * generator.standard_normal(20)
        found = estimates(records(*(candidate(str(i), value) for i, value in enumerate(seen)), scatter=0.02))
        best, true = found[0], truth[int(found[0].candidate.name)]
        covered.append(best.low <= true <= best.high)
        raw.append(best.candidate.quality - true)
        shrunk.append(best.expected - true)
    assert np.mean(raw) > 0.02  # what was measured flatters the winner
    assert abs(np.mean(shrunk)) < 0.006
    assert np.mean(covered) > 0.9


def test_intervals_cover_where_one_setting_scatters_twenty_times_as_much():
    generator = np.random.default_rng(1)
    scatters = np.array([0.01] * 7 + [0.2])
    covered, widths = [], []
    for _ in range(400):
        truth = generator.normal(0.5, 0.02, 8)
        runs = truth[:, None] + scatters[:, None] * generator.standard_normal((8, 3))
        known = moderate(runs.tolist())
        assert known is not None
        stated = [
            replace(candidate(str(i), runs[i].mean(), runs=3), scatter=variance**0.5, freedom=freedom)
            for i, (variance, freedom) in enumerate(zip(*known, strict=True))
        ]
        found = {int(one.candidate.name): one for one in estimates(records(*stated))}
        covered.append([found[i].low <= truth[i] <= found[i].high for i in range(8)])
        widths.append([found[i].high - found[i].low for i in range(8)])
    quiet, loud = np.mean(covered, axis=0)[:7], np.mean(covered, axis=0)[7]
    assert min(quiet) > 0.9
    assert loud > 0.8
    assert np.median(widths, axis=0)[:7].max() < 0.06  # of one scatter for all, 0.2 wide
    assert np.median(widths, axis=0)[7] > 0.06


def test_every_setting_that_ships_is_a_valid_run_file():
    for task in ("subject", "style"):
        found = shipped(task)
        assert all(one.scatter > 0 for one in found.candidates)
        assert len(found.candidates) >= 20
        for one in found.candidates:
            config = validate(RunConfig, dict(one.settings))
            assert config.train.steps == 200
    with pytest.raises(ConfigError, match="--task portrait: allowed: subject, style"):
        shipped("portrait")
    assert SHIPPED.stat().st_size < 60_000


def test_a_study_of_ones_own_is_advised_by(tmp_path, tiny_base, photos):
    tasks = {"dog": {"data.prompt": "a photo of sks dog"}, "cat": {"data.prompt": "a photo of sks cat"}}
    study = make(tiny_base, photos, seeds=3, metrics=["clip_i"], measured=["clip_i"], tasks=tasks)
    expansion = expand(study)
    write_design(tmp_path, study, expansion)
    for number, cell in enumerate(expansion.main):
        place = tmp_path / "cells" / cell.id
        place.mkdir(parents=True)
        value = {"CA": 0.8, "SA": 0.6}[cell.factors["pair"]] + 0.01 * (cell.seed or 0) * (-1) ** number
        costs = {"peak_bytes": 1e8, "result_bytes": 1000, "training_seconds": 2.0 * cell.factors["method.scale"]}
        base = {"name": str(tiny_base), "hash": "0" * 64}
        record = {"status": "done", "base": base, "metrics": {"clip_i": value}, "missing": {}, "costs": costs}
        (place / "record.json").write_text(json.dumps(record))
    found = of_study(tmp_path, "dog", None)
    assert {one.runs for one in found.candidates} == {3}
    assert all(one.scatter > 0 and one.freedom == 8 for one in found.candidates)
    best = choose(found, {"seconds": 3.0}).best
    assert best.candidate.name == "CA / 1"
    assert best.low < 0.8 < best.high
    config = validate(RunConfig, dict(best.candidate.settings))
    assert (config.method.input, config.data.prompt, config.train.steps) == ("CA_out", "a photo of sks dog", 3)
    with pytest.raises(ConfigError, match="--task must be given"):
        of_study(tmp_path, None, None)
    with pytest.raises(ConfigError, match="--task horse: allowed: dog, cat"):
        of_study(tmp_path, "horse", None)
    with pytest.raises(ConfigError, match="--metric kid: no cell has it"):
        of_study(tmp_path, "dog", "kid")
