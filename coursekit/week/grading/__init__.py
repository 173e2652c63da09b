"""Grading: what learners handed in is read, run behind a fence, judged, and put into a table."""
