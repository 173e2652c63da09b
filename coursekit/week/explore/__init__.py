"""A run at a glance: all that a person looks at before believing a number, on one page."""

from .facts import Fact, facts
from .gather import Glance, gather
from .page import MOST, PAGE, in_short, page_of, write_page

__all__ = ["MOST", "PAGE", "Fact", "Glance", "facts", "gather", "in_short", "page_of", "write_page"]
