"""Helpers for the course "DPO and preference data". Importing this loads no heavy library."""

__version__ = "0.1.0"
