"""A DPO run for elsewhere: a folder from which `trl dpo` trains it on machines of your own."""

from .export import export_dpo

__all__ = ["export_dpo"]
