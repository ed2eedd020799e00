# make alone lists the targets.
GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# One static binary, without cgo and without paths of the machine it was built on.
BUILD   := CGO_ENABLED=0 $(GO) build -buildvcs=auto -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
# Pinned tools, run from the module cache.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 10s
# Which servers test-real follows, also Kubernetes and Consul, and how long each is down.
KINDS       ?= Etcd Redis Bind Docker LXD
DOWN        ?= 1m
empty       :=
space       := $(empty) $(empty)

.DEFAULT_GOAL := help
.PHONY: help run build test check lint unit gates race fuzz e2e test-prometheus test-real test-real-kubernetes test-real-consul deps ui ui-check ui-test ui-shots bench bench-quick soak soak-udp clean

help: ## list the targets
	@echo 'awe4lb: make TARGET'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build, then start the balancer with demo backends and say what to try
	bin/awe4lb demo --config awe4lb.toml

build: ## build bin/awe4lb
	@mkdir -p bin
	$(BUILD) -o bin/awe4lb .

test: deps lint gates race e2e ## the whole suite, under 10 minutes: installs what the tests need, then runs them; fuzz is apart

check: lint unit race fuzz ## what needs nothing but Go: lint, unit tests, the race detector, short fuzzing

lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "gofmt -w these:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags e2e,prometheus,real ./...
	$(GO) run $(STATICCHECK) -tags e2e,prometheus,real ./...
	$(GO) mod tidy -diff

unit: ## unit tests, the architecture test among them
	$(GO) test ./...

# Files whose tests leave something out, or are not there, under the race detector.
GATES = $(shell grep -rlE '^//go:build !race|raceEnabled' --include='*_test.go' .)

gates: ## the tests that the race detector leaves something out of: allocation gates above all
	$(GO) test $$(dirname $(GATES) | sort -u) -run "^($$(grep -ho '^func Test[A-Za-z0-9_]*' $(GATES) | cut -c6- | paste -sd'|'))\$$"

race: ## the unit tests under the race detector
	$(GO) test -race ./...

fuzz: ## fuzz everything that reads what strangers write, FUZZTIME (10s) each
	$(GO) run ./internal/fuzz -go '$(GO)' -time $(FUZZTIME)

e2e: ## real software through the balancer, and a CA that issues: nginx, curl, wrk, redis, PostgreSQL, ssh, iperf3, bind9, sipp, QUIC
	$(GO) test -tags e2e -count=1 -timeout 8m ./internal/e2e ./tlsbridge/acme

test-prometheus: ## metrics under promtool and a real Prometheus, and 100,000 clients; 2 minutes; unpacks Debian's prometheus below .tools
	./internal/e2e/prometheus.sh .tools/prometheus
	PROMETHEUS=$(CURDIR)/.tools/prometheus $(GO) test -tags e2e,prometheus -count=1 -timeout 5m -run 'Prom|AddNoSeries' ./internal/e2e

test-real: ## discovery beside real servers that restart and are down, while clients come: etcd, Redis, bind9, Docker, LXD; 10 minutes; KINDS=Etcd DOWN=15s for less, EXACTLY=1 for the story of each alone
	./internal/real/deps.sh $(KINDS)
	$(GO) test -tags real -count=1 -timeout 20m ./internal/real -run '^Test($(subst $(space),|,$(strip $(KINDS))))$(if $(EXACTLY),$$)' -down $(DOWN)

# These are built once, ten minutes each, and kept in AWE4LB_REAL: awe4lb-real in the user's cache when it is not set.
test-real-kubernetes: ## the same beside a real kube-apiserver and etcd; builds the first once, ten minutes
	$(MAKE) test-real KINDS=Kubernetes

test-real-consul: ## the same beside real Consul servers, one and three; builds Consul once, ten minutes
	$(MAKE) test-real KINDS=Consul

deps: ## install what e2e and bench need (Debian packages, by apt-get as root)
	./internal/e2e/deps.sh

ui: ## build the web page of admin/ui into admin/ui/dist, which is committed; needs Node 20.19 or later, as the next three
	cd admin/ui && npm ci && npm run check && npm run build

ui-check: ## prove that admin/ui/dist is what admin/ui builds to
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	tar -C admin/ui --exclude=./node_modules --exclude=./dist -cf - . | tar -C "$$tmp" -xf -; \
	(cd "$$tmp" && npm ci && npm run check && npm run build); \
	diff -r "$$tmp/dist" admin/ui/dist || { echo 'admin/ui/dist is not current: make ui, and commit it'; exit 1; }

admin/ui/node_modules: admin/ui/package-lock.json
	cd admin/ui && npm ci
	@touch $@

ui-test: build admin/ui/node_modules ## the page in a real browser, in front of a real balancer; installs Debian's chromium-headless-shell
	./internal/e2e/deps.sh chromium-headless-shell chromium-headless-shell
	cd admin/ui && AWE4LB='$(CURDIR)/bin/awe4lb' npm test

ui-shots: admin/ui/node_modules ## the first half of the same, and the pictures of docs/ui.md anew
	@$(MAKE) --no-print-directory build VERSION=dev # no name of a commit in pictures
	./internal/e2e/deps.sh chromium-headless-shell chromium-headless-shell pngquant pngquant
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	(cd admin/ui && AWE4LB='$(CURDIR)/bin/awe4lb' SHOTS="$$tmp" node --test test/page.test.mjs); \
	rm -rf docs/ui; mkdir docs/ui; \
	for f in $$(grep -o 'ui/[a-z0-9-]*[.]png' docs/ui.md | cut -c4-); do pngquant --speed 1 --strip --output "docs/ui/$$f" 64 "$$tmp/$$f"; done; \
	ls -s docs/ui

bench: ## measure TCP, UDP and TLS beside haproxy, nginx and a naive proxy; 18 minutes; writes bench/results
	$(GO) run ./bench run --install

bench-quick: ## the same, under 3 minutes
	$(GO) run ./bench run --quick --install

soak: ## ten minutes of everything at once; fails when memory or descriptors grow
	$(GO) run ./bench soak

soak-udp: ## five minutes of strangers in the UDP flow table; fails when memory, live flows or expiry suffer
	$(GO) run ./bench soak-udp

clean: ## remove what was built
	rm -rf bin
