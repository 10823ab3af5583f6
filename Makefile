# Every recipe runs in bash and stops at the first failure. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup ready build node run test check-arm check-unsafe fuzz colcon ablation students student-open bench bench-engines bench-training bench-node bench-transport bench-cameras bench-instructions soak test-cluster test-gpu test-object-store pack-training bench-gpu fmt lint audit publish-check clean

# All that is shipped: the node with ROS 2; the GPU's engine and the decoder of videos, which load CUDA and ffmpeg's
# libavcodec at run time where they are installed.
SHIPPED := ros,cuda,video

# ROS, Python and onnxruntime as launch/setup prepared them. r2r is generated from these variables, so every
# cargo call that builds it must see the same ones, or it is compiled anew.
IN_ENV := . launch/setup/env.sh &&
# On a CI machine what was committed is what is built.
LOCKED := $(if $(filter true,$(CI)),--locked)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make this machine ready; as root, installs missing Debian packages
	@launch/setup/setup.sh --system

# The same without touching the system, unless CI=true.
ready:
	@launch/setup/setup.sh

build: ready ## Build the node and the tools (release)
	$(IN_ENV) cargo build $(LOCKED) --release --features $(SHIPPED)

run: node ## Start the demonstration: make run ARGS="--help" tells what it can do
	$(IN_ENV) exec python3 launch/demo.py $(ARGS)

# What the demonstration starts; the other programs have dependencies of their own that take longer to build.
node: ready
	$(IN_ENV) cargo build $(LOCKED) --release --no-default-features --features $(SHIPPED) --bin perception_node

# Tests that find something missing here say so in this file. Examples are not linked: `make lint` has them checked.
# candle's threads spin while they wait for one another, and there are as many tests at once as cores.
SKIPS := $(CURDIR)/target/skipped-tests.txt
test: ready ## Build and run all tests, with a real ROS 2 in the loop, and tell which did not run, and why
	mkdir -p target && rm -f $(SKIPS)
	$(IN_ENV) export PEREGRINE_SKIPS=$(SKIPS) CANDLE_NUM_THREADS=1 failed=0; for which in --tests --doc; do \
	    cargo test $(LOCKED) --workspace --features $(SHIPPED) $$which || failed=$$?; \
	  done; \
	  if [[ -s $(SKIPS) ]]; then echo 'These tests did not run:'; sort -u $(SKIPS) | sed 's/^/  /'; fi; \
	  exit $$failed

# Whatever C there is in the dependencies is compiled for the board too (Debian: g++-aarch64-linux-gnu, qemu-user).
ARM := aarch64-unknown-linux-gnu
FOR_ARM := CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++ \
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu' cargo
check-arm: ## Build the tools for aarch64 (Jetson) and, where qemu-user is installed, run the tests of engine, vision and pipeline, count the instructions of a frame, and run the bench
	command -v aarch64-linux-gnu-g++ >/dev/null || { echo 'the compiler is missing: apt-get install g++-aarch64-linux-gnu'; exit 1; }
	rustup target add $(ARM)
	$(FOR_ARM) build $(LOCKED) --release --target $(ARM) --bin latency_bench --bin distill
	command -v qemu-aarch64 >/dev/null || { echo 'qemu-user is not installed: built, but not run'; exit 0; }; \
	$(FOR_ARM) test $(LOCKED) --target $(ARM) -p peregrine-engine -p peregrine-vision -p peregrine-pipeline; \
	$(FOR_ARM) build $(LOCKED) --release --target $(ARM) -p peregrine-student --example count_frames; \
	bench/arm/count.sh $${CARGO_TARGET_DIR:-target}/$(ARM)/release/examples/count_frames; \
	$(FOR_ARM) run $(LOCKED) --release --target $(ARM) --bin latency_bench -- --closed-loop --frames 20 --threads 1 --input-size 64x64 --track

# The engine's kernels on random networks: under Miri the portable ones, a few; under AddressSanitizer those of this processor.
NIGHTLY := RUSTUP_TOOLCHAIN=nightly cargo
HOST := x86_64-unknown-linux-gnu
check-unsafe: ready ## Run the CPU engine under Miri and AddressSanitizer, and the decoder of videos under the latter (with a nightly toolchain)
	$(NIGHTLY) miri --version || { echo 'Miri is missing: rustup toolchain install nightly --profile minimal --component miri,rust-src'; exit 1; }
	$(IN_ENV) MIRIFLAGS=-Zmiri-disable-isolation PEREGRINE_CASES=$(or $(CASES),3) $(NIGHTLY) miri test $(LOCKED) -p peregrine-engine --test engine isas::
	$(IN_ENV) RUSTFLAGS=-Zsanitizer=address $(NIGHTLY) test $(LOCKED) --target $(HOST) --target-dir target/asan \
	  -p peregrine-engine -p peregrine-vision --test engine --test vision
	$(IN_ENV) RUSTFLAGS=-Zsanitizer=address $(NIGHTLY) test $(LOCKED) --target $(HOST) --target-dir target/asan \
	  -p peregrine-video --features libavcodec --test video

fuzz: ready ## Fuzz every reader for TIME=600 seconds in all (nothing but a C++ compiler is needed): ARGS=labels fuzzes one
	$(IN_ENV) tests/fuzz/fuzz.sh $(or $(TIME),600) $(ARGS)

colcon: build ## Build with colcon, as in a ROS workspace, and start what it installed (ARGS=--with-messages: them too)
	$(IN_ENV) packaging/colcon.sh $(ARGS)

# Machines whose processors differ in kind each have a file: RESULTS=bench/RESULTS-avx2.md.
RESULTS ?= bench/RESULTS.md
bench: bench-engines bench-training bench-transport bench-cameras bench-node ## All that is measured beside peers, into bench/RESULTS.md; half an hour after building

bench-engines: ready ## Measure the CPU engine beside its peers, into bench/RESULTS.md; 8 minutes after building
	$(IN_ENV) bench/peers/setup.sh target/peers
	$(IN_ENV) cargo bench $(LOCKED) --bench engines -- --python target/peers/bin/python --tract target/peers/tract/release/tract-peer --results $(RESULTS) $(ARGS)

bench-training: ready ## A training step beside PyTorch's, into bench/RESULTS.md; 4 minutes after building
	$(IN_ENV) bench/peers/setup.sh target/peers
	$(IN_ENV) cargo bench $(LOCKED) --bench engines -- --training 8 --python target/peers/bin/python --results $(RESULTS) --seconds 20 $(ARGS)

# The peer runs in the Python that has rclpy, numpy and onnxruntime. Both sizes of image that are asked for most: 12
# minutes for 5,000 frames, 3 for 1,000.
bench-node: build ## The node over DDS beside one in rclpy, onnxruntime and numpy, into bench/RESULTS.md: FRAMES=5000
	$(IN_ENV) for size in 640x480 1920x1080; do \
	  target/release/latency_bench --layer node --peer "$$PEREGRINE_PYTHON" --profile node_30hz --image-size $$size \
	    --frames $(or $(FRAMES),5000) --threads 1 --json target/bench-node-$$size.json --html target/bench-node-$$size.html \
	    --results $(RESULTS) $(ARGS) || [ $$? -lt 3 ]; \
	done

bench-transport: ready ## What the middleware alone takes, into bench/RESULTS.md: FRAMES=1000
	$(IN_ENV) cargo bench $(LOCKED) -p peregrine-ros --bench transport -- $(or $(FRAMES),1000) --results $(RESULTS)

bench-cameras: ready ## 1, 2, 4 and 8 cameras on one pipeline, into bench/RESULTS.md: SECONDS=10
	$(IN_ENV) cargo bench $(LOCKED) --bench cameras -- $(or $(SECONDS),10) --results $(RESULTS)

bench-instructions: ready ## Instructions of each stage, beside the last figures (ARGS=--save keeps them)
	$(IN_ENV) cargo bench $(LOCKED) --bench instructions -- $(ARGS)

soak: build ## The node at 30 Hz among the faults of cameras, networks and clocks: TIME=3600 (seconds)
	$(IN_ENV) PEREGRINE_SOAK_SECONDS=$(or $(TIME),3600) cargo test $(LOCKED) --release --features $(SHIPPED) --test node \
	  among_faults -- --nocapture

# The job files of docs/cluster.md, run for real: by mpirun, and by a Slurm in a temporary folder.
test-cluster: ready ## Train by several processes under mpirun and Slurm (Debian: openmpi-bin, libopenmpi-dev, slurm-wlm, munge)
	$(IN_ENV) cargo build $(LOCKED) --no-default-features --features distill,mpi --bin distill
	$(IN_ENV) tests/cluster/cluster.sh target/debug/distill

test-object-store: ready ## Soft targets in a real object store, a server of SeaweedFS from PyPI: workers killed and twice, a full store
	$(IN_ENV) cargo build $(LOCKED) --no-default-features --features distill,object-store --bin distill
	$(IN_ENV) tests/object_store/object_store.sh "$${CARGO_TARGET_DIR:-target}/debug/distill"

test-gpu: ready ## Test the CUDA engine on this machine's GPU (says so where there is none)
	$(IN_ENV) bench/gpu.sh test

pack-training: ready ## Pack a training for a machine that has a GPU and no toolchain: CONFIG=train.toml, into target/gpu/train
	$(IN_ENV) bench/gpu.sh train-pack $(CONFIG)

bench-gpu: ready ## Measure the CUDA engine on this machine's GPU, beside PyTorch
	$(IN_ENV) bench/gpu.sh bench

ablation: ## What distillation is worth, from ../shared (hours; goes on where it stopped), into target/ablation
	$(IN_ENV) cargo build $(LOCKED) --release --bin distill
	$(IN_ENV) models/ablation.sh $(ARGS)

students: ready ## The shipped students from nothing (a night; goes on where it stopped): DATA=/path/to/data, into target/students
	$(IN_ENV) cargo build $(LOCKED) --release --bin distill
	$(IN_ENV) models/students/students.sh $(DATA)

student-open: ready ## peregrine-s-open, from nothing but what may be shipped (an hour; goes on where it stopped): DATA=/path/to/data, into target/open
	$(IN_ENV) cargo build $(LOCKED) --release --bin distill
	$(IN_ENV) models/students/open.sh $(DATA)

fmt: ## Format the Rust code
	cargo fmt --all

lint: ready ## Check format, clippy, docs, scripts and (where cargo-deny is installed) licences
	cargo fmt --all --check
	$(IN_ENV) cargo clippy $(LOCKED) --all-targets -- -D warnings
	$(IN_ENV) cargo clippy $(LOCKED) --no-default-features --features $(SHIPPED) --bin perception_node -- -D warnings
	$(IN_ENV) cargo clippy $(LOCKED) --workspace --all-targets --features $(SHIPPED),object-store -- -D warnings
	$(IN_ENV) RUSTDOCFLAGS=-Dwarnings cargo doc $(LOCKED) --workspace --features $(SHIPPED),object-store --no-deps
	if command -v shellcheck >/dev/null; then shellcheck -x bench/arm/count.sh launch/setup/*.sh packaging/*.sh tests/cluster/*.sh tests/object_store/*.sh tests/peer/*.sh models/students/*.sh bench/gpu.sh bench/peers/setup.sh models/ablation.sh tests/fuzz/fuzz.sh .ci/run; else echo 'shellcheck is not installed: skipped'; fi
	if cargo deny --version >/dev/null 2>&1; then cargo deny --workspace --all-features check licenses bans sources; else echo 'cargo-deny is not installed: skipped'; fi

# The database is a git repository on GitHub, and changes without this repository changing: apart from lint and test.
ADVISORIES := https://github.com/RustSec/advisory-db
audit: ## Check all dependencies against RustSec's advisories (where cargo-deny is installed and its database in reach)
	if ! cargo deny --version >/dev/null 2>&1; then echo 'cargo-deny is not installed (cargo install --locked cargo-deny): skipped'; \
	elif ! timeout 60 git ls-remote --quiet $(ADVISORIES) HEAD >/dev/null 2>&1; then echo '$(ADVISORIES) is out of reach: skipped'; \
	else cargo deny --workspace --all-features check advisories; fi

publish-check: ## Package the crates that strangers use and build them from the packages; uploads nothing
	cargo publish $(LOCKED) --dry-run -p peregrine-core -p peregrine-engine

clean: ## Remove what was built here (the prepared environment stays in its cache)
	cargo clean
	find launch tests -name __pycache__ -type d -prune -exec rm -rf {} +
