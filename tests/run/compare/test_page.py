import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from inlay.errors import ConfigError
from inlay.run.compare.comparison import compare
from inlay.run.compare.page import data_uri, render, write_page
from inlay.run.compare.samples import own_previews
from inlay.run.pictures import Block, Row, grid, save_picture

from .conftest import PROMPTS, flat_picture

VOID = {"meta", "link", "img", "input", "br"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Outline(HTMLParser):
    """Reads a page as a strict reader would: every element that opens is closed where it must be."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.heads = [], [], [], []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[key] for key in ("src", "href", "srcset", "action", "data") if key in found]
        if tag == "img":
            assert found["alt"]
            assert found["width"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass  # only in SVG

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    @classmethod
    def of(cls, text):
        outline = cls()
        outline.feed(text)
        outline.close()
        assert outline.open == []
        return outline


@pytest.fixture
def places(make_run, measured):
    many = [
        {"name": "copies", "present": True, "sentence": "The model copies training picture 3.", "reason": ""},
        {
            "name": "prior loss",
            "present": False,
            "sentence": "No change of the prior can be seen.",
        },  # of an old version
        {"name": "language drift", "present": False, "degree": "slight", "sentence": "A little more of the subject."},
    ]
    one = measured(0.9, 0.85, 0.95)
    return [
        make_run("lora", record={**one, "symptoms": many}),
        make_run("full", {"name": "full"}, record={**measured(0.7, 0.6, 0.8), "costs__trainable_parameters": 10**7}),
        make_run("stopped", {"name": "bitfit"}, steps=7, status="stopped"),
    ]


def page_of(places):
    comparison = compare(places)
    return render(comparison, own_previews(comparison.runs))


def test_the_page_is_well_formed_and_complete(places):
    page = page_of(places)
    outline = Outline.of(page)
    assert len(outline.ids) == len(set(outline.ids))
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert headings == [
        "Runs",
        "Pictures",
        "Metrics",
        "What went wrong",
        "Training",
        "Costs",
        "Quality for cost",
        "Settings that differ",
        "Where it comes from",
    ]
    for svg in re.findall(r'<svg class="chart".*?</svg></svg>|<svg class="chart".*?</svg>', page):
        ET.fromstring(svg)
    assert "The model copies training picture 3." in page
    assert "stopped after step 7 of 20" in page


def test_nothing_is_fetched_from_anywhere(places):
    page = page_of(places)
    assert all(address.startswith("data:") for address in Outline.of(page).addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    assert "fetch(" not in page
    assert "XMLHttpRequest" not in page


def test_what_users_wrote_is_text_and_never_markup(make_run):
    evil = '<script>alert("x")</script>'
    run = make_run("run", config={"preview__prompts": [evil], "data__source": evil})
    page = page_of([run])
    assert evil not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;" in page
    Outline.of(page)


def test_columns_that_cannot_be_compared_cannot_be_sorted(make_run, measured):
    places = [make_run("one", record=measured(0.9, 0.8, 1.0)), make_run("two", record=measured(0.5, 0.4, 0.6, n=20))]
    page = page_of(places)
    assert not re.search(r"data-sortable[^>]*>CLIP-I", page)
    assert "CLIP-I: not comparable: the runs differ in the number of pictures." in page
    assert 'class="num best"' not in page
    assert "n = 20 against 5" in page


def test_small_pictures_are_kept_bit_for_bit():
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    uri = data_uri(pixels)
    content = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    large = base64.b64decode(data_uri(np.zeros((1024, 512, 3), np.uint8)).partition(",")[2])
    assert Image.open(io.BytesIO(large)).size == (192, 384)


def test_an_earlier_page_is_replaced_and_no_other_file(places, tmp_path):
    comparison = compare(places)
    samples = own_previews(comparison.runs)
    path = write_page(comparison, samples, tmp_path / "page.html")
    first = path.read_text()
    write_page(comparison, samples, path)
    assert path.read_text() == first
    (tmp_path / "mine.html").write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match=r"mine.html: is there already and no page of `inlay compare`"):
        write_page(comparison, samples, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<html>mine</html>"
    with pytest.raises(ConfigError, match="is a directory"):
        write_page(comparison, samples, tmp_path)


def test_quality_that_was_measured_on_the_way_is_drawn_over_steps_and_seconds(make_run, measured):
    places = [
        make_run(name, record=measured(value, value - 0.1, value + 0.1)) for name, value in (("a", 0.5), ("b", 0.6))
    ]
    for place in places:
        entries = [json.loads(line) for line in (place / "trace.jsonl").read_text().splitlines()]
        for entry in entries[4::5]:
            entry["metrics"] = {"clip_i": 0.02 * entry["step"]}
        (place / "trace.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    page = page_of(places)
    assert "CLIP-I over steps: a, b" in page
    assert "CLIP-I over seconds: a, b" in page
    assert "a: 0.4 at 20" in page  # the last point, in the words that stand by it
    assert "a: 0.4 at 10" in page  # 20 steps took 10 seconds


def test_a_run_from_scratch_has_no_base_and_no_method(make_run):
    run = make_run("scratch", record={"kind": "pretrain"})
    config = yaml.safe_load((run / "run.yaml").read_text())
    del config["method"], config["stack"]
    (run / "run.yaml").write_text(yaml.safe_dump({**config, "denoiser": {"sample_size": 8}}))
    rows = [Row(PROMPTS[0], [Block("samples", [flat_picture(3)])])]
    save_picture(grid(rows), run / "samples.png")
    page = page_of([run])
    Outline.of(page)
    assert "from scratch" in page
    assert ">before<" not in page


@pytest.mark.parametrize("count", [1, 12])
def test_one_run_and_many_make_a_page(make_run, count):
    page = page_of([make_run(f"run{number}", config={"seed": number}) for number in range(count)])
    Outline.of(page)
    assert f"<h1>{count} run{'' if count == 1 else 's'}, side by side</h1>" in page


def test_a_run_without_anything_but_its_settings_makes_a_page(make_run):
    Outline.of(page_of([make_run("dead", steps=0, held_out=[], status=None)]))


def browse(path):
    """Return a page as Chromium has it after its scripts have run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser_tables_sort_and_nothing_is_wider_than_a_phone(places, tmp_path):
    probe = """<script>
      const table = document.querySelector("table.costs");
      const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim()).join(",");
      const seen = [names()];
      const button = table.querySelectorAll("th button")[1];
      button.click(); seen.push(names()); button.click(); seen.push(names());
      document.title = seen.join("|");
    </script></body>"""
    path = tmp_path / "page.html"
    page = page_of(places)
    path.write_text(page.replace("</body>", probe))
    title = re.search(r"<title>(.*?)</title>", browse(path))[1]
    # By trained parameters; what a stopped run does not have stays last.
    assert title == "lora,full,stopped|lora,stopped,full|full,lora,stopped"
    path.write_text(page)
    frame = f"""<iframe id="phone" style="width:390px;height:800px" src="{path.name}"></iframe><script>
      onload = () => {{
        const inner = document.getElementById("phone").contentDocument.documentElement;
        document.title = inner.scrollWidth + " of " + inner.clientWidth;
      }};
    </script>"""
    outer = tmp_path / "phone.html"
    outer.write_text(f"<!DOCTYPE html><title></title>{frame}")
    wide, shown = re.search(r"<title>(\d+) of (\d+)</title>", browse(outer)).groups()
    assert int(shown) > 300
    assert wide == shown
