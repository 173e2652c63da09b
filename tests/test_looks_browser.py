"""How things look in a real browser: printed, in JupyterLab that trusts nothing, as on GitHub.

Runs where a Chromium or Chrome is installed; elsewhere it is skipped and says so. The folder that
COURSE_SCREENSHOTS names gets pictures of what was seen.
"""

import os
import re
import sys
import urllib.request

import nbformat
import pandas as pd
import pytest
from browser import WAIT, launched, screenshot, serving
from conftest import ROOT
from test_looks import curves, runs_table, sample, sweep_table, texts

from coursekit.common.inline_table import with_scopes
from coursekit.week.figures import results
from coursekit.week.figures.told import STYLE
from coursekit.week.gallery import load_recorded
from coursekit.week.reading import LAB_OPTIONS, as_page
from coursekit.week.widgets import comparison, exhibits, side_by_side, token_strip
from coursekit.week.widgets.page import as_table, fault

SHEET = 700  # CSS pixels: A4 less the margins that the page's style sets
STORY = r"""# Session of looks
## 1 · A section
$$\mathcal{L} = \sigma\Big(\beta\log\frac{\pi}{\pi_\mathrm{ref}}\Big) + \sigma(x)$$
"""
LONG = "claim(top < 1, f'" + "a sentence that goes on and on, " * 8 + "')"


def notebook():
    """A session with all that helpers show, as it is saved: nothing in it has to be run."""
    run = next(run for run in load_recorded() if run.end)
    wide = pd.DataFrame([range(14)], columns=[f"a column {n}" for n in range(14)])
    shown = [
        comparison(runs_table())._repr_html_(),
        side_by_side(*texts(), changes=True).data,
        as_table([(fault("✗\u00a0rows"), "duplicates", "12 (3 to 20)")], ("", "check", "found")),
        token_strip(["a", "b", "c"], [-9.0, -0.1], skip=1).data,
        results.plot_frontier(sweep_table(), (0.1, 5e-4)).to_html(),
        results.plot_weeks({"ours": curves()}).to_html(),
        with_scopes(wide.to_html()),
        exhibits({"A": run}, {"facts": sample().to_dict()}, 0).data,
    ]
    cells = [nbformat.v4.new_markdown_cell(STORY)]
    for html in shown:
        cell = nbformat.v4.new_code_cell(LONG, execution_count=1)
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
        cells.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


CUT_OFF = """() => [...document.querySelectorAll('main *')].filter(element => {
  const inner = element.closest('math, svg'), box = element.getBoundingClientRect();
  return !inner && box.width && (box.right > innerWidth + 1 ||
    (element.scrollWidth > element.clientWidth + 1 && element.clientWidth &&
     getComputedStyle(element).overflowX != 'visible'));
}).map(element => element.outerHTML.slice(0, 90))"""
HEIGHTS = """() => [...document.querySelectorAll('mo')].filter(mo => mo.textContent == '(')
  .map(mo => mo.getBoundingClientRect().height)"""


def test_a_printed_session_is_whole(browser, tmp_path):
    """Neither code nor table is cut off, brackets are big where they should be, nothing is loaded.

    Also on a screen as narrow: what a small window cuts off would be missed there.
    """
    (tmp_path / "session.html").write_text(as_page(notebook()), encoding="utf-8")
    page = browser.new_page(viewport={"width": SHEET, "height": 990})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(media="print")
    page.goto((tmp_path / "session.html").as_uri())
    screenshot(page, "printed")
    assert page.evaluate(CUT_OFF) == []
    assert len([url for url in asked if not url.startswith("data:")]) == 1  # the page itself
    big, small = page.evaluate(HEIGHTS)
    assert big > 1.4 * small
    assert page.title() == "Session of looks"
    page.close()


def test_without_styles_the_marks_and_widths_are_left(browser, tmp_path):
    """As GitHub shows an output: every style taken out, other attributes kept."""
    html = "".join(
        output["data"]["text/html"]
        for cell in notebook().cells
        for output in cell.get("outputs", [])
    )
    bare = re.sub(r' style="[^"]*"', "", html)
    github = "img { max-width: 100% } table { border-collapse: collapse } td, th { padding: 6px }"
    page = browser.new_page(viewport={"width": 900, "height": 990})
    page.set_content(f"<style>{github}</style><main>{bare}</main>")
    screenshot(page, "github")
    columns = page.locator("th", has_text=re.compile("^(question|one|two)$"))
    widths = [columns.nth(index).bounding_box()["width"] for index in range(3)]
    assert max(widths) < 1.2 * min(widths)
    number = page.locator("td", has_text=re.compile(r"^\+0\.20$"))
    assert number.evaluate("cell => getComputedStyle(cell).textAlign").endswith("right")
    assert all(page.locator("img").evaluate_all("all => all.map(image => image.alt)"))
    page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looks")
    nbformat.write(notebook(), folder / "looks.ipynb")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *LAB_OPTIONS]
    with serving(command, folder, {**os.environ, "PYTHONPATH": str(ROOT)}) as url:
        yield url


LINES = """cell => { const range = document.createRange(); range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size }"""


def test_what_jupyterlab_does_not_trust_keeps_its_looks(browser, lab):
    page = browser.new_page(viewport={"width": 900, "height": 5000})
    page.set_default_timeout(1000 * WAIT)
    page.goto(f"{lab}/lab/tree/looks.ipynb?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-OutputArea td:has-text('+0.20')")
    page.wait_for_selector(".jp-OutputArea summary")
    page.keyboard.press("Control+b")  # the list of files, folded away
    outputs = page.locator(".jp-OutputArea-output")
    assert outputs.locator("style").count() == 0  # nothing here is trusted
    screenshot(page, "untrusted")
    interval = outputs.locator("td", has_text=re.compile(r"\+0\.10\sto\s\+0\.30"))
    assert interval.evaluate(LINES) == 1
    assert int(interval.evaluate("cell => getComputedStyle(cell).fontWeight")) >= 600
    words = outputs.locator("td", has_text="SFT+DPO is higher")
    assert words.evaluate("cell => getComputedStyle(cell).textAlign") == "left"
    wrong = outputs.locator("b", has_text="✗ bad").first
    assert wrong.evaluate("b => getComputedStyle(b).backgroundColor") == "rgb(255, 235, 221)"
    assert all(outputs.locator("th").evaluate_all("all => all.map(head => head.scope)"))
    images = outputs.locator("img")
    assert images.count() == 3 and all(images.evaluate_all("all => all.map(each => each.alt)"))
    # The gallery's letters have 10 points, as most of what matplotlib draws.
    scale = images.last.evaluate(
        "image => image.getBoundingClientRect().width / image.naturalWidth"
    )
    assert 10 * STYLE["figure.dpi"] / 72 * scale >= 11
    page.close()


def test_what_jupyterlab_prints_is_such_a_page(lab):
    """File, Print and File, Save and Export Notebook As, HTML open this address."""
    address = f"{lab}/nbconvert/html/looks.ipynb?download=false"
    asked = urllib.request.Request(address, headers={"Referer": f"{lab}/lab"})
    html = urllib.request.urlopen(asked, timeout=WAIT).read().decode("utf-8")
    assert "<title>Session of looks</title>" in html and "<math" in html
    assert not re.search(r'(src|href)="(https?:)?//', html)
