# make demo | test | sim | bench | soak | lint | docs | clean. Each installs what it needs.
SHELL := /bin/bash
CARGO ?= cargo
# Labs of the tests stand apart from labs that people made: the clean-up takes these only.
test clean: export WHARFIE_LAB_DIR = /var/tmp/wharfie-test
.DEFAULT_GOAL := help

.PHONY: help demo test sim bench soak lint docs clean prerequisites

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

prerequisites:
	@scripts/prerequisites

demo: prerequisites ## bring up examples/three-tier and look at it
	@scripts/demo

lint: ## format, clippy, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check; else echo "cargo-deny is not installed: licences not checked"; fi

test: prerequisites lint ## everything: unit, property, corpus, lab
	examples/prepare
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked
	$(MAKE) sim
	scripts/compose-parity
	@scripts/clean-up

SEEDS ?= 150
sim: ## clusters in virtual time, with faults (SEEDS=10000 NODES=50 for more)
	$(CARGO) run --locked --profile sim -p wharfie-sim -- --seeds $(SEEDS) $(if $(NODES),--nodes $(NODES))

docs: ## write what is generated from the code
	WHARFIE_WRITE_DOCS=1 $(CARGO) test --locked -p wharfie-host --lib the_document_is_current
	WHARFIE_WRITE_DOCS=1 $(CARGO) test --locked -p wharfie --bin wharfie the_document_of
	WHARFIE_UPDATE=1 $(CARGO) test --locked -p wharfie --test help every_command_has_its_help
	$(CARGO) build --locked -p wharfie
	scripts/compose-parity --write

bench: ## against the reference, Swarm and the bare Engine, side by side
	@scripts/prerequisites bench
	@scripts/bench
	@scripts/bench-images
	@scripts/bench-cluster
	@scripts/bench-networks
	@scripts/bench-director
	@scripts/bench-dns

soak: prerequisites ## hours of random kills and edits: one host, a cluster; of hostile packets (SOAK="--seconds 600" for less)
	@scripts/soak $(SOAK)
	@scripts/dns-conformance --differences
	@scripts/soak-dns $(SOAK)
	@scripts/soak-cluster $(SOAK)

clean: ## remove what builds and labs left
	-@scripts/clean-up
	$(CARGO) clean
