# The menu. `make` alone lists it; each command installs what it needs from Debian, saying so.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Options for `make run`, `make doctor`, `make lab` and `make bench-replay`: make run ARGS="--listen 0.0.0.0:8443 --domain
# example.com", make lab ARGS="--datapath epoll --rounds 5", make bench-replay ARGS="--relays 1000 --client ee".
ARGS ?=
# What `make fuzz` tries, and for how long.
TARGET ?= all
SECONDS ?= 60
# Which scripts `make test-twin` performs: those with this in their names.
TWIN ?=
# Which tests `make test-vm` runs: those with one of these words in their names.
VM ?=
# Seed for `make sim` and `make tcp-sim`; without one they run as many as CI does.
SEED ?=
# How many seeds `make tcp-sim` runs from SEED on; TRACE=1 prints their packets.
COUNT ?=
TRACE ?=
# Bytes that `make test-netns` sends through 1 % loss: for a gibibyte LOSS_BYTES=1073741824, a minute or two.
LOSS_BYTES ?= 134217728

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: need-build need-test need-lab
need-build:
	@.ci/need cc=build-essential clang=clang file:/usr/include/bpf/bpf_helpers.h=libbpf-dev \
		file:/usr/include/libelf.h=libelf-dev file:/usr/include/zlib.h=zlib1g-dev m4=m4 pkg-config=pkg-config
	@command -v cargo >/dev/null || { echo "no cargo here: install Rust (stable) from https://rustup.rs and come back" >&2; exit 1; }
need-test: need-build
	@.ci/need python3=python3 python:ensurepip=python3-venv \
		nginx=nginx file:/usr/lib/nginx/modules/ngx_stream_module.so=libnginx-mod-stream

need-lab: need-build
	@.ci/need ip=iproute2 ethtool=ethtool setpriv=util-linux

.PHONY: run
run: need-build ## build, and start the proxy on this host; prints the link for clients
	cargo build --release --locked -p mtproxy-bin
	target/release/mtproxy run $(ARGS)

.PHONY: doctor
doctor: need-build ## what keeps the proxy from working well on this host, the worst first: ARGS as for make run
	cargo build --release --locked -p mtproxy-bin
	target/release/mtproxy doctor $(ARGS)

.PHONY: test
test: check test-root test-e2e test-twin test-netns interop bench-quick lab-quick test-vm ## everything that CI runs

# Tests are chosen out of the whole workspace: for another set of packages cargo would choose the dependencies'
# features anew, and build most of them once more.
CARGO_TEST = cargo test --workspace --locked
CHECKED = admission allocations commands compat conduct credit doctor endings header idle_memory life middle_proxies \
	middle_proxy received_bytes strangers wave_a
AS_ROOT = decisions docs kernel live nic routes

.PHONY: check
check: need-build ## the quick part: format, lints, unit tests; no root, no network
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	cargo check --locked -p mtproxy-ffi
	$(CARGO_TEST) --lib --bins $(CHECKED:%=--test %)
	$(CARGO_TEST) --doc

.PHONY: test-e2e
test-e2e: need-lab ## the proxy as a process between real sockets, and the simulator
	$(CARGO_TEST) --test e2e --test idle_cost --test sim --test tcp_sim --test interop

# Tests that take root run only where this is root: cargo under sudo would leave a target directory that is not yours.
IS_ROOT = $(filter 0,$(shell id -u))

.PHONY: test-root
test-root: need-lab ## the kernel's side, one package at a time: steering program, AF_XDP sockets, routes; as root
ifeq ($(IS_ROOT),)
	@echo "skipped: test-root loads programs and makes network namespaces, which takes root: run it as root" >&2
else
	$(CARGO_TEST) $(AS_ROOT:%=--test %)
endif

.PHONY: test-twin
test-twin: need-lab ## one set of scripts through every datapath; as root, or half of it skips: TWIN=words picks scripts
	TWIN="$(TWIN)" $(CARGO_TEST) --test twin

.PHONY: test-netns
test-netns: need-lab ## the proxy on hosts of its own, over epoll and AF_XDP: relay, loss, hangs, kills; as root
ifeq ($(IS_ROOT),)
	@echo "skipped: test-netns makes network namespaces, which takes root: run it as root" >&2
else
	MTPROXY_LOSS_BYTES=$(LOSS_BYTES) $(CARGO_TEST) --test netns
endif

# QEMU, and what a guest's root is made of; QEMU itself and a kernel are tests/vm/setup's business.
.PHONY: test-vm
test-vm: need-lab ## the proxy on emulated cards with drivers of their own, zero-copy included: VM=words picks tests
	@.ci/need /bin/busybox=busybox-static cpio=cpio dash=dash xz=xz-utils zstd=zstd
	tests/vm/setup target/vm
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	MTPROXY_VM=$(CURDIR)/target/vm MTPROXY_BIN=$(CURDIR)/target/release/mtproxy \
		$(CARGO_TEST) --test vm -- --ignored --nocapture --test-threads=1 $(VM)

.PHONY: sim
sim: need-build ## the engine under virtual time: make sim SEED=n repeats one run
	SIM_SEED=$(SEED) $(CARGO_TEST) --test sim -- --nocapture every_seed

.PHONY: tcp-sim
tcp-sim: need-build ## TCP-lite over a bad network: make tcp-sim SEED=n TRACE=1, or COUNT=1000000
	TCP_SIM_SEED=$(SEED) TCP_SIM_COUNT=$(COUNT) TCP_SIM_TRACE=$(TRACE) TCP_SIM_THREADS=$$(nproc) \
		$(CARGO_TEST) --test tcp_sim -- --nocapture every_seed

.PHONY: fuzz
fuzz: need-build ## coverage-guided fuzzing: make fuzz TARGET=engine SECONDS=600
	tests/fuzz/run $(TARGET) $(SECONDS)

.PHONY: interop
interop: need-test need-lab ## a real client library (Telethon) through the proxy; as root over AF_XDP, too
	python3 -m venv --clear target/interop
	target/interop/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/interop/requirements.txt
	MTPROXY_INTEROP_PYTHON=$(CURDIR)/target/interop/bin/python $(CARGO_TEST) --test interop -- --ignored --nocapture

# What was built together with the measuring programs: they would build it once more, alone.
RELEASED = MTPROXY_BIN=target/release/mtproxy

# Namespaces take root; what is built still belongs to you.
LAB = $(if $(IS_ROOT),,sudo) $(RELEASED) target/release/mtproxy-lab

.PHONY: lab
lab: need-lab ## watch epoll and AF_XDP side by side on hosts of their own: live table, CPU per operation
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	$(LAB) $(ARGS)

.PHONY: lab-quick
lab-quick: need-lab ## the same in half a minute: shows that it works, not how fast
ifeq ($(IS_ROOT),)
	@echo "skipped: lab-quick makes network namespaces, which takes root: run it as root, or make lab, which asks for it" >&2
else
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	$(LAB) --quick $(ARGS)
endif

.PHONY: bench
bench: need-test ## CPU, latency and memory beside nginx and no relay: table, JSON and plots
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	$(RELEASED) target/release/mtproxy-load

.PHONY: bench-quick
bench-quick: need-test ## the same in half a minute: shows that it works, not how fast
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	$(RELEASED) target/release/mtproxy-load --quick --results target/bench-quick
	$(RELEASED) target/release/mtproxy-middle --quick --results target/bench-quick

.PHONY: bench-middle
bench-middle: need-build ## what it costs to go through middle proxies rather than direct: CPU and memory
	cargo build --release --locked -p mtproxy-bin -p mtproxy-bench
	$(RELEASED) target/release/mtproxy-middle

.PHONY: bench-micro
bench-micro: need-build ## cost of single functions (criterion)
	cargo bench --locked -p mtproxy-bench

.PHONY: bench-replay
bench-replay: need-build ## cost of a relayed packet stage by stage, and of an idle relay, in memory: up to a million relays
	cargo build --release --locked -p mtproxy-bench --bin mtproxy-replay
	target/release/mtproxy-replay $(ARGS)

.PHONY: bench-instructions
bench-instructions: need-build ## the same in instructions, which are the same on every run (callgrind)
	@.ci/need valgrind=valgrind
	cargo build --release --locked -p mtproxy-bench --bin mtproxy-replay
	target/release/mtproxy-replay --instructions $(ARGS)

.PHONY: deny
deny: need-build ## licences, sources and duplicate versions of the dependencies
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check licenses bans sources

.PHONY: clean
clean: ## remove what was built
	cargo clean
