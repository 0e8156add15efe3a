#!/usr/bin/env bash
# The product on a cluster, from nothing to the story of the main job: what the README's walk-through says, step by step.
#
#   walk-through.sh kind [STEP...]           on a kind cluster of this machine (kind, docker)
#   walk-through.sh dev ENV-FILE [STEP...]   on a dev cluster, whose node has the images already (tests/EndToEnd.Tests)
#
# Steps, in this order when none is named: cluster images gpus install reach story remove
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${1:?usage: walk-through.sh kind | dev ENV-FILE [STEP...]}; shift
system=tensormesh-system
case $target in
  kind) STATE=${STATE:-.dev}; mkdir -p "$STATE" ;;
  dev) source "${1:?usage: walk-through.sh dev ENV-FILE [STEP...]}"; shift ;;
  *) echo "usage: walk-through.sh kind | dev ENV-FILE [STEP...]" >&2; exit 2 ;;
esac
say() { printf '\n\033[1m== %s\033[0m  [%d s]\n' "$*" "$SECONDS"; }
run() { printf '$ %s\n' "$*"; "$@"; }

# A cluster.
cluster() {
  [ "$target" = kind ] || return 0
  say "A kind cluster"
  run kind create cluster --name tensormesh --wait 120s
}

# The images, on its node.
images() {
  [ "$target" = kind ] || return 0
  say "The images"
  for image in operator web agent mock-gpus; do
    run docker build --target "$image" -t "tensormesh.ai/$image:dev" .
    run kind load docker-image --name tensormesh "tensormesh.ai/$image:dev"
  done
  # The examples' workload: a container that waits until it is told to end.
  docker build -t tensormesh.ai/workload:dev - <<'IMAGE'
FROM busybox
ENTRYPOINT ["/bin/sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait"]
IMAGE
  run kind load docker-image --name tensormesh tensormesh.ai/workload:dev
}

# What GPU Feature Discovery writes on a node of eight H100; the device plugin of the overlay registers the GPUs.
gpus() {
  [ "$target" = kind ] || return 0
  say "GPUs"
  run kubectl label node --overwrite tensormesh-control-plane tensormesh.ai/mock-gpus=true nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3 \
    nvidia.com/gpu.memory=81559 nvidia.com/gpu.count=8 nvidia.com/gpu.compute.major=9 nvidia.com/gpu.compute.minor=0
}

# kubectl apply -k is all; where Postgres is not part of the overlay, its address is a Secret that is there before.
install() {
  say "Install"
  if [ "$target" = dev ]; then
    kubectl create namespace $system --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    umask 077
    printf '%s' "$POD_DATABASE" >"$STATE/database"
    [ -s "$STATE/key" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$STATE/key"
    kubectl -n $system create secret generic tensormesh-database --from-file=ConnectionStrings__Billing="$STATE/database" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    kubectl -n $system create secret generic tensormesh-web --from-file=Tensormesh__DevelopmentSigningKey="$STATE/key" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  fi
  # Without the client's own look at it: a server before 1.25 does not know the CEL rules of the kinds, and leaves them out.
  local validate=true
  [ "$(kubectl version -o json | sed -nE '/serverVersion/,$s/.*"minor": "([0-9]+).*/\1/p')" -ge 25 ] || validate=false
  run kubectl apply -k "manifests/overlays/$target" --validate=$validate
  for workload in deployment/tensormesh-operator deployment/tensormesh-web; do run kubectl -n $system rollout status "$workload" --timeout=300s; done
  run kubectl -n tensormesh-agents rollout status daemonset/tensormesh-agent --timeout=300s
}

# The API and the Billing page at an address of this machine, and what the story wants to know.
reach() {
  say "Reach it"
  [ "$target" = dev ] || DATABASE_URL=postgresql://tensormesh:for-laptops-only@127.0.0.1:15432/billing
  : >"$STATE/forward"
  kubectl -n $system port-forward service/tensormesh-web :80 >"$STATE/forward" 2>&1 &
  echo $! >"$STATE/forward.pid"
  if [ "$target" = kind ]; then kubectl -n $system port-forward service/postgres 15432:5432 >/dev/null 2>&1 & echo $! >>"$STATE/forward.pid"; fi
  local limit=$((SECONDS + 60)) url=
  until url=$(sed -nE 's/^Forwarding from (127\.0\.0\.1:[0-9]+).*/http:\/\/\1/p' "$STATE/forward") && [ -n "$url" ] && curl -fsS "$url/readyz" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || { cat "$STATE/forward" >&2; exit 1; }
    sleep 0.2
  done
  local token='kubectl -n tensormesh-system exec deployment/tensormesh-web -- dotnet /opt/tensormesh-web/tensormesh-web.dll token'
  cat >"$STATE/story.env" <<ENV
export KUBECONFIG=${KUBECONFIG:-$HOME/.kube/config}
export TENSORMESH_URL=$url
export TENSORMESH_ADMIN_TOKEN=$($token --account platform --role ADMIN)
export TENSORMESH_TOKEN=$($token --account acme)
export DATABASE_URL=$DATABASE_URL
export TENSORMESH_OPERATOR_LOG=/dev/null
export TENSORMESH_USERS_OWN_CLUSTER=0
export TENSORMESH_REAL_NODE=1
ENV
  echo "API and Billing page: $url   (source $STATE/story.env)"
}

story() {
  say "The story of the main job"
  bash tests/EndToEnd.Tests/story.sh "$STATE/story.env"
}

# Everything that was installed. Nothing waits for an operator that is gone.
remove() {
  say "Remove"
  # Followed to its end: the pods and their logs go as well.
  for pod in $(kubectl -n $system get pods -l app.kubernetes.io/name=tensormesh-operator -o name); do
    kubectl -n $system logs -f "$pod" >"$STATE/operator-${pod##*/}.log" 2>/dev/null &
  done
  if [ -s "$STATE/forward.pid" ]; then xargs -r kill <"$STATE/forward.pid" 2>/dev/null || true; rm -f "$STATE/forward.pid"; fi
  if ! run kubectl delete -k "manifests/overlays/$target" --ignore-not-found --timeout=180s; then
    # What is still there, and what it waits for.
    for each in namespaces crds clusterroles clusterrolebindings; do kubectl get $each -o json | grep -B40 '"tensormesh.ai/\|deletionTimestamp' | grep '"name"\|finalizers\|tensormesh.ai\|deletionTimestamp\|message' || true; done >&2
    kubectl get pods,serviceaccounts -n $system -o wide >&2 || true
    kubectl get serviceaccount tensormesh-operator -n $system -o yaml >&2 || true
    tail -n 40 "$STATE"/operator-*.log >&2 2>/dev/null || true
    return 1
  fi
}

for step in ${@:-cluster images gpus install reach story remove}; do "$step"; done
