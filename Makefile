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

.PHONY: run test build setup agent check unit e2e bench soak-boot soak-run nested-kvm fuzz reference install uninstall clean

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

unit:
	@$(GO) test -race -short -p 2 ./...

# What -short leaves out: real QEMU, a real Debian guest, the host's package sources.
# One package after the other, since a guest under emulation wants a core to itself.
REAL := ./internal/apt ./internal/image ./internal/kernel ./internal/vmm/... ./internal/workspace ./test/...
e2e:
	@$(GO) test -p 1 -timeout 60m $(REAL)

bench: build
	@$(GO) run ./test/bench

soak-boot: build
	@BANGER_SOAK_BOOTS=100 $(GO) test -count=1 -timeout 60m -run Soak -v ./internal/vmm/qemu

soak-run: build
	@BANGER_SOAK_RUNS=200 BANGER_SOAK_FORKS=40 $(GO) test -count=1 -timeout 60m -run 'TestSoak' -v ./test/e2e

# KVM, on hosts without: in an emulated machine whose processor has it.
nested-kvm: build
	@BANGER_TEST_NESTED=1 $(GO) test -count=1 -timeout 60m -v ./test/nested

fuzz: agent
	@$(GO) test -run XXX -fuzz FuzzServe -fuzztime 60s ./internal/guestwire
	@$(GO) test -run XXX -fuzz FuzzDial -fuzztime 60s ./internal/guestwire
	@$(GO) test -run XXX -fuzz FuzzApply -fuzztime 60s ./internal/patch
	@$(GO) test -run XXX -fuzz FuzzLayers -fuzztime 60s -fuzzminimizetime 1s ./internal/rootfs
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
