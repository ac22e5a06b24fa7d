# Everything that one does with the tree. `make help` lists it.
SHELL := /bin/bash
# rustup's folder is not in the PATH of a shell that was started before the installation
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/sbin:/sbin

.PHONY: help deps build demo test lab fuzz bench soak clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 14

deps: ## install what is missing to build, show and test (Debian 12, as root)
	@interop/deps

build: ## build the daemon as it is shipped (release profile)
	@interop/deps build
	cargo build --release --locked

demo: ## a cluster of three nodes on this machine, shown in a minute (as root)
	@interop/demo

test: ## format, lints, unit and property tests, fixtures, a short fuzz run, and the labs (as root)
	@.ci/test

lab: ## run labs by name: make lab S="mesh-with-bird hold-expiry/frr"; without S, list them
	@interop/deps build test
	cargo build --locked --bin calico-bgpd
	@interop/run $(or $(S),--list)

fuzz: ## fuzz each target for SECONDS=300
	@interop/deps build test
	@bgp-proto/fuzz/run $(or $(SECONDS),300)

bench: ## measure: the code, the table with 1,000 and 5,000 peers, and the daemon beside others (as root, an hour)
	@interop/deps build test
	cargo bench --workspace
	@benches/time-to-established
	@benches/idle
	@benches/macro

soak: ## the labs that take minutes (as root)
	@interop/deps build test
	cargo build --locked --release --bin calico-bgpd
	@interop/run --soak

clean: ## remove what was built and logged here
	cargo clean
	rm -rf lab-out
