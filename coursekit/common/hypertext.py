"""HTML that several rooms write: pages that need no other file, intervals that stay whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

_WITHIN_INTERVAL = re.compile(r"(?<=[\d%]) to (?=[-+−]?\d)|(?<=[<>]) (?=\d)|(?<=&lt;) (?=\d)")

# Of every page that the course writes. Printed, code and tables stay within the sheet.
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { border: 1px solid #8886; padding: 4px 8px; text-align: left; vertical-align: top }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px }
img { max-width: 100% } figure { margin: 0 }
details { margin: 4px 0 } summary { cursor: pointer }
@media print {
  body { max-width: none; margin: 0 } nav { display: none }
  h2, h3, summary { break-after: avoid } tr, figure, img { break-inside: avoid }
}
"""


def unbroken(text: str) -> str:
    """`text` whose intervals ("-0.1 to +0.2", "< 0.001") no line break parts."""
    return _WITHIN_INTERVAL.sub(lambda match: match[0].replace(" ", "\u00a0"), text)


def html_page(
    title: str, sections: Sequence[tuple[str, str]], intro: str = "", style: str = ""
) -> str:
    """A page that needs no other file, with what a screen reader goes by.

    Its language, a title that is its one h1, an h2 for each section, and links to them.

    Args:
        title: text.
        sections: of each its name, which is text, and HTML, in which headings begin with h3.
        intro: HTML before them. style: CSS beside what all pages have.
    """
    links = parts = ""
    for number, (name, content) in enumerate(sections, start=1):
        links += f'<li><a href="#part-{number}">{escape(name)}</a></li>'
        parts += (
            f'<section id="part-{number}" aria-labelledby="name-{number}">'
            f'<h2 id="name-{number}">{escape(name)}</h2>{content}</section>'
        )
    title = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}{style}</style></head><body>"
        f'<header><h1>{title}</h1></header><nav aria-label="On this page"><ul>{links}</ul></nav>'
        f"<main>{intro}{parts}</main></body></html>\n"
    )
