# make test    everything that must hold before a change is taken
# make deps    install what the tests need, or list it where that takes root
# make build   bin/upkeep
# make bench   measurements beside other programs; see docs/benchmarks.md

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: build test deps format vet staticcheck vulnerabilities gotest bench clean

build:
	CGO_ENABLED=0 go build -trimpath -o bin/upkeep ./cmd/upkeep

test: deps format vet staticcheck vulnerabilities gotest

deps:
	@packaging/test-deps

format:
	@bad=$$(gofmt -l $$(find . -name '*.go' -not -path '*/testdata/*')); [ -z "$$bad" ] || { echo "not formatted by gofmt: $$bad"; exit 1; }
	@go mod tidy -diff

vet:
	go vet ./...

staticcheck:
	go tool staticcheck ./...

# Looks known weaknesses up on vuln.go.dev. Without that, which is no fault of the
# change at hand, it says so and goes on; a weakness that it finds is an error.
vulnerabilities:
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	if timeout 300 go tool govulncheck ./... >"$$log" 2>&1; then tail -n 3 "$$log"; \
	elif grep -qE 'fetching vulnerabilities|no such host|connection refused|i/o timeout' "$$log"; then \
		echo "NOT CHECKED for known weaknesses: vuln.go.dev cannot be reached"; \
	else cat "$$log"; exit 1; fi

# The race detector needs cgo and a C compiler. Three packages at a time: many wait
# for real servers. Two kinds of code run without it. What starts no goroutines:
# readers of what images hold, whose tests go through thousands of damaged images,
# and the simulation of member-days. And SQLite, which is C turned into Go with a heap
# of its own that the detector does not see: tests that use it take half the
# processor time. The whole system has the machine for itself, after all else. Vet
# has had its turn.
single = internal/image/(fsinfo|partition|btrfs|btrfstree|extfs|reiserfs|vfat|xfs|fit)|internal/failover/simulate
race = CGO_ENABLED=1 go test -vet=off -race -gcflags=modernc.org/sqlite/lib=-race=false -timeout 20m
gotest:
	$(race) -p 3 $(TESTFLAGS) $$(go list ./... | grep -vE '/e2e$$|/($(single))$$')
	go test -vet=off -timeout 20m $(TESTFLAGS) $$(go list ./... | grep -E '/($(single))$$')
	$(race) $(TESTFLAGS) ./e2e

# What takes minutes; the false removals of 1,000 member-days and the soak of an
# hour are run by hand.
bench: deps
	go run ./bench/probes
	go run ./bench/dns
	go run ./bench/falseremovals -days 20
	go run ./bench/failover
	go run ./bench/agents
	go run ./bench/sites
	go run ./bench/console
	go run ./bench/images

clean:
	rm -rf bin
