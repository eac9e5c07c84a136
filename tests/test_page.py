"""The page's claims, its numbers and their files, its accessibility, and the archive."""

import csv
import json
import math
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT
from example_claims import CLAIMS, example
from rocrate.rocrate import ROCrate
from test_report import MINIATURE, counts_record, eval_record, put, report, study, train_record

from mofe import provenance, records
from mofe.records import EvalRecord, TaskCounts, TrainRecord
from mofe.report import archive, claims_drawing, figures, noise
from mofe.report.views import claims as view
from mofe.report.views.cost import energy
from mofe.report.views.files import Files
from mofe.report.views.prompts import cut
from mofe.report.views.training_data import contamination
from mofe.study.hardware import GPUS

VOID = {"meta", "img", "br", "i"}  # `i` draws a mark and is always closed at once


class Node:
    def __init__(self, tag: str, attributes: dict, parent):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def all(self, tag: str) -> Iterator["Node"]:
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag:
                    yield child
                yield from child.all(tag)

    def of_class(self, name: str) -> Iterator["Node"]:
        for tag in ("span", "i", "div", "section", "p", "figure"):
            yield from (n for n in self.all(tag) if name in n.attributes.get("class", "").split())

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for _, text in texts(self)).split())

    def files(self) -> list[str]:
        """The ids of the nearest `data-from`."""
        node = self
        while node is not None:
            if "data-from" in node.attributes:
                return node.attributes["data-from"].split()
            node = node.parent
        return []

    def inside(self, *tags: str) -> bool:
        node = self
        while node is not None and node.tag not in tags:
            node = node.parent
        return node is not None


class Tree(HTMLParser):
    """A page as a tree of nodes."""

    def __init__(self, text: str):
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        node = Node(tag, dict(attributes), self.at)
        self.at.children.append(node)
        if tag not in VOID - {"i"}:
            self.at = node

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"{tag} closes {self.at.tag}"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def page(folder) -> Node:
    return Tree(report(folder, study(folder), MINIATURE, folder / "report.html")).root


def sources(page: Node) -> dict[str, Path]:
    items = [item for item in page.all("li") if "id" in item.attributes]
    return {item.attributes["id"]: ROOT / item.text for item in items}


def texts(node: Node) -> Iterator[tuple[Node, str]]:
    for child in node.children:
        if isinstance(child, Node):
            yield from texts(child)
        elif child.strip():
            yield node, child.strip()


# --- the first screen -------------------------------------------------------------------------


def test_the_sentence_counts_the_paper_and_its_scale_and_never_the_miniature(page):
    (lead,) = page.of_class("lead")
    printed = [verdict for *_, (*_, verdict), _ in CLAIMS]
    beyond = sum(v in ("beyond its noise", "exact") for v in printed)
    assert f"{beyond} of {len(CLAIMS)} claims are beyond it" in lead.text
    assert "At the paper's scale:" in lead.text
    assert "here" not in lead.text and "miniature" not in lead.text


def test_the_first_screen_stands_before_every_table(page):
    main = next(page.all("main"))
    first = next(child for child in main.children if isinstance(child, Node))
    assert "screen" in first.attributes["class"]
    assert next(first.all("h1")).text == "Which claims of MoFE hold?"
    summaries = [s for s in first.all("summary") if list(s.of_class("id"))]
    assert [next(s.of_class("id")).text for s in summaries] == [c.claim for c in example().claims]


def test_every_verdict_of_the_miniature_has_its_scale_beside_it(page):
    verdicts = [v for v in page.of_class("verdict") if "study" in v.attributes["class"].split()]
    shown = [v.text for v in verdicts if v.parent.tag == "summary"]
    assert len(shown) == len(example().claims)
    assert all(text.startswith("miniature: ") for text in shown)
    for row in page.all("tr"):
        cells = [n.text for n in row.children if isinstance(n, Node)]
        if len(cells) > 1 and cells[1].endswith(" here"):
            assert "no evidence about TinyLlama" in cells[0]


@pytest.mark.parametrize("scale", ["paper", "miniature", "other"])
def test_marks_lie_where_the_numbers_are(scale):
    found = example(scale)
    screen = view.screen(found, {c.claim: "make" for c in found.claims})
    axis = screen.axis
    assert axis.at(axis.low) == 0 and axis.at(axis.high) == 100
    assert (axis.at(0), "0") in axis.ticks
    rows = {row.claim.claim: row for row in (*screen.rows, *screen.ours)}
    printed = rows["C5"].marks[0]
    assert printed.by == "printed" and printed.at == axis.at(6.4)
    assert math.isclose(printed.width, axis.at(10.6) - axis.at(2.1), abs_tol=0.02)
    assert [mark.by for mark in rows["C5"].marks] == ["printed"] + ["study"] * (scale != "paper")
    assert rows["C4"].marks == () and rows["C4"].words == "time, ratio ×0.43 [0.38, 0.48]"
    assert rows["C11f"].band is None, "finance has no runs of one function"
    low, width = rows["C7b"].band
    assert math.isclose(low + width, axis.at(5.58), abs_tol=0.02)
    for mark in (mark for row in rows.values() for mark in row.marks):
        assert mark.low >= 0 and mark.low + mark.width <= 100


def test_a_claim_opens_to_its_verdicts_parts_files_and_command(page, folder):
    (opened,) = [d for d in page.of_class("opened") if d.attributes["id"] == "claim-C8"]
    assert opened.inside("details")
    verdicts, *_, here = opened.all("table")
    columns = [next(row.all("th")).text for row in list(verdicts.all("tr"))[1:]]
    assert columns == [
        "The paper's numbers tested again",
        "The paper's numbers tested again",
        "Paper scale TinyLlama on the real tasks",
        "Here in the miniature: no evidence about TinyLlama",
    ]
    cells = [cell.text for cell in here.all("td")]
    assert cells[:3] == ["MedMCQA", "Medium | MoFE", "Medium | LoRA"]
    assert cells[3:5] == ["+27.0 [+22.0, +31.0]", "+22.3 to +30.7"]
    assert "3" in cells and "4.5" in cells
    codes = [code.text for code in opened.all("code")]
    assert codes[-1] == f"snakemake --cores all -- {folder}/claims/C8.json"
    assert codes[:-1] == [f"{folder}/evals/C8/s{seed}/mmlu.json" for seed in range(3)]


# --- every number has its file ----------------------------------------------------------------


def test_every_number_names_files_that_are_there(page):
    """A number outside headings, captions and code has the ids of its files around it."""
    known = sources(page)
    assert all(path.exists() for path in known.values())
    bare = set()
    for node, text in texts(next(page.all("main"))):
        axis = node.parent.attributes.get("aria-hidden")
        explained = node.inside("h1", "h2", "h3", "h4", "figcaption", "code", "a", "summary", "nav")
        if re.search(r"\d", text) and not explained and not node.inside("th") and not axis:
            ids = node.files()
            assert set(ids) <= set(known)
            if not ids:
                bare.add(" ".join(text.split()))
    # What users write in the configuration, the versions of packages and the machine: no results.
    stated = " ".join(cell.text for part in ("choices", "provenance") for cell in cells(page, part))
    assert not {text for text in bare if text not in stated}


def cells(page: Node, name: str) -> Iterator[Node]:
    (found,) = [s for s in page.all("section") if s.attributes.get("id") == name]
    yield from found.all("td")


def test_a_score_on_the_page_is_the_mean_over_its_files(page, folder):
    """Of every score in the tables, and of the paper's values."""
    known, checked = sources(page), 0
    with (ROOT / "mofe/paper.csv").open() as lines:
        printed = {row["printed"] for row in csv.DictReader(lines)}
    for cell in page.all("td"):
        style = cell.attributes.get("class", "").split()
        files = [known[id_] for id_ in cell.files()]
        if "paper" in style and cell.text:
            assert files == [ROOT / "mofe/paper.csv"] and cell.text.split()[0] in printed
        elif "ours" in style and re.match(r"0\.\d{4}", cell.text):
            scored = [records.read(file, EvalRecord) for file in files]
            mean = sum(s.metrics[s.headline].value for s in scored) / len(scored)
            assert cell.text.split()[0] == f"{mean:.4f}"
            checked += 1
    shown = [cell for table in study(folder) for row in table.rows for cell in row.cells]
    assert checked >= sum(cell.kind == "task" for cell in shown)


def test_a_claims_numbers_are_in_claims_json(page, folder):
    known = sources(page)
    text = (folder / "claims.json").read_text()
    there = {abs(float(number)) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)}
    shown = {f"{100 * n:.1f}" for n in there} | {f"{n:.3f}" for n in there}
    shown |= {f"{n:.2f}" for n in there} | {f"{n:.0f}" for n in there}
    checked = 0
    for opened in page.of_class("opened"):
        assert known[opened.files()[0]] == folder / "claims.json"
        for cell in (c for t in opened.all("table") for c in t.all("td")):
            if "number" in cell.attributes.get("class", ""):
                numbers = re.findall(r"\d+(?:\.\d+)?", cell.text.removeprefix("< "))
                assert set(numbers) <= shown, cell.text
                checked += len(numbers)
    assert checked > 50


def test_the_cost_is_the_sum_over_its_files(page):
    known = sources(page)
    (cost,) = [s for s in page.all("section") if s.attributes.get("id") == "cost"]
    rows = [row for row in cost.all("tr") if "data-from" in row.attributes]
    for row in rows:
        runs = [records.read(known[id_], TrainRecord) for id_ in row.files()]
        cells = [cell.text for cell in row.all("td")]
        assert f"{sum(run.tokens for run in runs):,}" in cells
        assert f"{sum(run.steps for run in runs):,}" in cells
    assert len(rows) > 3


def test_files_have_one_id_each():
    files = Files()
    assert files(["a", "b", "a"]) == "f1 f2" and files("b") == "f2" and files([]) == ""
    assert files.listed() == [("f1", "a"), ("f2", "b")]


# --- words ------------------------------------------------------------------------------------


def counts(**changes) -> TaskCounts:
    return TaskCounts(**counts_record(**changes))


def test_prompts_that_were_cut_are_counted_by_task():
    found = [
        EvalRecord(**eval_record(n=100, prompts_cut=lost, task=task))
        for lost, task in ((0, "mmlu"), (3, "mmlu"), (7, "mmlu"), (0, "medmcqa"))
    ]
    assert "lost their beginning, as in lm-eval: 7 of 100 questions of mmlu. Such" in cut(found)
    assert cut([found[0], found[3]]) == ""


def test_contamination_in_words():
    clean = counts(also_in_test=0, duplicate=56)
    assert contamination({"news": clean}).startswith("No training row")
    told = contamination({"medmcqa": counts(), "news": clean})
    assert "6 of 3,000 rows of medmcqa" in told and "news" not in told


def test_energy_has_a_basis_or_is_not_estimated():
    h100 = {"cpu": "A processor", "cores": 2, "gpus": [GPUS["h100"].cuda_name] * 8}
    run = TrainRecord(**train_record(device_seconds=7200.0, hardware=h100))
    asked = EvalRecord(**eval_record(seconds=3600.0, hardware=h100))
    told = energy({"t": run}, {"e": asked}, "cuda")
    assert f"at most {3 * GPUS['h100'].watts / 1000:.1f} kWh" in told
    assert f"3.0 hours of H100 at its board power of {GPUS['h100'].watts} W" in told
    assert energy({"t": run}, {}, "cpu").startswith("Energy is not estimated")
    other = TrainRecord(**train_record(hardware={**h100, "gpus": ["A new GPU"]}))
    told = energy({"t": run, "u": other}, {}, "cuda")
    assert "not estimated" in told and "A new GPU" in told and "kWh" not in told


# --- figures of claims ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["claims", "noise", "power"])
def test_a_figure_of_claims_is_drawn_twice_alike(tmp_path, name):
    file = tmp_path / "claims.json"
    records.write(file, example())
    drawn = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        outputs = [folder / f"{name}.png", folder / f"{name}.pdf"]
        figures.draw(name, ["claims"], [str(file)], 3, MINIATURE, outputs)
        drawn.append([out.read_bytes() for out in outputs])
    assert drawn[0] == drawn[1] and drawn[0][0].startswith(b"\x89PNG")


def test_the_power_figure_marks_the_papers_differences():
    found = example()
    axes = claims_drawing.least_effects(found).axes
    assert [axis.get_title() for axis in axes] == [
        "mmlu (14,042 questions)",
        "medmcqa (4,183 questions)",
        "pubmedqa (500 questions)",
    ]
    marked = {text.get_text() for text in axes[1].texts}
    assert {"C10", "C7b", "C8"} <= {name for text in marked for name in text.split(", ")}


def test_labels_are_spread_apart():
    assert claims_drawing.spread([1.0, 1.0, 1.1, 3.0], 0.5) == [1.0, 1.5, 2.0, 3.0]


def test_a_band_is_the_noise_of_the_papers_equal_functions():
    bands = noise.bands()
    assert set(bands) == {"MMLU", "MedMCQA", "Medicine"}
    assert bands["Medicine"] == bands["MedMCQA"] == noise.measured("MedMCQA").band


# --- looks ------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_has_the_contrast_of_wcag_aa_in_light_and_dark(scheme):
    css = (ROOT / "mofe/report/report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", block))
    for ground in ("ground", "tint"):
        for ink in ("ink", "soft", "paper", "ours", "wrong"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["paper"], colours["band"]) >= 3, "a mark on the band"


def test_the_page_has_landmarks_headers_and_alternatives(page):
    assert [len(list(page.all(tag))) for tag in ("main", "h1", "nav", "header")] == [1, 1, 1, 1]
    assert all(image.attributes.get("alt") for image in page.all("img"))
    tracks = [t for t in page.of_class("track") if t.parent.tag == "summary"]
    assert all(t.attributes["role"] == "img" and t.attributes["aria-label"] for t in tracks)
    ids = [n.attributes["id"] for tag in ("section", "li", "div", "h1") for n in page.all(tag)
           if "id" in n.attributes]  # fmt: skip
    assert len(ids) == len(set(ids))
    targets = {link.attributes["href"].removeprefix("#") for link in page.all("a")}
    assert targets <= set(ids)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def laid_out(text: str, folder: Path, width: int, height: int, measured: str):
    """A browser lays a page out in a frame of this size, and a script beside it measures: a
    JavaScript expression over `page`, and `box` of a selector."""
    (folder / "report.html").write_text(text)
    (folder / "frame.html").write_text(
        f'<iframe src="report.html" width="{width}" height="{height}" style="border:0"></iframe>'
        "<pre></pre><script>onload = () => { const page = document.querySelector('iframe')"
        ".contentDocument; const box = (s) => page.querySelector(s).getBoundingClientRect();"
        f"document.querySelector('pre').textContent = JSON.stringify({measured}); }};</script>"
    )
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--allow-file-access-from-files", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(re.search(r"<pre>(.*?)</pre>", done.stdout)[1])


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_whole_figure_is_on_the_first_screen(page, folder, tmp_path, width, height):
    """The figure ends above the frame's lower edge."""
    bottom, across, lead = laid_out(
        (folder / "report.html").read_text(), tmp_path, width, height,
        "[box('figure.forest').bottom, page.documentElement.scrollWidth, box('.lead').bottom]",
    )  # fmt: skip
    assert lead < bottom <= height and across <= width


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_what_claims_open_to_is_whole_on_paper(page, folder, tmp_path):
    """Paper cannot be scrolled, so no table may be wider than it (US Letter with margins)."""
    printed = (folder / "report.html").read_text().replace("@media print", "@media all")
    width = 740
    tables = laid_out(
        printed, tmp_path, width, 960,
        "[...page.querySelectorAll('.opened table')].map(t => "
        "[t.getBoundingClientRect().right, t.parentElement.scrollWidth - t.parentElement.clientWidth])",
    )  # fmt: skip
    assert len(tables) >= len(CLAIMS)
    assert all(0 < right <= width and over <= 0 for right, over in tables)


# --- the archive ------------------------------------------------------------------------------


def packed(folder: Path, out: Path) -> Path:
    kinds = ("claims.json", "data/*.json", "variants/**/*.json*", "evals/**/*.json", "report.html")
    files = [file for kind in kinds for file in sorted(folder.glob(kind))]
    archive.write(
        files, folder, {"study": "mini", "seeds": [0]}, ROOT / "requirements.lock", "mini",
        "miniature", out,
    )  # fmt: skip
    return out


def test_an_archive_describes_every_file_of_itself(page, folder, tmp_path):
    out = packed(folder, tmp_path / "archive.zip")
    with zipfile.ZipFile(out) as zipped:
        names = set(zipped.namelist())
        zipped.extractall(tmp_path / "there")
        assert zipped.read("claims.json") == (folder / "claims.json").read_bytes()
    crate = ROCrate(tmp_path / "there")
    described = {entity.id for entity in crate.data_entities}
    assert described == names - {"ro-crate-metadata.json"}
    assert {"config.yaml", "requirements.lock", "report.html", "claims.json"} <= described
    assert all(entity["description"] and entity["encodingFormat"] for entity in crate.data_entities)
    assert "no evidence" in crate.description and crate.root_dataset["version"]


def test_equal_results_give_equal_archives(page, folder, tmp_path):
    one, two = (packed(folder, tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == two


def test_an_archive_refuses_what_it_cannot_describe(tmp_path):
    odd = put(tmp_path / "odd.bin", {})
    out = tmp_path / "archive.zip"
    lock = ROOT / "requirements.lock"
    with pytest.raises(ValueError, match=r"archive: odd\.bin is of no kind that is described"):
        archive.write([odd], tmp_path, {}, lock, "mini", "miniature", out)
    with pytest.raises(ValueError, match="is not below"):
        archive.write([odd], tmp_path / "results", {}, lock, "mini", "miniature", out)
    assert not out.exists()


def test_the_date_is_that_of_the_commit():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", provenance.git_date())
