"""The lab: every method at work on one language model, measured in the same way.

A *method* makes checkpoints from the same SFT model, prompts and labels (`methods`); a checkpoint
is measured by its true reward and its KL from the SFT model (`points`); a *study* is a grid of
methods, settings and seeds (`studies`), which `python -m coursekit study` runs and records
(`sweep`).
"""
