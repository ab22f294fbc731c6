# Everything here is thin: what is built, and how, is in build/; virtual machines
# are in vm-test/. "make" alone prints what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# --- Go -----------------------------------------------------------------------
# The host's, or Debian 13's unpacked into the build cache; either fetches the
# pinned toolchain (build/pins) as a module.

ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
GO := $(shell sh build/bootstrap.sh $(MAKECMDGOALS))
ifeq ($(GO),)
$(error what is missing is said above)
endif
export PATH := $(dir $(GO)):$(PATH)
endif
export GOTOOLCHAIN := $(shell sed -n 's/^const Go = "\(.*\)"/\1/p' build/pins/pins.go)
export GOFLAGS := -buildvcs=false
BUILD := go run ./build

# --- Variables, given as make VARIABLE=value TARGET -----------------------------

# SITE            site file: iso carries it, dev serves it
# EMULATED=1      iso: boot with arguments for machines emulated in software
# UNLOCKED=1      go on with a mirror's newer packages than the locked ones
# MACHINES        run: how many machines (1); dev: how many are simulated (none)
# CONTROL_PLANES  run: how many of them become control planes (1), the rest workers
# APPROVE=hand    run: machines wait for you in the console
# CONSOLE_PORT    run, dev: loopback port of the console (8443)
# HTTP_PORT       dev: loopback port of the machines' HTTP server (8080)
# DEV_DIR         dev: folder of its state (.run/dev); a second one needs another
# KUBERNETES_PORT run: loopback port of the API server (16443)
# KVM=off         run: emulate, even where KVM works

SITE ?=
EMULATED ?=
UNLOCKED ?=
MACHINES ?=
DEV_DIR ?= .run/dev
export SITE EMULATED UNLOCKED MACHINES DEV_DIR

# --- Using it -------------------------------------------------------------------

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^# ---/ {gsub(/^# -+ | -+$$/, ""); head = $$0} /^[a-z-]+:.*## / {if (head) printf "\n%s\n", head; head = ""; printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@printf '\nVariables, as make run MACHINES=2\n'
	@sed -n '/^# [A-Z_]\{3,\}[= ]/s/^# /  /p' Makefile

.PHONY: run
run: ## build all, start a virtual rack, and follow a machine until it is Ready
	$(BUILD) ready
	go build -o .run/ ./vm-test/cmd/rack
	exec .run/rack run

.PHONY: iso
iso: ## out/rackseed.iso, with SITE=site.yaml carrying that site file
	$(BUILD) ready iso

.PHONY: cli
cli: ## out/bin/rackseed, the command line
	CGO_ENABLED=0 go build -o out/bin/rackseed .

.PHONY: dev
dev: ## boot service and console on loopback, without virtual machines; MACHINES=3 simulates some
	$(BUILD) ready
	go build -o "$$DEV_DIR/" ./vm-test/cmd/dev
	exec "$$DEV_DIR/dev"

# --- Proving it -----------------------------------------------------------------
# In the order of what they need; the first failure ends them. Tests that need root, or
# what this machine has not, are skipped without it, and named at the end. Each run has a
# list of its own, or Go would take them from its cache and name nothing.

define remember
	rm -f out/not-run/$@.*
	mkdir -p out/not-run
	export RACKSEED_NOT_RUN="$$(mktemp "$$PWD/out/not-run/$@.XXXXXX")"
endef
define tell
	if grep -q . out/not-run/$@[.-]* 2>/dev/null; then
		echo "NOT RUN, since this needs root (as root: make $@), or what is named:"
		sort -u out/not-run/$@[.-]* | sed 's/^/  /'
	fi
endef

.PHONY: test
test: ready test-unit test-host test-browser test-vm ## everything that CI runs
	$(tell)

.PHONY: ready
ready:
	$(BUILD) ready

.PHONY: test-unit
test-unit: ## pure decisions, the state machine, property tests: need nothing
	$(remember)
	test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "these files are not gofmt'd" >&2; exit 1; }
	go vet ./...
	go test -race ./...
	$(tell)

.PHONY: test-host
test-host: ## real clients and tools in network namespaces; not as root, in a user namespace
	$(remember)
	clients="$$($(BUILD) path clients)"
	kubernetes="$$($(BUILD) path kubernetes)"
	etcd="$$($(BUILD) path etcd)"
	containerd="$$($(BUILD) path containerd)"
	registry="$$($(BUILD) path registry-clients)"
	export PATH="$$clients/bin:$$PATH" RACKSEED_KUBERNETES="$$kubernetes/kubernetes" RACKSEED_ETCD="$$etcd/etcd"
	export RACKSEED_CONTAINERD="$$containerd" RACKSEED_REGISTRY_CLIENTS="$$registry"
	go vet -tags host ./...
	# Whoever is not root is root in a user namespace, which is enough for all but
	# a few.
	inside=; [ "$$(id -u)" = 0 ] || inside="unshare --user --map-root-user --map-auto --mount"
	$$inside go test -tags host -count=1 -p 1 $$(git grep -l '^//go:build host$$' -- '*_test.go' | xargs -n 1 dirname | sort -u | sed 's|^|./|')
	$(tell)

.PHONY: test-browser
test-browser: ## the console in headless Chromium against a live service
	nodejs="$$($(BUILD) path nodejs)"
	export PATH="$$nodejs/bin:$$PATH"
	cd console/web && npm ci --no-audit --no-fund --ignore-scripts && npm run check && npm run test:browser

.PHONY: test-vm
test-vm: ## the ISO, booted in QEMU, and a machine installed from it to Ready
	$(remember)
	$(BUILD) verify
	go test -tags vm -count=1 -timeout 60m -v ./vm-test/scenario
	$(tell)

.PHONY: test-full
test-full: test ## all of that, and the slow ones: what is built twice, and compared; a newcomer's Debian 12 and 13 (as root); every firmware (out/firmware.md)
	$(remember)
	go test -tags slow -timeout 150m ./build/...
	go test -count=1 -timeout 120m ./vm-test/killed -runs=5000
	go test -count=1 -timeout 60m ./services/handoff -seeds=50000 -raft-seeds=300
	PATH="$$($(BUILD) path clients)/bin:$$PATH" go test -tags full -count=1 -timeout 180m -v ./vm-test/moving
	go test -tags full -count=1 -timeout 120m -v ./vm-test/scenario
	$(tell)

.PHONY: bench
bench: ## side by side with others' programs; lines "bench NAME ours=… peer=… ratio=…"
	go run ./vm-test/cmd/bench

# --- Keeping it -----------------------------------------------------------------

.PHONY: lock
lock: ## take the newest Debian packages into build/locks/debian.lock
	$(BUILD) lock

.PHONY: doctor
doctor: ## say what this machine lacks for building
	$(BUILD) doctor

.PHONY: clean
clean: ## remove out/ and .run/; the build cache stays (its path: make doctor)
	rm -rf out .run
