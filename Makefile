# Each target makes the environment it needs on the first run and reuses it afterwards.
# The same without make: `python -m coursekit course` (or test, lab, bench, seeds, model, notebooks,
# drift). ONLY=B chooses the notebooks of course, notebooks and drift whose names begin so; course
# runs a lab only if it is chosen.
PYTHON ?= python3

.PHONY: course test lab bench seeds model notebooks drift
course test lab bench seeds model notebooks drift:
	@$(PYTHON) -m coursekit $@ $(if $(ONLY),--only $(ONLY))
