"""The week: what the three sessions show, ask and record."""
