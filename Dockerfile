# The product's images, one target each:
#
#   docker build --target agent -t REGISTRY/tensormesh-agent:TAG .
#
# The base images are arguments, so that others can take their place. The dev cluster has neither at hand: it gives a base of its own,
# and hands in what was built already instead of the stage published-agent (--build-context published-agent=FOLDER).
ARG SDK_IMAGE=mcr.microsoft.com/dotnet/sdk:10.0
ARG RUNTIME_IMAGE=mcr.microsoft.com/dotnet/runtime-deps:10.0

FROM ${SDK_IMAGE} AS build-agent
# The agent is compiled ahead of time, and linked with these.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN dotnet publish src/Tensormesh.Agent -c Release -o /published

FROM scratch AS published-agent
COPY --from=build-agent /published /

FROM ${RUNTIME_IMAGE} AS agent
COPY --from=published-agent / /opt/tensormesh-agent/
# Where a driver that is mounted as a folder has its libraries. What NVIDIA's container runtime mounts is found without it.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
# The file system is read-only, and .NET would open a socket for debuggers in /tmp.
ENV DOTNET_EnableDiagnostics=0
# Root, and without any capability (manifests/agent.yaml): the kubelet's PodResources socket is root's alone.
USER 0
EXPOSE 8081
ENTRYPOINT ["/opt/tensormesh-agent/tensormesh-agent"]
