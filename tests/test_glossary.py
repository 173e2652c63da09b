"""The glossary: links lead somewhere, and a notebook links each term where it first uses it."""

import ast
import re
import sys
from collections.abc import Iterator

import jupytext
import pytest

from coursekit.week.sources import NOTEBOOKS, labs, sources

FILE = NOTEBOOKS / "GLOSSARY.md"
GLOSSARY = FILE.read_text(encoding="utf-8")
TERMS = re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")
_NOT_PROSE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|^#+ [^\n]*$", re.DOTALL | re.MULTILINE
)


def anchor(term: str) -> str:
    return term.replace(" ", "-")


def prose(markdown: str) -> Iterator[tuple[str, str]]:
    """Pieces of a text in order, each with the glossary's anchor that it links to, or nothing."""
    markdown = _NOT_PROSE.sub(" ", markdown)
    end = 0
    for link in _LINK.finditer(markdown):
        yield markdown[end : link.start()], ""
        yield link[1], link[2].partition("GLOSSARY.md#")[2]
        end = link.end()
    yield markdown[end:], ""


def shown(cells) -> Iterator[tuple[str, str]]:
    """What a reader sees: the prose, and the sentences that a cell's code holds."""
    for cell in cells:
        if cell.cell_type == "markdown":
            yield from prose(cell.source)
            continue
        for node in ast.walk(ast.parse(re.sub(r"(?m)^%.*$", "", cell.source))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and " " in text.strip():
                yield text, ""


def unlinked_first_uses(cells) -> list[str]:
    pieces = list(shown(cells))
    found = []
    for term in TERMS:
        words = term.removesuffix("s").replace(" ", r"\s+")
        word = re.compile(rf"\b{words}s?\b", re.IGNORECASE)
        first = next(((text, to) for text, to in pieces if word.search(text)), None)
        if first and first[1] != anchor(term):
            found.append(f"{term}: {' '.join(first[0].split())}")
    return found


each_notebook = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)


@each_notebook
def test_the_first_use_of_a_term_is_a_link(source):
    assert not unlinked_first_uses(jupytext.read(source).cells)


@each_notebook
def test_a_link_leads_to_it_from_where_the_notebook_lies(source):
    """Which is where the copies lie that people work in, too."""
    found = re.findall(r"\]\(([^)\s]*GLOSSARY\.md)", source.read_text(encoding="utf-8"))
    assert found and {(source.parent / link).resolve() for link in found} == {FILE}


def links() -> list[str]:
    """Where the links to glossary entries lead, in the notebooks and in the glossary itself."""
    texts = [path.read_text(encoding="utf-8") for path in sources()]
    return [
        *(to for text in texts for to in re.findall(r"GLOSSARY\.md#([^)\s]*)\)", text)),
        *re.findall(r"\(#([^)\s]*)\)", GLOSSARY),
    ]


def test_each_link_leads_to_an_entry_and_each_entry_is_linked():
    assert set(links()) == {anchor(term) for term in TERMS}


def test_an_entrys_anchor_is_the_same_everywhere():
    """GitHub and VS Code make small letters and hyphens of a heading, JupyterLab hyphens only."""
    assert len(set(TERMS)) == len(TERMS) > 20
    assert sorted(TERMS) == TERMS
    assert not [term for term in TERMS if not re.fullmatch(r"[a-z0-9]+([ -][a-z0-9]+)*", term)]


def test_an_entry_is_short_and_says_where_the_course_shows_it():
    """Sections that exist, at the end of the entry; of the lab (L) what no session shows."""
    sections = {
        ("L" if path in labs() else path.stem[0], number)
        for path in sources()
        for number in re.findall(r"^# ## (\d+) ·", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for entry in GLOSSARY.split("### ")[1:]:
        body = entry.split("\n", 1)[1].strip()
        places = re.search(r"\*([ABC] \d+(?:, [ABC] \d+)*|L \d+(?:, L \d+)*)\*$", body)
        assert places, entry
        assert {tuple(place.split()) for place in places[1].split(", ")} <= sections, entry
        assert len(body.splitlines()) <= 3, entry


def test_a_use_before_its_link_is_found():
    notebook = jupytext.reads(
        "# %% [markdown]\n# ## Proxy\n#\n# A [KL](../GLOSSARY.md#kl) of `nats`, $k1$; see [nats](https://x.y).\n"
        '# %%\nprint(f"{1} wins over SFT"); claim(True, "the proxy rises")\n'
        "# %% [markdown]\n# KL again, and its [proxy](GLOSSARY.md#proxy).\n",
        fmt="py:percent",
    )
    found = [line.split(":")[0] for line in unlinked_first_uses(notebook.cells)]
    assert found == ["nats", "proxy"]


def test_executed_copies_have_it_beside_them(tmp_path, monkeypatch):
    from coursekit.week import run_course

    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["run_course", "--only", "no session"])
    assert run_course.main() == 0
    (copy,) = tmp_path.rglob("GLOSSARY.md")
    assert copy.read_text(encoding="utf-8") == GLOSSARY
