"""How things look: without style sheets, without colours, without a picture, read aloud."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from coursekit.common.hypertext import html_page, unbroken
from coursekit.common.inline_table import with_scopes
from coursekit.common.markup import styled
from coursekit.week import bandit
from coursekit.week.figures import results, theory
from coursekit.week.figures.labels import MARKER, label_points
from coursekit.week.gallery import load_recorded
from coursekit.week.reading import as_page
from coursekit.week.saved import settle, tidy
from coursekit.week.sources import labs, sources
from coursekit.week.widgets import comparison, exhibits, side_by_side, token_strip
from coursekit.week.widgets.page import as_table, fault

LEGIBLE = 4.5  # WCAG 2.2, 1.4.3: of letters and what lies behind them


def contrast(one, other):
    """WCAG's contrast ratio of two colours, from 1 to 21."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    light, dark = sorted((luminance(to_rgb(one)), luminance(to_rgb(other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


class Elements(HTMLParser):
    """The elements of a page, in order: name, attributes, and the text within."""

    def __init__(self, html):
        super().__init__()
        self.all, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = SimpleNamespace(tag=tag, text="", **{"attrs": dict(attrs)})
        self.all.append(element)
        if tag not in ("img", "br", "meta", "link", "input", "hr"):
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open and self.open.pop().tag != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def named(self, *tags):
        return [element for element in self.all if element.tag in tags]


# Tables.


def runs_table():
    """As from `comparison_table`: a clear difference, one that is none, a probability."""
    table = pd.DataFrame(
        {
            "kind": ["truth", "heuristic"],
            **{"SFT": [0.6, 167.9], "SFT+DPO": [0.8, 157.4], "difference": [0.2, -10.5]},
            **{"low": [0.1, -12.0], "high": [0.3, 2.0], "n": [30, 30], "p": [0.0001, None]},
            "conclusion": ["SFT+DPO is higher, by at least 10 points", "no difference shown"],
        },
        index=["severity", "length"],
    )
    table.attrs = {"candidate": "SFT+DPO", "baseline": "SFT"}
    return table


def test_a_styled_table_needs_no_style_sheet():
    page = Elements(comparison(runs_table())._repr_html_())
    assert not page.named("style")
    (difference,) = [cell for cell in page.named("td") if cell.text == "+0.20"]
    assert "font-weight:bold" in difference.attrs["style"]
    assert difference.attrs["align"] == "right" and "text-align:right" in difference.attrs["style"]
    (words,) = [cell for cell in page.named("td") if cell.text.startswith("SFT+DPO is")]
    (above,) = [cell for cell in page.named("th") if cell.text == "what it shows"]
    assert words.attrs["align"] == above.attrs["align"] == "left"


def test_intervals_stay_on_one_line():
    cells = [cell.text for cell in Elements(comparison(runs_table()).to_html()).named("td")]
    assert "+0.10\u00a0to\u00a0+0.30" in cells and "<\u00a00.001" in cells
    assert unbroken("62% (58% to 66%) of 30") == "62% (58%\u00a0to\u00a066%) of 30"
    assert unbroken("from 3 to many, up to 5") == "from 3 to many, up to 5"
    assert "0.1\u00a0to\u00a00.2" in as_table([("0.1 to 0.2",)])


def test_headers_say_what_they_head():
    index = pd.MultiIndex.from_tuples([("k", 1), ("k", 2), ("l", 3)], names=["n", "m"])
    columns = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    frame = pd.DataFrame([[1, "u"], [2, "v"], [3, "w"]], index=index, columns=columns)
    for html in (styled(frame).to_html(), with_scopes(frame.to_html())):
        scopes = {cell.text: cell.attrs["scope"] for cell in Elements(html).named("th")}
        assert scopes == {
            **{"a": "colgroup", "x": "col", "y": "col", "n": "col", "m": "col"},
            **{"k": "rowgroup", "1": "row", "2": "row", "l": "row", "3": "row"},
        }
    assert with_scopes(frame.to_html(index=False)).count('scope="col"') == 2
    for table in (as_table([("a",)], ("b",)), side_by_side(*texts()).data):
        heads = Elements(table).named("th")
        assert heads and all(head.attrs.get("scope") == "col" for head in heads)


def test_a_kernel_heads_the_tables_of_pandas_too(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    from coursekit.week.widgets import head_tables

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    frame = pd.DataFrame({"a": [1]})
    bare, _ = shell.display_formatter.format(frame)
    assert "scope=" not in bare["text/html"]
    head_tables()
    shown, _ = shell.display_formatter.format(frame)
    assert shown["text/html"].count("scope=") == 2


# What colours alone would say.


def texts():
    """A task that knows one fault, a row of it, and two models' answers."""
    task = SimpleNamespace(
        asked="question",
        knows_truth=True,
        shown=lambda row: row["prompt"],
        truth=lambda row, text: 0.5,
        faults=lambda row, text: {"bad <line>"} & set(text.split("\n")),
    )
    return task, [{"prompt": "why"}], {"one": ["good\nbad <line>"], "two": ["good\nnew"]}


def test_marks_say_what_colours_say():
    """GitHub takes each style out."""
    html = re.sub(r' style="[^"]*"', "", side_by_side(*texts(), changes=True).data)
    assert "<b>✗ bad &lt;line&gt;</b>" in html and "+ new" in html and "+ good" not in html
    assert "✗</b> marks a fault" in html and "+ </span> marks what" in html
    page = Elements(html)
    assert [head.attrs["width"] for head in page.named("th")] == ["33%"] * 3
    assert all(cell.attrs["valign"] == "top" for cell in page.named("td"))
    assert not page.named("pre")  # which would not wrap


def coloured(html):
    """Pairs of colours, of letters and of what is behind them, in inline styles."""
    for element in Elements(html).all:
        style = dict(
            part.split(":", 1) for part in element.attrs.get("style", "").split(";") if ":" in part
        )
        if colour := style.get("color"):
            yield colour, style.get("background", "#fff")


def on_white(colour):
    """`rgba(r,g,b,a)` as it looks on white."""
    if not colour.startswith("rgba"):
        return colour
    *parts, alpha = map(float, re.findall(r"[\d.]+", colour))
    return tuple(alpha * part / 255 + 1 - alpha for part in parts)


def test_the_letters_of_widgets_can_be_read():
    strip = token_strip(["a", "b", "c"], [-9.0, -0.1], skip=1).data
    pairs = [*coloured(fault("✗")), *coloured(strip)]
    assert len(pairs) >= 4
    for letters, behind in pairs:
        assert contrast(letters, on_white(behind)) >= LEGIBLE, (letters, behind)
    assert contrast("#D55E00", "white") < LEGIBLE  # the palette's vermilion, as lines have it


def test_the_letters_of_pages_can_be_read():
    from coursekit.week.grading.report import _STYLE

    dark = _STYLE[_STYLE.index("@media (prefers-color-scheme: dark)") :]
    for style, behind in ((_STYLE.replace(dark, ""), "#ffffff"), (dark, "#121212")):
        colours = re.findall(r"[ {]color: (#\w+)", style)
        assert len(colours) == 2 and all(contrast(each, behind) >= LEGIBLE for each in colours)


# Figures.


def curves(held=True):
    return {
        "SFT": [{"step": step, "loss": 2 - 0.1 * step} for step in range(1, 11)],
        "SFT+DPO": [
            {
                "step": step,
                "rewards/margins": 0.1 * step,
                "rewards/accuracies": 0.5 + 0.04 * step,
                **({"held/margins": 0.09 * step} if held else {}),
            }
            for step in range(1, 11)
        ],
    }


def sweep_table(spread=0.0):
    """Settings of which most lie within a hair of each other, and one far away."""
    settings = [*((beta, 5e-4) for beta in (0.05, 0.1, 0.5, 1.0)), (0.1, 2e-4), (0.1, 3e-3)]
    table = pd.DataFrame(settings, columns=["beta", "learning_rate"])
    far = np.arange(len(table)) == len(table) - 1
    table["kl"] = 0.03 + spread * table.index + 22 * far
    table["gap"] = 1.0 + spread * table.index + 3 * far
    table["win_rate"] = 0.6 + spread * table.index / 10 - 0.4 * far
    return table.assign(low=table["win_rate"] - 0.03, high=table["win_rate"] + 0.03)


def noise(shift=0.0):
    lines = [(loss, rate) for loss in ("DPO", "robust DPO") for rate in (0.0, 0.2, 0.4)]
    table = pd.DataFrame(lines, columns=["loss", "rate"])
    table["win_rate"] = 0.7 + shift - table["rate"] / 2
    table["seeds"] = [[0.7, 0.6]] * len(table)
    return table.assign(low=table["win_rate"] - 0.02, high=table["win_rate"] + 0.02)


def sizes(shift=0.0):
    low = np.array([-0.1, 0.02]) + shift
    return pd.DataFrame(
        {"n": [30, 300], "low": low, "high": low + 0.2, "shown": [0.3, 0.9 + shift]}
    ).assign(**{"estimate low": low, "estimate high": low + 0.1})


def checkpoints(lied=1):
    n = 5
    return pd.DataFrame(
        {"gap": np.arange(n), "accuracy": np.linspace(0.5, 0.9, n), "kl": np.arange(n) / 2}
    ).assign(win_rate=np.linspace(0.7, 0.2, n), lied=np.arange(n) < lied)


@pytest.fixture(scope="module")
def told():
    """Each figure twice, of data that differ; the one that shows no data once."""
    from coursekit.preferences.auditing import Audit, Finding, Share

    recorded = [run for run in load_recorded() if run.end][:2]
    first, second = (run.metrics for run in recorded)
    worlds = [bandit.make_world(seed=seed) for seed in (0, 1)]
    paths = [{beta: bandit.overoptimise(beta, 2, steps=n) for beta in (0.0, 1.0)} for n in (3, 5)]
    scores = [
        pd.DataFrame({"SFT": [0.5, shift], "SFT+DPO": [0.9, 0.8]}, index=["format", "overall"])
        for shift in (0.1, 0.2)
    ]
    found = [
        Audit(n, (Finding("empty", "fault", "x", "x", "x", rows=(1,)),), {"longer": share}, (3, n))
        for n, share in ((10, Share(0.6, 0.5, 0.7, 10, 10)), (20, Share(0.9, 0.8, 1.0, 20, 20)))
    ]
    regrets = [
        pd.DataFrame(
            [
                (c, seed, method, shift + seed)
                for c in "ab"
                for seed in (0, 1)
                for method in METHODS
            ],
            columns=["condition", "seed", "method", "regret"],
        )
        for shift in (0.0, 0.5)
    ]
    given = {
        results.plot_comparison: [(each, ["SFT", "SFT+DPO"]) for each in scores],
        results.plot_audit: [(each,) for each in found],
        results.plot_label_noise: [(noise(), 0.3), (noise(0.1), 0.3)],
        results.plot_monitor: [(first,), (second,)],
        results.plot_frontier: [(sweep_table(), (0.1, 5e-4)), (sweep_table(0.01), (0.1, 5e-4))],
        results.plot_exhibit: [(first,), (second,)],
        results.plot_intervals: [(sizes(), "lead"), (sizes(0.05), "lead")],
        results.plot_gap_and_win: [(checkpoints(),), (checkpoints(2),)],
        results.plot_cases: [({"A": first},), ({"A": second},)],
        results.plot_weeks: [({"ours": curves()},), ({"theirs": curves()},)],
        theory.plot_pipeline: [()],
        theory.plot_reward_fit: [
            (dict.fromkeys("ab", world.reward), worlds[0].reward) for world in worlds
        ],
        theory.plot_overoptimisation: [(each,) for each in paths],
        theory.plot_frontier: [(each,) for each in paths],
        theory.plot_optimum: [(world, 1.0) for world in worlds],
        theory.plot_optima: [(world, [1, 0.1]) for world in worlds],
        theory.plot_beta: [(world, [0.1, 1, 10]) for world in worlds],
        theory.plot_estimators: [(each,) for each in regrets],
        theory.plot_loss_family: [(0.3,), (0.5,)],
        theory.plot_margins: [({"DPO": [0.1, last]}, {"DPO": 2.0}) for last in (0.2, 0.3)],
        theory.plot_group_advantages: [([0.1, 0.9],), ([0.2, 0.9],)],
    }
    return {plot: [plot(*args) for args in several] for plot, several in given.items()}


METHODS = ("reference", "DPO", "RLHF")


def test_every_figure_is_told_in_words_with_the_numbers_of_its_data(told):
    public = {
        plot
        for module in (results, theory)
        for name, plot in vars(module).items()
        if name.startswith("plot_")
    }
    assert set(told) == public
    for plot, figures in told.items():
        for figure in figures:
            (image,) = Elements(figure.bundle()["text/html"]).named("img")
            assert image.attrs["alt"] == figure.alt == figure.bundle()["text/plain"]
            assert 40 < len(figure.alt) < 1500 and "nan" not in figure.alt, figure.alt
        if plot is not theory.plot_pipeline:  # which shows no data
            one, other = figures
            assert re.search(r"\d\.\d|\d%", one.alt), one.alt
            assert one.alt != other.alt


def test_a_figure_is_shown_once_and_as_html(told, monkeypatch):
    """Neither JupyterLab nor nbconvert gives a picture of the type image/png a text."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    told[theory.plot_pipeline][0]._ipython_display_()
    assert [set(bundle) for bundle in shown] == [{"text/html", "text/plain"}]


def test_the_letters_of_figures_can_be_read(told):
    for figures in told.values():
        for text in figures[0].findobj(Text):
            if text.get_text().strip() and text.get_visible():
                assert contrast(text.get_color(), "white") >= LEGIBLE, text


def boxes(axes):
    """Of the labels, without the lines to their points."""
    return [Text.get_window_extent(text) for text in axes.texts if text.get_visible()]


def test_labels_lie_apart_and_within_their_axes(told):
    several = [axes for figure in told[results.plot_frontier] for axes in figure.axes]
    frontier = [figure.axes[2] for figure in told[theory.plot_beta]]
    for axes in (*several, *frontier):
        axes.figure.draw_without_rendering()
        found = boxes(axes)
        assert len(found) == len(axes.texts) >= 3
        for index, box in enumerate(found):
            assert not box.count_overlaps(found[:index])
            assert axes.bbox.count_contains(box.corners()) == 4


def test_labels_keep_off_markers_and_legend(told):
    for axes in told[results.plot_frontier][0].axes:
        axes.figure.draw_without_rendering()
        half = MARKER * axes.figure.dpi / 72
        markers = [axes.transData.transform(note.xy) for note in axes.texts]
        taken = [Bbox([point - half, point + half]) for point in markers]
        if legend := axes.get_legend():
            taken.append(legend.get_window_extent())
        assert not any(box.count_overlaps(taken) for box in boxes(axes))


def test_a_label_without_a_place_is_left_out():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(0.6, 0.6))
    label_points(axes, [(0.5, 0.5, "much too long for so small a figure", "black")])
    assert not axes.texts[0].get_visible()
    plt.close(figure)


def test_a_model_whose_sft_was_brought_is_in_the_legend():
    brought = {**curves(), "SFT": []}
    (legend,) = results.plot_weeks({"ours": brought, "theirs": curves()}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "theirs"]
    margin = results.plot_weeks({"ours": curves(), "theirs": curves()}).axes[1]
    lines = [line for line in margin.lines if line.get_marker() == "None"]
    assert len({line.get_linestyle() for line in lines}) == 2  # not by colour alone


def test_the_gallery_can_be_read_beside_text(told):
    """A window of 900 pixels leaves JupyterLab's outputs some 700 (`test_looks_browser`)."""
    figure = told[results.plot_exhibit][0]
    shrunk = min(1, 700 / (figure.get_figwidth() * figure.dpi))
    for axes in figure.axes:
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
            assert text.get_fontsize() * figure.dpi / 72 * shrunk >= 11  # pixels
    run = next(run for run in load_recorded() if run.end)
    page = exhibits({"A": run}, {"facts": sample().to_dict()}, 0).data
    (image,) = Elements(page).named("img")
    assert f"{run.end.win_rate[0]:.0%}" in page and "KL" in image.attrs["alt"]


def sample():
    from coursekit.tasks.triage import sample_alerts

    return sample_alerts("evaluation", 1)[0]


# Pages.


def levels(page):
    return [int(element.tag[1]) for element in page.named("h1", "h2", "h3", "h4", "h5", "h6")]


def assert_a_screen_reader_finds_its_way(html):
    page = Elements(html)
    assert page.named("html")[0].attrs["lang"] == "en"
    (title,), (h1,) = page.named("title"), page.named("h1")
    assert h1.text.replace("¶", "") == title.text != ""
    assert len(page.named("main")) == 1 and len(page.named("nav")) == 1
    assert page.named("nav")[0].attrs["aria-label"]
    found = levels(page)
    assert found[0] == 1 and all(b - a <= 1 for a, b in pairwise(found))
    ids = [element.attrs["id"] for element in page.all if "id" in element.attrs]
    linked = [a.attrs["href"] for a in page.named("a") if a.attrs.get("href", "").startswith("#")]
    assert linked and {link[1:] for link in linked} <= set(ids) and len(ids) == len(set(ids))
    assert all(image.attrs.get("alt") for image in page.named("img"))


def test_pages_have_landmarks_and_headings_in_order(tmp_path, profile):
    from coursekit.week.drift.compare import Comparison, Finding
    from coursekit.week.drift.page import page
    from coursekit.week.hand_in import hand_in
    from coursekit.workspace import Workspace

    assert_a_screen_reader_finds_its_way(html_page("A <b>", [("x", "<h3>y</h3>"), ("x", "")]))
    assert_a_screen_reader_finds_its_way(
        hand_in(Workspace(profile)).path.read_text(encoding="utf-8")
    )
    finding = Finding(kind="text", where="cell 1", before="a", after="b", note="n")
    assert_a_screen_reader_finds_its_way(page([Comparison("A", [finding], {"cells": 1})]))


def test_grades_have_landmarks_and_headings_in_order(tmp_path):
    from coursekit.week.grading.report import write_page
    from coursekit.week.grading.submissions import HandedIn
    from coursekit.week.grading.verdicts import Grade
    from coursekit.week.solved import EXERCISES

    grades = {name: Grade(name, "missing") for name in EXERCISES}
    write_page(tmp_path / "grades.html", [HandedIn("Ada")], {"Ada": grades}, ["How."])
    assert_a_screen_reader_finds_its_way((tmp_path / "grades.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_a_notebook_is_a_page_that_asks_nothing_of_the_network(source):
    notebook = jupytext.read(source)
    html = as_page(notebook)
    assert_a_screen_reader_finds_its_way(html)
    page = Elements(html)
    folded = [cell for cell in notebook.cells if "hide-input" in cell.metadata.get("tags", [])]
    titles = [re.search(r"^# @title (.+)$", cell.source, re.M)[1] for cell in folded]
    assert titles and [each.text for each in page.named("summary")] == titles
    begins = "Lab" if source in labs() else f"Session {source.stem[0]}"
    assert page.named("title")[0].text.startswith(begins)
    loads = [
        element.attrs.get(name, "")
        for element in page.named("script", "link", "img", "iframe", "source")
        for name in ("src", "href")
    ]
    assert not [url for url in loads if url.startswith(("http", "//"))]
    assert not re.search(r"@import|url\(['\"]?(https?:)?//", html)
    assert "white-space: pre-wrap" in html and "@media print" in html


def test_what_a_cell_displays_is_below_its_section():
    card = "# Card\n```bash\n# a comment\n```\n## Use"
    cell = nbformat.v4.new_code_cell("card")
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": card})]
    cells = [nbformat.v4.new_markdown_cell("# Title\n## Section"), cell]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert_a_screen_reader_finds_its_way(as_page(notebook))
    settle(notebook)
    assert notebook.metadata["title"] == "Title"
    shown = notebook.cells[1].outputs[0]["data"]
    assert shown["text/markdown"] == "### Card\n```bash\n# a comment\n```\n#### Use"
    tidy(notebook)
    assert shown["text/markdown"].startswith("### Card")  # where it is already, it stays
