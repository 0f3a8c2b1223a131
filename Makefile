# Two commands do everything: `make demo` and `make test`. Each sets itself up.
# 3.13 is not among them: a release that Axolotl pins, zstandard 0.22, has no wheel for it.
SUPPORTED := sys.version_info[:2] in ((3, 11), (3, 12))
# A name may be there and not run, such as a shim of pyenv.
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
  $$name -c 'import sys; sys.exit(not $(SUPPORTED))' 2> /dev/null && echo $$name && break; done)
BIN := .venv/bin
# Whether `make environments` installs vLLM too; VLLM= leaves it out.
VLLM ?= 1
# Processes that tests are run in.
WORKERS ?= 2
# Sources of the code that is checked.
CODE := agenttuning_plugin dataset_builders evaluators recipes examples benchmarks tests

export AXOLOTL_DO_NOT_TRACK := 1
export DO_NOT_TRACK := 1
export PYTHONUTF8 := 1

.PHONY: demo test test-all test-bare test-stacks test-axolotl test-trl check docs environments format pages clean

demo: .venv/.demo  ## Fine-tune a small model on an eta-mix and show what changed.
	$(BIN)/agenttuning demo

# A file's tests stay together: they share what is dear to make.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test: .venv/.dev  ## Run the tests, but for those marked slow.
	$(PYTEST) -m "not slow"

test-all: .venv/.dev  ## Run all tests.
	$(PYTEST)

# What depends on the releases of trainers and libraries: masks of every template, the mix
# through both trainers, packing, callbacks, generation and its cache, recipes, resume, check.
STACK_TESTS := tests/agenttuning_plugin/trainers tests/agenttuning_plugin/preflight \
  tests/agenttuning_plugin/invariants \
  tests/agenttuning_plugin/training_data/test_adapter_precision.py \
  tests/agenttuning_plugin/evaluation/test_load_adapter.py \
  tests/agenttuning_plugin/evaluation/test_models.py \
  tests/agenttuning_plugin/training_data/test_cache.py \
  $(addprefix tests/dataset_builders/,masks/test_every_template.py masks/test_certification.py \
    masks/test_chat_turns.py encoding/test_masks_match_axolotl.py encoding/test_engines.py \
    encoding/test_tokens.py sources mixing/test_preparation.py readers/test_streaming.py \
    test_reasoning.py) \
  $(wildcard tests/evaluators/training/test_callback*.py) \
  tests/evaluators/tasks/test_evaluators.py tests/evaluators/models/test_four_bit.py \
  $(wildcard tests/evaluators/models/test_generation*.py)

# The stack of .venv is tested by `make test`; these are the two others.
test-stacks: test-axolotl test-trl  ## Run the tests of STACK_TESTS on Axolotl 0.21 and on TRL 1.16.

test-axolotl test-trl: test-%: .venv-%/.made
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile \
	  -m "not slow" $(STACK_TESTS)

.venv-axolotl/.made .venv-trl/.made: .venv-%/.made: .ci/stack pyproject.toml .venv/.torch
	UV=$(BIN)/uv PYTHON=$(PYTHON) .ci/stack $* .venv-$*
	touch $@

test-bare: .venv/.dev  ## Run the tests without any extra, and those of environments without programs.
	UV=$(BIN)/uv PYTHON=$(PYTHON) .ci/bare

check: .venv/.dev docs  ## Lint, format check, types, and the documentation.
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

docs: .venv/.dev  ## Build the documentation into site/; a broken link fails.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# None of it is needed by the targets above: tests that lack something are skipped and say why.
environments: .venv/.dev  ## Get what only some environments need, as far as this machine can.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[alfworld]' \
	  || echo "make environments: not had: the extra alfworld (it is compiled, with g++ and cmake)"
	@for program in java:default-jre-headless chromedriver:chromium-driver; do \
	  command -v $${program%%:*} > /dev/null \
	    || echo "make environments: not there: $${program%%:*} (apt-get install $${program##*:})"; \
	done
	@$(BIN)/python -m dataset_builders.sandbox.rootfs \
	  || echo "make environments: not had: the file system of the os environment's boxes"
	@$(if $(VLLM),PYTHON=$(PYTHON) .ci/vllm .venv-vllm,true) \
	  || echo "make environments: not installed: vLLM (for the tests of a real server, marked slow)"

# Pages of docs/reference that are made from the code; tests compare them with it.
pages: .venv/.dev  ## Write the generated pages of the documentation.
	$(BIN)/python -m agenttuning_plugin.config.reference > docs/reference/recipe.md
	$(BIN)/python -m agenttuning_plugin.cli.reference > docs/reference/cli.md
	$(BIN)/python -m agenttuning_plugin.cli.recipes_page

format: .venv/.dev  ## Apply formatting and safe fixes.
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:  ## Remove what the targets above made.
	rm -rf .venv .venv-axolotl .venv-trl .venv-bare .venv-vllm site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and through pip: a machine may be set up to hand pip a CPU build.
# Elsewhere this is the registry's default, the CUDA build on Linux.
.venv/.torch: Makefile
	@test -n "$(PYTHON)" || \
	  { echo "make: Python 3.11 or 3.12 is needed, found neither; name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not $(SUPPORTED) and "make: Python 3.11 or 3.12 is needed, found " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.demo pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	touch $@
