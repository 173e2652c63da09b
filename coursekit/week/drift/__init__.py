"""Has what the notebooks show changed? `python -m coursekit drift` executes them and compares.

`numbers` reads numbers and their standard errors from a line, `said` lines and pictures from a
cell, `compare` finds what differs, `page` shows it.
"""
