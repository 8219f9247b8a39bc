# The menu. `make` alone lists it; each command installs what it needs from Debian, saying so.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Options for `make run`, for instance: make run ARGS="--listen 0.0.0.0:8443 --domain example.com"
ARGS ?=
# What `make fuzz` tries, and for how long.
TARGET ?= all
SECONDS ?= 60
# Seed for `make sim`; without one it runs as many as CI does.
SEED ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: need-build need-test
need-build:
	@.ci/need cc=build-essential
	@command -v cargo >/dev/null || { echo "no cargo here: install Rust (stable) from https://rustup.rs and come back" >&2; exit 1; }
need-test: need-build
	@.ci/need python3=python3 python:ensurepip=python3-venv \
		nginx=nginx file:/usr/lib/nginx/modules/ngx_stream_module.so=libnginx-mod-stream

.PHONY: run
run: need-build ## build, and start the proxy on this host; prints the link for clients
	cargo build --release --locked -p mtproxy-bin
	target/release/mtproxy run $(ARGS)

.PHONY: test
test: check test-e2e interop bench-quick ## everything that CI runs

.PHONY: check
check: need-build ## the quick part: format, lints, unit tests; no root, no network
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	cargo test --locked -p mtproxy-core -p mtproxy-bin -p mtproxy-fuzz

.PHONY: test-e2e
test-e2e: need-build ## the proxy as a process between real sockets, and the simulator
	cargo build --locked -p mtproxy-bin
	cargo test --locked -p mtproxy-tests

.PHONY: sim
sim: need-build ## the engine under virtual time: make sim SEED=n repeats one run
	SIM_SEED=$(SEED) cargo test --locked -p mtproxy-tests --test sim -- --nocapture every_seed

.PHONY: fuzz
fuzz: need-build ## coverage-guided fuzzing: make fuzz TARGET=engine SECONDS=600
	tests/fuzz/run $(TARGET) $(SECONDS)

.PHONY: interop
interop: need-test ## a real client library (Telethon) through the proxy
	python3 -m venv --clear target/interop
	target/interop/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/interop/requirements.txt
	cargo build --locked -p mtproxy-bin
	MTPROXY_INTEROP_PYTHON=$(CURDIR)/target/interop/bin/python \
		cargo test --locked -p mtproxy-tests --test interop -- --ignored --nocapture

.PHONY: bench
bench: need-test ## CPU, latency and memory beside nginx and no relay: table, JSON and plots
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	target/release/mtproxy-load

.PHONY: bench-quick
bench-quick: need-test ## the same in half a minute: shows that it works, not how fast
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	target/release/mtproxy-load --quick --results target/bench-quick

.PHONY: bench-micro
bench-micro: need-build ## cost of single functions (criterion)
	cargo bench --locked -p mtproxy-bench

.PHONY: deny
deny: need-build ## licences, sources and duplicate versions of the dependencies
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check licenses bans sources

.PHONY: clean
clean: ## remove what was built
	cargo clean
