# Everything there is to do here. `make` alone lists it.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

BIN      := $(CURDIR)/.bin
export PATH := $(BIN):$(PATH)
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/accrue-billing/accrue/internal/app.version=$(VERSION)
DATA     ?= $(CURDIR)/.data

GOLANGCI_VERSION    := v2.15.0
STRIPE_MOCK_VERSION := v0.203.0
export ACCRUE_STRIPE_MOCK := $(BIN)/stripe-mock

# Tests print what failed and end with a count of tests by kind.
GOTEST = go test -json $(1) | go run ./internal/testreport

##@ Run
.PHONY: help
help: ## List these targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## Start PostgreSQL in a container (only if you do not want the built-in one)
	docker compose up --detach --wait postgres

.PHONY: down
down: ## Stop the containers; the data stays
	docker compose down

.PHONY: run
run: database build ## Start the service on a private database, with demo data and nothing else to set up
	@bin/accrue serve --demo --log-level warn --data-dir "$(DATA)"

.PHONY: build
build: ## Build bin/accrue
	@go build -ldflags '$(LDFLAGS)' -o bin/accrue ./cmd/accrue

##@ Test
.PHONY: test
test: postgres cc $(BIN)/stripe-mock ## Everything that must hold, with the race detector
	@$(call GOTEST,-race -timeout 15m ./...)

.PHONY: test-short
test-short: postgres $(BIN)/stripe-mock ## Without the race detector and without the long stories
	@$(call GOTEST,-short ./...)

.PHONY: test-full
test-full: postgres cc $(BIN)/stripe-mock ## Adds the long crash, fuzz and simulation runs
	@ACCRUE_TEST_FULL=1 $(call GOTEST,-race -timeout 120m -count=1 ./...)

.PHONY: race
race: test ## The same as test, which always has the race detector on

.PHONY: e2e
e2e: postgres cc $(BIN)/stripe-mock ## The stories over real HTTP only
	@$(call GOTEST,-race -count=1 ./internal/e2e/...)

##@ Keep in order
.PHONY: lint
lint: $(BIN)/golangci-lint ## Vet and lint
	@go vet ./...
	@golangci-lint run

.PHONY: lint-containers
lint-containers: ## Lint the Dockerfile and the compose file (needs Node)
	@npx --yes dockerfilelint@1.8.0 Dockerfile
	@npx --yes dclint@3.1.0 --max-warnings 0 compose.yaml

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## Format the code
	@golangci-lint fmt

.PHONY: generate
generate: ## Write the generated files (the OpenAPI documents)
	@go generate ./...

.PHONY: generate-check
generate-check: ## Fail if generating changes a file
	@state() { git diff; git ls-files --others --exclude-standard; }; \
	before=$$(state); $(MAKE) generate; \
	if [ "$$(state)" != "$$before" ]; then git status --short; echo "Generated files are out of date: commit what make generate wrote." >&2; exit 1; fi

.PHONY: check
check: fmt lint generate-check test ## What has to pass before a change is sent

.PHONY: docs
docs: generate ## Write the OpenAPI documents and say where to read
	@echo "docs/openapi.json, docs/openapi.yaml; while the service runs: http://localhost:8080/swagger/"

##@ Measure
.PHONY: bench
bench: export GOGC = 400
bench: postgres ## All benchmarks: rounds of each, the median beside its limit (about 12 minutes)
	@# -p 1: nothing is compiled beside a benchmark
	@{ go test -p 1 -run '^$$' -bench . -benchmem -count 3 $$(go list ./... | grep -v /internal/e2e); \
	  go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./internal/e2e; } 2>&1 | go run ./internal/benchreport

.PHONY: bench-ingest
bench-ingest: postgres ## Taking in and reading usage, against what the machine can do
	@go test -run '^$$' -bench 'Ingest/$(WORK)' -benchtime 1x -timeout 15m ./internal/e2e

.PHONY: bench-floor
bench-floor: postgres ## How fast a bare handler over the same rows, or with the same answer, is at most
	@go test -run '^$$' -bench Floor -benchtime 1x -timeout 15m ./internal/e2e

.PHONY: bench-stored
bench-stored: postgres ## Reading with 10 million events stored, compared with 100,000, and the memory over them
	@go test -run '^$$' -bench Stored -benchtime 1x -timeout 30m ./internal/e2e

.PHONY: bench-import
bench-import: postgres ## Importing a million generated rows: throughput, memory, counts
	@go test -run '^$$' -bench Import -benchtime 1x -timeout 15m ./internal/e2e

.PHONY: bench-money
bench-money: postgres ## Top-ups against the sandbox provider and credits, compared with what the machine can do
	@go test -run '^$$' -bench 'Money' -benchtime 1x -timeout 15m ./internal/e2e

.PHONY: profile
profile: export GOGC = 400
profile: postgres ## Profile the service under load, for the compiler to go by (cmd/accrue/default.pgo; about 4 minutes)
	@export PROFILES=$$(mktemp -d); trap 'rm -r "$$PROFILES"' EXIT; \
	go test -run '^$$' -bench 'Ingest|Money' -benchtime 1x -timeout 30m ./internal/e2e; \
	go tool pprof -proto "$$PROFILES"/* >cmd/accrue/default.pgo

##@ Database
.PHONY: migrate-new
migrate-new: ## Begin a migration: make migrate-new NAME=add_something
	@.make/migration "$(NAME)"

.PHONY: migrate-up
migrate-up: database build ## Apply what is missing to DATABASE_URL or the private database
	@bin/accrue migrate up --data-dir "$(DATA)"

# What the targets above need; installed only if missing: a database for the service, and one for the tests.
.PHONY: database
database:
	@.make/postgres "$${ACCRUE_DATABASE_URL:-$${DATABASE_URL:-}}"

.PHONY: postgres
postgres:
	@.make/postgres "$${ACCRUE_TEST_DATABASE_URL:-}"

.PHONY: cc
cc:
	@.make/cc

$(BIN)/golangci-lint:
	@echo "building golangci-lint $(GOLANGCI_VERSION), once"
	@GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(BIN)/stripe-mock:
	@echo "building stripe-mock $(STRIPE_MOCK_VERSION), once"
	@GOBIN=$(BIN) go install github.com/stripe/stripe-mock@$(STRIPE_MOCK_VERSION)
