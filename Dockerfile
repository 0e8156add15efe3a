# The product's images, one target each, and the mock GPUs of a kind cluster:
#
#   docker build --target operator  -t REGISTRY/tensormesh-operator:TAG .
#   docker build --target web       -t REGISTRY/tensormesh-web:TAG .
#   docker build --target agent     -t REGISTRY/tensormesh-agent:TAG .
#   docker build --target mock-gpus -t tensormesh.ai/mock-gpus:dev .
#
# The base images are arguments, so that others can take their place. The dev cluster has none of these at hand: it gives bases of its own, and
# hands in what was published already instead of the stages published-* (--build-context published-operator=FOLDER).
# --source-date-epoch (buildah: --timestamp) keeps the times of a build out of its image.
ARG SDK_IMAGE=mcr.microsoft.com/dotnet/sdk:10.0
ARG ASPNET_IMAGE=mcr.microsoft.com/dotnet/aspnet:10.0
ARG RUNTIME_IMAGE=mcr.microsoft.com/dotnet/runtime-deps:10.0

FROM ${SDK_IMAGE} AS build-operator
WORKDIR /source
COPY . .
RUN dotnet publish src/Tensormesh.Operator -c Release --no-self-contained -p:Sbom=true -o /published

FROM ${SDK_IMAGE} AS build-web
WORKDIR /source
COPY . .
RUN dotnet publish src/Tensormesh.Web -c Release --no-self-contained -p:Sbom=true -o /published

FROM ${SDK_IMAGE} AS build-agent
# The agent is compiled ahead of time, and linked with these.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN dotnet publish src/Tensormesh.Agent -c Release -p:Sbom=true -o /published

FROM ${SDK_IMAGE} AS build-mock-gpus
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN dotnet publish tests/Tensormesh.MockDevicePlugin -c Release --no-self-contained -o /published \
 && make -C tests/mock-gpu OUT=/published/driver && cp tests/mock-gpu/install-driver /published/

FROM scratch AS published-operator
COPY --from=build-operator /published /

FROM scratch AS published-web
COPY --from=build-web /published /

FROM scratch AS published-agent
COPY --from=build-agent /published /

FROM scratch AS published-mock-gpus
COPY --from=build-mock-gpus /published /

FROM ${ASPNET_IMAGE} AS operator
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="tensormesh-operator" \
      org.opencontainers.image.description="Runs GPU deployments for accounts that pay in advance, and charges them" \
      org.opencontainers.image.vendor="Tensormesh" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=published-operator / /opt/tensormesh-operator/
# The file system is read-only, and .NET would open a socket for debuggers in /tmp.
ENV DOTNET_EnableDiagnostics=0
USER 1654
EXPOSE 8080 9443
ENTRYPOINT ["dotnet", "/opt/tensormesh-operator/tensormesh-operator.dll"]

FROM ${ASPNET_IMAGE} AS web
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="tensormesh-web" \
      org.opencontainers.image.description="The billing API and the Billing page of Tensormesh Operator" \
      org.opencontainers.image.vendor="Tensormesh" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=published-web / /opt/tensormesh-web/
ENV DOTNET_EnableDiagnostics=0
# Settings come from the environment and from files of secrets: no file of settings is watched for changes.
ENV DOTNET_hostBuilder__reloadConfigOnChange=false
USER 1654
WORKDIR /opt/tensormesh-web
EXPOSE 8080 8081
ENTRYPOINT ["dotnet", "/opt/tensormesh-web/tensormesh-web.dll"]

FROM ${RUNTIME_IMAGE} AS agent
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="tensormesh-agent" \
      org.opencontainers.image.description="Looks at the GPUs of its node and tells Tensormesh Operator of them" \
      org.opencontainers.image.vendor="Tensormesh" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=published-agent / /opt/tensormesh-agent/
# Where a driver that is mounted as a folder has its libraries. What NVIDIA's container runtime mounts is found without it.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
# The file system is read-only, and .NET would open a socket for debuggers in /tmp.
ENV DOTNET_EnableDiagnostics=0
# Root, and without any capability (manifests/base/agent.yaml): the kubelet's PodResources socket is root's alone.
USER 0
EXPOSE 8081
ENTRYPOINT ["/opt/tensormesh-agent/tensormesh-agent"]

# For laptops and tests: a device plugin that registers GPUs which are not there, and the driver that shows them.
FROM ${ASPNET_IMAGE} AS mock-gpus
LABEL org.opencontainers.image.title="mock-gpus" org.opencontainers.image.description="Mock GPUs for a kind cluster; for tests only"
COPY --from=published-mock-gpus / /opt/mock-gpus/
ENV DOTNET_EnableDiagnostics=0
# The kubelet's folder of plugins is root's alone.
USER 0
ENTRYPOINT ["dotnet", "/opt/mock-gpus/mock-device-plugin.dll"]
