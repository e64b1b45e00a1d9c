# banger: `make run` and `make test` do everything on a Debian-like machine
# that has Go, git, gcc and make. The rest is for people who work on banger.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
BUILT    ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
BUILDPKG := banger/internal/build
LDFLAGS  := -s -w -X $(BUILDPKG).version=$(VERSION) -X $(BUILDPKG).commit=$(COMMIT) -X $(BUILDPKG).builtAt=$(BUILT)
GOBUILD  := CGO_ENABLED=0 $(GO) build -trimpath
AGENT    := internal/guestbin/banger-guest

.PHONY: run test build setup agent check unit e2e bench soak-boot soak-run test-docker test-kvm bench-kvm test-system test-skew documents fuzz reference install uninstall clean

# A checkout without git, such as an archive, is not brought in.
REPOSITORY := $(wildcard .git)

run: build
	@bin/banger run --rm $(REPOSITORY:.git=.) -- sh -c '\
	  echo "Debian $$(cat /etc/debian_version), Linux $$(uname -r), up $$(cut -d" " -f1 /proc/uptime) s"; \
	  [ ! -d .git ] || { git log -1 --format="%h %s"; \
	  echo "$$(git ls-files | wc -l) files in $$PWD, $$(git status --short | wc -l) of them changed"; }'

test: build check-static unit e2e

build: setup agent
	@mkdir -p bin
	@$(GOBUILD) -ldflags '$(LDFLAGS)' -o bin/banger ./cmd/banger

agent:
	@$(GOBUILD) -ldflags '-s -w' -o $(AGENT) ./cmd/banger-guest

setup:
	@scripts/setup

# What a change must pass; `make test` runs the same and the guests besides.
check: setup agent check-static unit

.PHONY: check-static
check-static:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "gofmt would change these files"; exit 1; }
	@$(GO) mod tidy -diff
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...

# Else each process that ends under the race detector sleeps for a second first.
unit: export GORACE := atexit_sleep_ms=0
unit:
	@$(GO) test -race -short -p 2 -timeout 60m ./...

# What -short leaves out: real QEMU, a real Debian guest, the host's package sources.
# Two at a time, packages as well as tests: a guest under emulation keeps one core busy
# and waits often.
REAL := ./internal/apt ./internal/image ./internal/kernel ./internal/rootfs ./internal/vmm/... ./internal/workspace ./test/...
e2e:
	@$(GO) test -p 2 -parallel 2 -timeout 100m $(REAL)

bench: build
	@$(GO) run ./test/bench

soak-boot: build
	@BANGER_SOAK_BOOTS=100 $(GO) test -count=1 -timeout 60m -run Soak -v ./internal/vmm/qemu

soak-run: build
	@BANGER_SOAK_RUNS=200 BANGER_SOAK_FORKS=40 $(GO) test -count=1 -timeout 60m -run 'TestSoak' -v ./test/e2e

# Debian's docker in a guest, with either init: some minutes, and the host's package sources.
test-docker: build
	@BANGER_TEST_DOCKER=1 $(GO) test -count=1 -timeout 60m -run TestDocker -v ./test/e2e

# KVM, on hosts without: in an emulated machine whose processor has it. With
# FIRECRACKER=/path that one is tried too. COUNT is how often a VM boots and is forked.
test-kvm bench-kvm: export FIRECRACKER := $(FIRECRACKER)
test-kvm bench-kvm: export COUNT := $(COUNT)
test-kvm: build
	@BANGER_TEST_NESTED=1 $(GO) test -count=1 -timeout 300m -v -run TestUnderKVM ./test/nested

# What banger costs there, beside the same VMM by hand; COUNT is how often each is done.
bench-kvm: build
	@BANGER_BENCH_NESTED=1 $(GO) test -count=1 -timeout 120m -v -run TestFigures ./test/nested

# banger as a service of a systemd that runs, in an emulated VM: a quarter of an hour,
# and the host's package sources.
test-system: build
	@BANGER_TEST_SYSTEM=1 $(GO) test -count=1 -timeout 60m -run TestServiceOfSystemd -v ./test/nested

# VMs that run while banger is updated: EARLIER is the commit to update from.
EARLIER ?= HEAD~40
test-skew: build
	@old=$$(mktemp -d) && trap 'git worktree remove --force "$$old/tree"; rm -rf "$$old"' EXIT && \
	git worktree add -q --detach "$$old/tree" $(EARLIER) && $(MAKE) -s -C "$$old/tree" build && \
	BANGER_TEST_EARLIER="$$old/tree/bin/banger" $(GO) test -count=1 -timeout 20m -v -run TestVMsOfAnEarlierBuild ./test/e2e

# Every command of the documents; `make test` follows most of them.
documents: build
	@BANGER_TEST_DOCUMENTS=1 $(GO) test -count=1 -timeout 20m -v -run Document ./test/e2e

fuzz: agent
	@$(GO) test -run XXX -fuzz FuzzServe -fuzztime 60s ./internal/guestwire
	@$(GO) test -run XXX -fuzz FuzzDial -fuzztime 60s ./internal/guestwire
	@$(GO) test -run XXX -fuzz FuzzApply -fuzztime 60s ./internal/patch
	@$(GO) test -run XXX -fuzz FuzzLayers -fuzztime 60s -fuzzminimizetime 1s ./internal/rootfs
	@echo "FuzzLayers: what was found, and the seeds, covers of the layer writer:"
	@d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && mkdir -p $$d/testdata/fuzz && \
	  cp -r "$$($(GO) env GOCACHE)/fuzz/banger/internal/rootfs/FuzzLayers" $$d/testdata/fuzz && \
	  $(GO) test -c -cover -o $$d/layers.test ./internal/rootfs && cd $$d && ./layers.test -test.run FuzzLayers | grep coverage
	@$(GO) test -run XXX -fuzz FuzzManifests -fuzztime 60s -fuzzminimizetime 1s ./internal/oci
	@$(GO) test -run XXX -fuzz FuzzPacks -fuzztime 60s -fuzzminimizetime 1s ./internal/image

# Writes docs/cli from the commands' own help.
reference: agent
	@$(GO) test ./internal/cli -run TestReference -update

# Puts what `make build` made where everybody finds it; DESTDIR is for packagers.
PREFIX ?= /usr/local
SHARE   = $(DESTDIR)$(PREFIX)/share

install:
	@test -x bin/banger || { echo "bin/banger is missing: run make build"; exit 1; }
	install -D -m 755 bin/banger $(DESTDIR)$(PREFIX)/bin/banger
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	bin/banger completion bash >$(SHARE)/bash-completion/completions/banger
	bin/banger completion zsh >$(SHARE)/zsh/site-functions/_banger
	bin/banger completion fish >$(SHARE)/fish/vendor_completions.d/banger.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/banger $(SHARE)/bash-completion/completions/banger \
	  $(SHARE)/zsh/site-functions/_banger $(SHARE)/fish/vendor_completions.d/banger.fish

clean:
	rm -rf bin $(AGENT)
