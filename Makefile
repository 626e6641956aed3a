# make demo   compile the quickstart and train it, from nothing
# make test   every test, in two processes; each file's tests stay together
# make check  lint and types
# make option-tables  the options of every Megatron that a recipe can target, read off its wheel
# make kills  kill a training at 20 random moments, and see that each next start goes on rightly; 15 minutes
# make bench-cpu   how fast the quickstart trains on a CPU, against a plain PyTorch loop of the same model
# make bench-loss  memory and time of the loss with and without the logits of all tokens
# make bench-gpu   how fast one GPU trains, against plain Megatron and TRL; ARGS=--rehearse to see it work on a CPU
# make bench-hf    host memory of loading Hugging Face weights, against their size
# make bench-data  how fast data is prepared; ROWS=5000000 for the memory of so many

SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.sftc-ready

.PHONY: demo test check lint types golden equivalence option-tables kills bench-cpu bench-loss bench-gpu bench-data bench-hf clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/sftc compile recipes/quickstart/recipe.yaml -o build/quickstart
	PATH="$(CURDIR)/$(BIN):$$PATH" bash build/quickstart/launch.sh

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile

check: lint types

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# mypy cannot follow the import hook of an editable install; a link named like the namespace shows it the same tree.
types: $(READY)
	mkdir -p $(VENV)/types
	ln -sfn $(CURDIR) $(VENV)/types/sftc
	MYPYPATH=$(VENV)/types $(BIN)/mypy -p sftc.compiler -p sftc.runtime

golden: $(READY)
	$(BIN)/pytest tests/golden tests/errors tests/unit/test_docs.py --update-golden

equivalence: $(READY)
	$(BIN)/pytest tests/runtime/test_layouts.py --update-golden

option-tables: $(READY)
	$(BIN)/python tests/assets/make_option_tables.py

kills: $(READY)
	$(BIN)/python tests/bench/kills.py

bench-cpu: $(READY)
	$(BIN)/python tests/bench/cpu_speed.py

bench-loss: $(READY)
	$(BIN)/python tests/bench/loss_memory.py

bench-gpu: $(READY)
	$(BIN)/python tests/bench/gpu_speed.py $(ARGS)

bench-hf: $(READY)
	$(BIN)/python tests/bench/hf_memory.py

bench-data: $(READY)
	$(BIN)/python tests/bench/bench_data.py $(if $(ROWS),--memory-rows $(ROWS))

$(READY): pyproject.toml
	@python=$$(tests/assets/find_python.sh) && "$$python" -m venv $(VENV)
	@echo "installing into $(VENV): a few GB, some minutes"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[runtime,dev]"
	@touch $@

clean:
	rm -rf $(VENV) build runs .sftc
