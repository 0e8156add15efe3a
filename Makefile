# Two commands do everything: `make demo` and `make test`. See README.md.
CONFIGURATION ?= Debug
configuration := $(shell echo $(CONFIGURATION) | tr A-Z a-z)
DEV := dotnet artifacts/bin/Tensormesh.Dev/$(configuration)/tensormesh-dev.dll
export DOTNET_CLI_TELEMETRY_OPTOUT := 1
export DOTNET_NOLOGO := 1

.PHONY: demo run screenshots test unit bench soak publish-agent reproducible gpu-check lint crds metrics build clean sweep

demo: build ## The story of the product on a dev cluster; ends by itself.
	@$(DEV) demo

run: build ## A dev cluster with the product on it, in the foreground; writes .dev/env.
	@$(DEV) run

screenshots: build ## Pictures of every page of the console, light, dark and narrow, in docs/images.
	@$(DEV) screenshots

test: build ## Every test, on a real control plane and a real Postgres.
	@$(DEV) images
	@CONFIGURATION=$(CONFIGURATION) bash tests/run.sh all

unit: build ## Only the tests without I/O: seconds.
	@CONFIGURATION=$(CONFIGURATION) bash tests/run.sh unit

bench: ## Every benchmark, or one group: make bench BENCH=ledger. Optimized code, whatever CONFIGURATION says.
	@dotnet build tests/Benchmarks -c Release -v quiet --nologo -clp:NoSummary >&2
	@dotnet artifacts/bin/Benchmarks/release/Benchmarks.dll $(BENCH)

soak: SOAK_MINUTES ?= 20
soak: ## Mixed load with a fault each minute, and everything reckoned up at the end: make soak SOAK_MINUTES=120.
	@dotnet build tests/Soak -c $(CONFIGURATION) -v quiet --nologo -clp:NoSummary >&2
	@dotnet artifacts/bin/Soak/$(configuration)/Soak.dll $(SOAK_MINUTES)

publish-agent: OUT ?= artifacts/agent
publish-agent: ## The agent, compiled ahead of time with its worker, in OUT (artifacts/agent). Needs gcc and libc6-dev.
	@dotnet publish src/Tensormesh.Agent -c Release -p:Sbom=true -o $(OUT) -v quiet --nologo -clp:NoSummary

reproducible: ## Publishes what goes into the images from two folders, and names each file that differs. Minutes.
	@bash tests/reproducible.sh

gpu-check: ## Probes this machine's own GPUs and times each call. Where there is no driver, gpu-check ends with 3, and make says so.
	@dotnet build tests/Tensormesh.GpuCheck -c Release -v quiet --nologo -clp:NoSummary >&2
	@dotnet artifacts/bin/Tensormesh.GpuCheck/release/gpu-check.dll

lint: build ## Format and analyzers.
	@dotnet format Tensormesh.Operator.sln --verify-no-changes --no-restore --severity warn

crds: ## Writes crds/*.yaml from the C# types.
	@dotnet run --project tests/Tensormesh.CrdGenerator -- crds

metrics: ## Writes docs/metrics.md from the instruments, and the PrometheusRule from the alerts.
	@dotnet run --project tests/Tensormesh.MetricsGenerator -- .

build:
	@dotnet build Tensormesh.Operator.sln -c $(CONFIGURATION) -v quiet --nologo -clp:NoSummary

sweep: build ## Removes what a killed run left behind.
	@$(DEV) sweep

clean:
	@rm -rf artifacts .dev
