# Coracle. `make` lists the targets.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help build package test unit lint fmt deny demo demo-down lab lab-down bench upstream clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build master, minion and kctl (release), installing what is missing
	@deploy/setup.sh build
	cargo build --release --locked -p master -p minion -p kctl

package: ## packages for Debian and Ubuntu, in dist/
	@deploy/setup.sh build
	deploy/package.sh

demo: ## a cluster on this machine that heals before your eyes (DEMO_EXIT=1: torn down at the end)
	@deploy/setup.sh run
	@deploy/demo.sh up

demo-down: ## stop the demo's cluster and leave nothing behind
	@deploy/demo.sh down

lab: ## two boxes on this machine, each with a Docker Engine of its own, and a cluster on them
	@deploy/setup.sh run
	cargo build --locked -p lab
	@$(TARGET)/debug/coracle-lab up

lab-down: ## end the lab and leave nothing behind
	@if [ -d $(or $(LAB_DIR),.lab) ]; then $(TARGET)/debug/coracle-lab down; fi

test: ## install what is missing and run every check and test
	@deploy/setup.sh test
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory deny

# Tests that drive Docker and the kernel need a process each, and take turns (.config/nextest.toml): `cargo test` gives
# them neither.
unit: ## run the tests only (cargo-nextest)
	@command -v cargo-nextest >/dev/null || cargo install --quiet --locked --debug cargo-nextest
	cargo nextest run --locked --workspace

lint: ## rustfmt and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## format the sources
	cargo fmt --all

deny: ## licences, bans and sources of all dependencies (cargo-deny)
	@command -v cargo-deny >/dev/null || cargo install --quiet --locked --debug cargo-deny
	cargo deny --all-features check licenses bans sources

bench: ## measure, and print the table of docs/benchmarks.md
	@deploy/setup.sh run
	cargo build --release --locked -p master -p minion -p bench
	$(TARGET)/release/bench

upstream: ## kube-apiserver 1.20 from Debian's sources, for `make bench` to compare with (five minutes)
	@deploy/upstream.sh

clean: ## remove what was built
	cargo clean
