"""The run's page in a real browser: opened from the disk, filtered by clicking, dark and narrow.

Runs where a Chromium or Chrome is installed; elsewhere it is skipped and says so.
"""

from dataclasses import replace

import pytest
from browser import WAIT, launched, screenshot
from test_explore import EVIL, planted

from coursekit.week.explore import page_of
from coursekit.week.explore.kept_verdicts import Said
from coursekit.workspace import Workspace

ANSWERS, PAIRS = "#answers tbody tr:visible", "#pairs table.rows tbody tr:visible"


@pytest.fixture(scope="module")
def address(profile, tmp_path_factory):
    """A page on the disk: 30 answers, one lost and five longer; 25 pairs, three flagged."""
    folder = tmp_path_factory.mktemp("page")
    glance = planted(Workspace(profile, folder=folder), EVIL, pairs=25)
    (answer,) = glance.answers
    longer = dict(answer.answers) | {"SFT+DPO": f"{EVIL} and more"}
    glance.answers = [
        replace(
            answer,
            number=n,
            prompt=f"Prompt of number {n}.",
            answers=longer if n % 6 == 0 else answer.answers,
            said=Said("second" if n == 17 else "first"),
            flags=(),
        )
        for n in range(1, 31)
    ]
    glance.pairs = [
        replace(pair, flags=("doubled rows",) * (pair.number in (3, 14, 25)), consistent=True)
        for pair in glance.pairs
    ]
    path = folder / "explore.html"
    path.write_text(page_of(glance), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture()
def opened(browser, address):
    """Opens the page; what it asked for, and what it complained of, is checked at the end."""
    asked, complaints, contexts = [], [], []

    def open_page(**options):
        context = browser.new_context(viewport={"width": 1300, "height": 1000}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * WAIT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert set(asked) == {address} and not complaints


def test_rows_are_filtered_by_clicking(opened):
    page = opened()
    page.wait_for_selector("text=1 to 10 of 30")
    assert page.locator(ANSWERS).count() == 10
    page.click("text=lost to SFT (1)")
    page.wait_for_selector("text=1 to 1 of 1")
    assert "Prompt of number 17." in page.locator(ANSWERS).inner_text()
    page.click("text=longer than SFT's (5)")  # both: none
    page.wait_for_selector("#answers >> text=none of the rows")
    page.click("text=lost to SFT (1)")
    page.wait_for_selector("text=1 to 5 of 5")
    assert page.locator(PAIRS).count() == 10  # the other table's rows stay
    page.click("text=flagged by the audit (3)")
    page.wait_for_selector("#pairs >> text=1 to 3 of 3")
    assert page.locator("#pairs label:has-text('said otherwise') input").is_disabled()


def test_words_are_searched_and_pages_turned_by_keys(opened):
    page = opened()
    page.wait_for_selector("text=1 to 10 of 30")
    page.locator("#answers .dt-search input").fill("number 22")
    page.wait_for_selector("text=1 to 1 of 1")
    page.locator("#answers .dt-search input").fill("")
    page.locator("#answers .dt-paging button", has_text="3").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=21 to 30 of 30")
    page.locator("#answers label", has_text="lost to SFT").locator("input").focus()
    page.keyboard.press("Space")
    page.wait_for_selector("text=1 to 1 of 1")


def test_a_fact_leads_to_its_rows(opened):
    page = opened()
    page.wait_for_selector("text=1 to 10 of 30")
    page.click("li:has-text('prompt by prompt') a")
    page.wait_for_selector("text=1 to 1 of 1")
    assert page.locator("#answers h2").is_visible()
    assert page.evaluate("location.hash") == "#answers"


def test_nothing_that_a_response_holds_runs(opened):
    page = opened()
    page.wait_for_selector("text=1 to 10 of 30")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert "<script>window.hacked=1</script>" in page.locator(ANSWERS).first.inner_text()


def test_without_scripts_all_rows_are_there_and_the_filters_work(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(ANSWERS).count() == 30 and page.locator(PAIRS).count() == 25
    page.click("text=lost to SFT (1)")
    assert page.locator(ANSWERS).count() == 1 and page.locator(PAIRS).count() == 25


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 900, 400])
def test_it_is_legible_in_either_scheme_and_fits_the_window(opened, scheme, width):
    page = opened(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_selector("text=1 to 10 of 30")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('#answers td')).color,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert (luminance(ink) > luminance(paper)) == (scheme == "dark")
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 7  # WCAG's contrast, AAA
    screenshot(page, f"explore_{scheme}_{width}")


def luminance(colour):
    """WCAG 2.2's relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
