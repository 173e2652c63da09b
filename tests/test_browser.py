"""The widgets in a real browser: JupyterLab in headless Chromium, keys pressed, files read."""

import json
import os
import sys

import nbformat
import pytest
from browser import browsing, eventually, screenshot, serving
from conftest import ROOT

LABELS = """
from coursekit.evaluation.judges.person import Labelling
from coursekit.week.widgets import label_pairs
items = [({"prompt": f"Prompt {i}"}, f"good {i}", f"bad {i}") for i in range(6)]
work = Labelling(items, "labels.jsonl")
box = label_pairs(work, "# The rubric")
"""
SLIDER = """
from coursekit.week.bandit import make_world
from coursekit.week.widgets import beta_slider
beta_slider(make_world())
"""

PAGER = """
from coursekit.tasks.triage import TRIAGE, sample_alerts
from coursekit.week.widgets import pager, predict
rows = [{"facts": alert.to_dict()} for alert in sample_alerts("evaluation", 3)]
slider = pager(TRIAGE, rows, {"SFT": ["one", "two", "three"], "SFT+DPO": ["one", "2", "3"]})
expected = predict("Which?", ["this one", "that one"])
"""
HELD = """
from coursekit.week.widgets import held
held(expected, "that one", "as it is")
"""
EXPLORE = """
from coursekit.week.widgets import explore
from coursekit.workspace import Workspace
explore(Workspace())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab with a notebook of five cells; yields its address and its folder."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(code.strip())
            for code in (LABELS, SLIDER, PAGER, HELD, EXPLORE)
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}},
    )
    nbformat.write(notebook, folder / "widgets.ipynb")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COURSE_ARTIFACTS": str(folder),
        "COURSE_DIARY": "",  # what is clicked here is kept
    }
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    with serving(command, folder / "settings", env) as url:
        yield url, folder


@pytest.fixture(scope="module")
def page(lab):
    url, _ = lab
    with browsing() as page:
        page.goto(f"{url}/lab/tree/widgets.ipynb?reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells")
        page.wait_for_selector("text=of 6 pairs labelled")
        yield page


def lines(folder):
    path = folder / "labels.jsonl"
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.is_file()
        else []
    )


def test_pairs_are_labelled_by_keys_and_by_buttons_without_a_mouse(page, lab):
    _, folder = lab
    box = page.locator("input[placeholder*='skip']")
    box.focus()
    page.keyboard.type("1")
    assert eventually(lambda: len(lines(folder)) == 1)
    page.wait_for_selector("text=1 of 6 pairs labelled")
    shown_left = lines(folder)[0]
    assert shown_left["label"] == ("second" if shown_left["swapped"] else "first")
    page.keyboard.type("3s", delay=30)
    assert eventually(lambda: [line["label"] for line in lines(folder)[1:]] == ["tie", "skip"])
    page.keyboard.type("u")
    assert eventually(lambda: len(lines(folder)) == 4 and lines(folder)[3]["label"] is None)
    page.wait_for_selector("text=2 of 6 pairs labelled")
    # From the box by Tab to the first button, and pressed by the space bar.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText").startswith("1: left")
    page.keyboard.press("Space")
    assert eventually(lambda: len(lines(folder)) == 5)
    page.wait_for_selector("text=3 of 6 pairs labelled")
    box.focus()
    page.keyboard.type("2222", delay=5)  # faster than the kernel answers
    page.wait_for_selector("text=All pairs have a label")
    assert len(lines(folder)) == 8


HANDLES = ".widget-slider [role=slider], .noUi-handle"


def test_the_slider_changes_the_figure(page):
    figure = page.locator(".jp-OutputArea img").last
    figure.wait_for()
    before = figure.get_attribute("src")
    page.locator(HANDLES).first.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    assert eventually(
        lambda: page.locator(".jp-OutputArea img").last.get_attribute("src") != before
    )


def test_pages_turn_and_predictions_are_clicked(page):
    page.wait_for_selector("text=Your prediction")
    pages = page.locator(".jp-OutputArea table", has_text="SFT+DPO").last
    assert "one" in pages.inner_text()
    page.locator(HANDLES).last.focus()
    page.keyboard.press("ArrowRight")
    assert eventually(
        lambda: "two" in page.locator(".jp-OutputArea table", has_text="SFT+DPO").last.inner_text()
    )
    page.wait_for_selector("text=(You made no prediction.)")
    page.locator("label", has_text="that one").locator("input").check()
    verdict = page.locator(".jp-OutputArea", has_text="Your prediction held.")
    assert eventually(lambda: verdict.count() == 2)  # below the buttons and below the result
    screenshot(page, "widgets")


def test_the_runs_page_is_shown_in_a_frame_of_its_own(page, lab):
    """Of a run of which nothing is there yet; with rows, see `test_explore_browser`."""
    _, folder = lab
    frame = page.frame_locator("iframe[title='A run at a glance']")
    frame.locator("h1", has_text="A run at a glance").wait_for()
    assert frame.locator("text=Run session B, section 3").count() > 0
    assert list(folder.rglob("explore.html"))
