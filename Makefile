# Each target makes the environment it needs on the first run and reuses it afterwards.
# The same without make: `python -m coursekit course` (or test, lab, bench, seeds, model).
PYTHON ?= python3

.PHONY: course test lab bench seeds model notebooks
course test lab bench seeds model notebooks:
	@$(PYTHON) -m coursekit $@
