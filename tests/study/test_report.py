"""Reports of studies with a known truth: what they claim, what they admit, and that nothing is dropped."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from inlay.errors import ConfigError
from inlay.study.report.analysis import analyse, choose_terms
from inlay.study.report.build import make_report, to_text, write_report
from inlay.study.report.contents import tables
from inlay.study.report.drawing import to_svg
from inlay.study.report.facts import Facts, higher_is_better, metrics_of, read_facts
from inlay.study.report.heatmap import find_positions, position_heatmap
from inlay.study.report.page import render
from inlay.study.report.settings_table import pareto, settings_of
from inlay.study.report.summary import summarise
from inlay.study.report.tables import make_table, to_csv, to_latex, to_markdown
from inlay.study.report.tuning import tuning_table
from inlay.study.report.words import listed, number, p_value
from inlay.study.statistics.sample import make_sample
from inlay.study.table import Row
from tests.study.known import methods, positions
from tests.study.simulate import grid

DRAWS = 199


@pytest.fixture(scope="module")
def four_methods(tmp_path_factory):
    directory = tmp_path_factory.mktemp("methods")
    rows = methods()
    for row in rows[:6]:
        place = directory / "cells" / row.cell
        place.mkdir(parents=True)
        Image.new("RGB", (900, 300), (200, 80, 40)).save(place / "samples.png")
    (directory / "cells" / rows[1].cell / "samples.png").write_bytes(b"half a picture")
    design = {"title": "Methods <&> subjects", "metrics": [], "left_out": [{"reason": "no such pair", "count": 12}]}
    (directory / "design.json").write_text(json.dumps(design))
    report, folder = write_report(directory, rows, draws=DRAWS)
    return directory, rows, report, folder


def texts(report, kind: str) -> str:
    return "\n".join(sentence.text for sentence in report.summary if sentence.kind == kind)


def test_what_is_true_is_supported_and_what_is_alike_is_not_ranked(four_methods):
    _, _, report, _ = four_methods
    assert "method matters for likeness" in texts(report, "supported")
    assert "clearly better than bitfit and prefix; it cannot be told from lora" in texts(report, "supported")
    assert report.parts[0].analysis.metric == "likeness"
    assert report.parts[0].analysis.higher is True
    assert report.parts[1].analysis.higher is False


def test_failures_and_gaps_are_displayed_everywhere(four_methods):
    _, _, report, folder = four_methods
    assert "29 of 32 cells have a result; 2 failed; 1 has not run" in texts(report, "caution")
    page, text = (folder / "index.html").read_text(), (folder / "report.md").read_text()
    failures = list(csv.DictReader((folder / "tables" / "failures.csv").read_text().splitlines()))
    assert [row["status"] for row in failures] == ["failed", "failed", "missing"]
    for place in (page, text, failures[0]["reason"]):
        assert "the loss is not finite in step 31" in place
    assert "12 combinations" in page
    assert "no such pair" in text
    assert len(list(csv.DictReader((folder / "tables" / "cells.csv").read_text().splitlines()))) == 32


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(four_methods):
    _, _, _, folder = four_methods
    page = (folder / "index.html").read_text()
    assert "Methods &lt;&amp;&gt; subjects" in page
    assert "<script" not in page
    outside = set(re.findall(r'(?:href|src)="([^"#][^":]*:[^,"]{0,20})', page))
    assert all(address.startswith("data:image/webp") for address in outside)
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    # one of the six pictures is broken; of a setting one is shown for each task
    assert page.count("data:image/webp") == 2
    assert "full" in page[page.index('id="samples"') : page.index("data:image/webp")]


def test_files_are_the_same_for_the_same_rows_in_any_order(four_methods, tmp_path):
    directory, rows, _, folder = four_methods
    _, other = write_report(directory, rows[::-1], tmp_path / "again", draws=DRAWS)
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert written == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert len([path for path in written if path.suffix == ".png"]) >= 8
    for path in written:
        assert (folder / path).read_bytes() == (other / path).read_bytes(), path


def test_json_holds_all_digits(four_methods):
    _, rows, _, folder = four_methods
    found = json.loads((folder / "report.json").read_text())
    assert found["metrics"][0] == {"name": "likeness", "higher_is_better": True, "best": "full"}
    cells = found["tables"]["cells"]
    place = cells["columns"].index("likeness")
    assert {row[0]: row[place] for row in cells["rows"]}[rows[0].cell] == rows[0].metrics["likeness"]
    assert found["cells"] == {"done": 29, "failed": 2, "missing": 1}


def test_positions_are_mapped_compared_as_pairs_and_empty_cells_admitted():
    rows = positions()
    report = make_report(rows, Facts(), draws=DRAWS)
    part = report.parts[0]
    assert part.pictures[0].name == "positions-clip_i"
    assert "setting: CA_out / FFN_in has the highest mean clip_i" in texts(report, "supported")
    assert "input, without regard to the other factors" in texts(report, "supported")
    assert "50 combinations of input × output were not measured or do not exist" in texts(report, "caution")
    alone = {one.test.name: one.test for one in part.analysis.one_way}
    assert alone["input"].effect.eta_squared > alone["output"].effect.eta_squared
    assert part.analysis.line("input").third.f is None
    assert "the sample" not in to_text(report)


def test_pairs_in_one_factor_are_also_tested_by_their_ends():
    rows = [
        Row(
            row.cell,
            {"position": f"{row.factors['input']} -> {row.factors['output']}"},
            None,
            None,
            "done",
            metrics=row.metrics,
        )
        for row in positions(1, 1, 0.0)
    ]
    report = make_report(rows, Facts(), draws=DRAWS)
    alone = {one.test.name: one.test for one in report.parts[0].analysis.one_way}
    assert alone["input position"].f == pytest.approx(11.9, abs=0.05)
    assert alone["output position"].p == pytest.approx(0.61, abs=0.005)
    assert report.parts[0].pictures[0].name == "positions-clip_i"


@pytest.mark.parametrize(
    ("factors", "found"),
    [
        ({"method.input": "CA_out", "method.output": "FFN_in"}, ("method.input", "method.output")),
        ({"position": "CA_out -> FFN_in", "scale": 1.0}, ("position", "position")),
        ({"position": "CA_out-FFN_in"}, ("position", "position")),
        ({"method": "lora"}, None),
        ({"input": "left", "output": "right"}, None),
    ],
)
def test_factors_that_are_positions_are_found(factors, found):
    other = {name: "CA_c -> CA_c" if name == "position" else level for name, level in factors.items()}
    rows = [Row("1", factors, None, 0, "done"), Row("2", other, None, 0, "done")]
    positions = find_positions(rows)
    assert (positions and (positions.input, positions.output)) == found


def test_heatmaps_show_failed_pairs():
    rows = [
        Row("1", {"position": "CA_out->FFN_in"}, None, 0, "done", metrics={"clip_i": 0.8}),
        Row("2", {"position": "SA_in->SA_in"}, None, 0, "failed", "broken"),
        Row("3", {"position": "CA_c->CA_c"}, None, 0, "missing"),
    ]
    figure = position_heatmap(rows, "clip_i", find_positions(rows), True)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert written == {"0.800", "failed", "not run"}
    assert "var(--ink)" in to_svg(figure, "x")


def test_figures_that_results_lack_are_said_with_the_reason():
    reason = "copied_share: no pictures to copy; kid: two pictures are needed."
    rows = [
        Row(f"{name}{seed}", {"method": name}, None, seed, "done", reason if seed else None, {"clip_i": 0.5 + seed / 9})
        for name in ("a", "b")
        for seed in range(3)
    ]
    for row in rows:
        row.metrics.update({"copied_share": None if row.reason else 0.1, "kid": None if row.reason else 0.2})
    said = texts(make_report(rows, Facts(), draws=DRAWS), "caution")
    assert f"copied_share and kid are missing in 4 of 6 results ({reason.rstrip('.')})." in said
    rows[0].metrics["kid"] = None  # for another reason, of which nothing is known
    said = texts(make_report(rows, Facts(), draws=DRAWS), "caution")
    assert "kid is missing in 1 of 6 results. copied_share and kid are missing in 4" in said.replace("\n", " ")
    for row in rows:
        row.metrics.update({"copied_share": 0.1, "kid": 0.2})
    assert "missing" not in texts(make_report(rows, Facts(), draws=DRAWS), "caution")


def test_no_effect_is_not_called_equality():
    rows = [
        Row(f"{name}{seed}", {"method": name}, None, seed, "done", metrics={"clip_i": value})
        for name, values in {"a": (0.50, 0.53, 0.48), "b": (0.51, 0.47, 0.52)}.items()
        for seed, value in enumerate(values)
    ]
    report = make_report(rows, Facts(), draws=DRAWS)
    said = texts(report, "open")
    assert "was not shown" in said
    assert "This is no proof that it does not" in said
    assert "chance may have decided" in said
    assert "matters" not in texts(report, "supported")
    assert "All results are of one task" in texts(report, "caution")


def test_a_difference_between_tasks_is_said_and_held_against_generalisation():
    rows, generator = [], np.random.default_rng(0)
    for method, task, value in (("a", "x", 0.6), ("a", "y", 0.5), ("b", "x", 0.5), ("b", "y", 0.56)):
        for seed in range(5):
            metrics = {"clip_i": value + 0.01 * generator.standard_normal()}
            rows.append(Row(f"{method}{task}{seed}", {"method": method}, task, seed, "done", metrics=metrics))
    report = make_report(rows, Facts(), draws=DRAWS)
    assert "Which method is best depends on the task" in texts(report, "supported")
    assert "a at x and b at y have the best mean" in texts(report, "supported")
    assert "that it holds for others is not shown" in texts(report, "open")


def test_an_interaction_that_turns_nothing_round_is_said_to_be_one():
    rows, generator = [], np.random.default_rng(0)
    for method, task, value in (("a", "x", 0.9), ("a", "y", 0.6), ("b", "x", 0.5), ("b", "y", 0.5)):
        for seed in range(4):
            metrics = {"clip_i": value + 0.01 * generator.standard_normal()}
            rows.append(Row(f"{method}{task}{seed}", {"method": method}, task, seed, "done", metrics=metrics))
    said = texts(make_report(rows, Facts(), draws=DRAWS), "supported")
    assert "How much method matters depends on the task" in said
    assert "a has the best mean at every task" in said


def test_studies_without_results_or_with_one_level_say_so(tmp_path):
    waiting = [Row("1", {"method": "lora"}, None, 0, "missing"), Row("2", {"method": "full"}, None, 0, "failed", "no")]
    report, folder = write_report(tmp_path, waiting)
    assert "No cell has a result yet" in texts(report, "caution")
    assert "no" in (folder / "report.md").read_text()
    single = [Row("1", {"method": "lora"}, None, 0, "done", metrics={"clip_i": 0.5})]
    assert make_report(single, Facts()).parts[0].analysis.table is None
    with pytest.raises(ConfigError, match="no cells"):
        make_report([], Facts())
    with pytest.raises(ConfigError, match="--metric fid: no cell has it; there are clip_i"):
        make_report(single, Facts(), "fid")


def test_what_tuning_found_is_shown_with_its_failures_and_where_it_came_to_an_end():
    def found(level, **scores):
        return {"key": "train.learning_rate", "metric": "validation_loss", "level": level, "scores": scores}

    tuned = {
        '{"task": null, "method": "lora"}': found(0.1, **{"0.001": 0.5, "0.01": 0.4, "0.1": 0.3}),
        '{"task": null, "method": "full"}': found(0.01, **{"0.001": 0.5, "0.01": 0.4, "0.1": None}),
        '{"task": null, "method": "prefix"}': found(None, **{"0.001": None, "0.01": None, "0.1": None}),
    }
    tried = [Row("tuning_full_0.1", {"method": "full"}, None, 1000, "failed", "the loss is not finite")]
    single = [Row("1", {"method": "lora"}, None, 0, "done", metrics={"clip_i": 0.5})]
    report = make_report(single, Facts(tuned=tuned), draws=DRAWS, tried=tried)
    shown = to_text(report)
    assert "| method | 0.001 | 0.01 | 0.1 | chosen |" in shown
    assert "| full | 0.500 | 0.400 | – | 0.01 |" in shown
    assert "| prefix | – | – | – | – |" in shown
    assert "another may be better still: lora 0.1.\n" in shown
    assert "| tuning_full_0.1 | full | – | 1000 | failed | the loss is not finite |" in shown
    page = render(report, [])
    assert '<section id="tuning">' in page
    assert "1 of 1 cells have a result." in page
    assert '<section id="tuning">' not in render(make_report(single, Facts(), draws=DRAWS), [])


def test_levels_that_are_no_numbers_have_no_end():
    event = {"key": "train.optimizer.name", "metric": "clip_i", "level": "lion", "scores": {"adamw": 0.1, "lion": 0.2}}
    table = tuning_table({"{}": event})
    assert table is not None
    assert table.rows == ((0.1, 0.2, "lion"),)
    assert "better still" not in table.note
    assert tuning_table({}) is None


def test_one_run_a_setting_is_analysed_as_the_publication_does():
    report = make_report(positions(1, 1, 0.0), Facts(), draws=DRAWS)
    alone = {one.test.name: one for one in report.parts[0].analysis.one_way}
    assert alone["input"].test.f == pytest.approx(11.9, abs=0.05)
    assert alone["input"].error_freedom == 10
    assert alone["output"].test.p == pytest.approx(0.61, abs=0.005)
    assert "chance and interactions cannot be told apart" in texts(report, "caution")


def test_interactions_are_put_in_only_where_they_leave_an_error():
    factors = grid([3, 2], 1)
    few = make_sample(range(6), factors)
    terms, pooled = choose_terms(few, ["a", "b"], [])
    assert terms == (("a",), ("b",))
    assert pooled == (("a", "b"),)
    many = make_sample(range(18), grid([3, 2], 3))
    assert choose_terms(many, ["a", "b"], [])[0] == (("a",), ("b",), ("a", "b"))


def test_seeds_that_are_the_only_error_are_no_block():
    sample = make_sample([0.1, 0.4, 0.2, 0.3], {"method": list("aabb"), "seed": [0, 1, 2, 3]})
    assert choose_terms(sample, ["method"], ["seed"])[0] == (("method",),)


def test_twelve_seeds_make_a_mixed_model():
    rows = methods(seeds=12, broken=False)
    analysis = analyse(rows, "likeness", Facts(), DRAWS)
    assert analysis.mixed.fixed == ("task",)
    assert analysis.mixed.tests[0].p < 1e-3
    found = [table.name for table in tables(rows, analysis, settings_of(rows, analysis), {})]
    assert "mixed-likeness" in found


def test_pareto_front_and_costs():
    analysis = analyse(methods(), "likeness", Facts(), DRAWS)
    settings = settings_of(methods(), analysis)
    assert [one.name for one in pareto(settings, "trainable_parameters", analysis.better)] == [
        *("bitfit", "prefix", "lora"),
        "full",
    ]
    assert [one.name for one in pareto(settings, "training_seconds", analysis.better)] == ["prefix", "lora", "full"]


def test_a_setting_that_failed_on_the_easy_task_is_not_the_worse_for_it():
    rows = methods(noise=0.001)
    settings = {one.name: one for one in settings_of(rows, analyse(rows, "likeness", Facts(), DRAWS))}
    plain = np.mean(settings["prefix"].values)
    assert settings["prefix"].mean == pytest.approx(0.535, abs=0.003)  # 0.52, and half of the other task's 0.03
    assert plain < 0.53


def test_tables_in_three_formats():
    table = make_table(
        "t", "A & B", ["name", ("p", "p"), ("value", "number")], [["x|y_1", 1e-5, 1 / 3], ["z", None, 2e4]]
    )
    assert "| x\\|y_1 | < 0.001 | 0.333 |" in to_markdown(table)
    assert to_csv(table).splitlines()[1] == "x|y_1,1e-05,0.3333333333333333"
    assert to_csv(table).splitlines()[2] == "z,,20000.0"
    latex = to_latex(table)
    assert r"\caption{A \& B}" in latex
    assert r"x|y\_1 & $<$ 0.001 & 0.333 \\" in latex
    assert r"z & -- & 20,000 \\" in latex


def test_words():
    assert [number(value) for value in (0.012345, 4.5678, 1234.5, -0.5, 0, None, 1.2e-7)] == [
        *("0.0123", "4.57", "1,230", "-0.500"),
        *("0", "–", "1.20e-07"),
    ]
    assert (p_value(0.0004), p_value(0.0123)) == ("< 0.001", "0.012")
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_which_way_a_metric_is_good():
    facts = Facts(higher={"odd": False})
    assert higher_is_better("odd", facts) is False
    assert [higher_is_better(name, facts) for name in ("kid", "clip_i", "language_drift", "FD-DINOv2", "likeness")] == [
        *(False, True, False, False),
        True,
    ]
    assert higher_is_better("something", facts) is None


def test_training_loss_is_never_what_a_study_is_judged_by_unless_asked():
    rows = [Row("1", {}, None, 0, "done", metrics={"smoothed_loss": 0.1, "clip_i": 0.5, "validation_loss": 0.2})]
    assert metrics_of(rows, Facts()) == ["clip_i", "validation_loss", "smoothed_loss"]
    assert metrics_of(rows, Facts(metrics=("validation_loss",))) == ["validation_loss"]
    assert metrics_of(rows, Facts(), "smoothed_loss")[0] == "smoothed_loss"


def test_a_broken_design_is_named(tmp_path):
    (tmp_path / "design.json").write_text("{")
    with pytest.raises(ConfigError, match=r"design\.json: not a design"):
        read_facts(tmp_path)


def test_an_undirected_metric_is_said_to_be_one():
    rows = [
        Row(f"{name}{seed}", {"method": name}, None, seed, "done", metrics={"odd": value + 0.001 * seed})
        for name, value in (("a", 1.0), ("b", 2.0))
        for seed in range(3)
    ]
    report = make_report(rows, Facts(), draws=DRAWS)
    assert "Nothing says which way odd is good" in texts(report, "caution")
    assert "Judged by odd." in render(report, [])


def test_summaries_of_nothing():
    assert summarise([], [], [])[0].text.startswith("No cell has a result yet")


def test_reports_need_no_torch():
    modules = ", ".join(f"inlay.study.report.{name}" for name in ("build", "page", "samples"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "False"


def test_levels_can_be_left_out_and_that_is_said(tmp_path):
    rows = methods()
    names = [str(row.factors["method"]) for row in rows]
    name = names[0]
    report = make_report(rows, Facts(), draws=99, without=[f"method={name}"])
    assert {row.factors["method"] for row in report.rows} == set(names) - {name}
    assert f"Left out, as asked: {names.count(name)} cells of method={name}." in texts(report, "caution")
    assert name not in {row[0] for row in report.parts[0].tables[0].rows}
    seeds = make_report(rows, Facts(), draws=99, without=[f"method={name}", "seed=0"])
    assert all(row.seed != 0 for row in seeds.rows)
    for without, said in (
        (["methode=x"], "'methode' is no factor; allowed: method, task, seed"),
        (["method=x"], "method has no such level; it has: "),
        ([f"method={one}" for one in dict.fromkeys(names)], "leaves no cell"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_report(rows, Facts(), draws=99, without=without)
