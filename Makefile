# Every target is one line, and .ci/run calls the same ones as people do.

.DEFAULT_GOAL := help
.PHONY: help testbed build test matrix mutants chaos demo lint drift bless kills soak bench chart clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

testbed: ## build etcd, the API server, kubectl and helm from pinned sources, once; takes some minutes
	@testbed/build.sh >/dev/null

build: ## build the operator and the simulator for use: target/release
	cargo build --release --bins

test: testbed ## run all tests, and every recipe of the fault matrix on its smallest broadcast
	cargo test

matrix: testbed ## run the fault matrix whole, and 200 kills; RECIPE=A1 runs one recipe, and no kills
	cargo test --test matrix -- --whole $(RECIPE)$(if $(RECIPE),, && cargo test --test kills -- --kills 200)

mutants: testbed ## build mistakes into the protocol, and see that the fault matrix notices each of them
	cargo test --features mutants --test matrix -- --mutants

chaos: testbed ## let random faults meet for 10 minutes, and 2,000 kills; SEED=… plays those of an earlier run again
	cargo test --test matrix -- --chaos $(addprefix --seed ,$(SEED)) && cargo test --test kills -- --kills 2000 $(addprefix --seed ,$(SEED))

demo: testbed ## show it at work on this machine; KEEP=1 leaves it running until Ctrl-C
	cargo test --test demo

lint: ## check formatting, and lints as errors
	cargo fmt --check && cargo clippy --all-targets --test kills --test soak --test demo -- -D warnings

drift: ## check that definitions, chart and docs are what the code says
	cargo test --test suite drift

bless: ## write those files anew
	BLESS=1 cargo test --test suite drift

kills: testbed ## kill operators, etcd and the API server 200 times while they send
	cargo test --test kills -- --kills 200

soak: testbed ## let Broadcasts come and go for eight minutes, and see that memory is steady
	cargo test --test soak

bench: testbed ## print the figures of docs/operations.md
	cargo bench --bench delivery --bench receipts

chart: ## check the chart with helm
	testbed="$$(testbed/build.sh)" && "$$testbed/helm" lint --strict charts/broadcast-operator

clean: ## delete what cargo built; the testbed stays in its cache
	cargo clean
