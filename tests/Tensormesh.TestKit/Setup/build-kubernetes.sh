#!/usr/bin/env bash
# Builds the Kubernetes control plane and node binaries from Debian's own source package.
#
# Debian 12 ships the source of Kubernetes but no binary package of its API server, and the
# public release archives may be out of reach. The result is cached outside the tree, so
# this runs once per machine:
#
#   build-kubernetes.sh DEST          DEST receives kube-apiserver, kube-controller-manager,
#                                     kube-scheduler, kubelet, kube-proxy, pause, VERSION
#
# Needs root and Debian 12 (apt). Prints one progress line that moves.
set -euo pipefail

dest=${1:?usage: build-kubernetes.sh DEST}
work=$dest.build
started=$SECONDS
log=$dest.log
mkdir -p "$(dirname "$dest")"
: >"$log"

say() { printf '  [%3ds] %s\n' "$((SECONDS - started))" "$*"; }
fail() { printf 'build-kubernetes: %s\nThe whole log is in %s; its end:\n' "$*" "$log" >&2; tail -n 20 "$log" >&2; exit 1; }

rm -rf "$work" && mkdir -p "$work/sources.d" "$work/lists/partial"
cd "$work"

# A private sources folder with the same mirrors as the machine's own, as deb-src: the
# machine's apt configuration stays as it is.
if [ -f /etc/apt/sources.list.d/debian.sources ]; then
  sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$work/sources.d/src.sources"
else
  sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/sources.d/src.list"
fi
apt_src=(-o "Dir::Etc::sourceparts=$work/sources.d" -o Dir::Etc::sourcelist=/dev/null -o "Dir::State::Lists=$work/lists")

say "fetching the kubernetes source package (34 MB)"
apt-get "${apt_src[@]}" update >>"$log" 2>&1 || fail "apt-get update for source packages failed"
apt-get "${apt_src[@]}" source --download-only kubernetes >>"$log" 2>&1 || fail "the source package kubernetes could not be fetched"
dsc=$(ls -1 kubernetes_*.dsc)
say "unpacking $dsc"
dpkg-source --no-check -x "$dsc" source >>"$log" 2>&1 || fail "unpacking failed"

# The build expects the tree inside a GOPATH.
mkdir -p gopath/src/k8s.io
mv source gopath/src/k8s.io/kubernetes
tree=$work/gopath/src/k8s.io/kubernetes

# reflect2 1.0.1, as vendored, reads map headers in a layout that Go changed in 1.18: an API
# server built with it dies at the first pretty-printed answer. Debian ships 1.0.2.
reflect2=/usr/share/gocode/src/github.com/modern-go/reflect2
[ -d "$reflect2" ] || fail "golang-github-modern-go-reflect2-dev is not installed"
rm -rf "$tree/vendor/github.com/modern-go/reflect2"/*.go "$tree/vendor/github.com/modern-go/reflect2"/*.s
cp "$reflect2"/*.go "$reflect2"/*.s "$tree/vendor/github.com/modern-go/reflect2/"
rm -f "$tree/vendor/github.com/modern-go/reflect2"/*_test.go

cd "$tree"
export GOPATH=$work/gopath GOCACHE=$work/gocache GO111MODULE=off CGO_ENABLED=0 GOFLAGS=-v
export KUBE_GIT_VERSION KUBE_GIT_TREE_STATE=archive KUBE_GIT_COMMIT=debian KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
KUBE_GIT_VERSION=v$(printf '%s' "$dsc" | sed -E 's/^kubernetes_([0-9.]+\+really)?([0-9.]+)-.*$/\2/')
package_total=2260   # counted once; only the progress line depends on it
say "compiling Kubernetes $KUBE_GIT_VERSION (kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy)"
set +e
make WHAT="cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubelet cmd/kube-proxy" 2>&1 \
  | tee -a "$log" \
  | awk -v total="$package_total" -v began="$(date +%s)" -v tty="$([ -t 1 ] && echo 1 || echo 0)" '
      # Before the packages come the generators of code, a minute in which nothing else is said.
      /^\+\+\+ .*Building go targets/ {
        steps++
        "date +%s" | getline now; close("date +%s")
        printf("%s  [%3ds] building, step %d of 7%s", tty ? "\r" : "", now - began, steps, tty ? "" : "\n"); fflush()
      }
      /^[a-z0-9.\/_-]+$/ && !/^\+/ {
        n++
        if (n % (tty ? 10 : 100) == 0) {
          percent = int(100 * n / total); if (percent > 99) percent = 99
          "date +%s" | getline now; close("date +%s")
          printf("%s  [%3ds] compiled %4d packages (%2d%%)%s", tty ? "\r" : "", now - began, n, percent, tty ? "" : "\n"); fflush()
        }
      }
      END { if (tty) printf("\n") }'
status=${PIPESTATUS[0]}
set -e
[ "$status" = 0 ] || fail "make exited with $status"

mkdir -p "$work/bin"
for binary in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
  install -m 0755 "_output/local/bin/linux/$(go env GOARCH)/$binary" "$work/bin/$binary" 2>>"$log" \
    || install -m 0755 "_output/bin/$binary" "$work/bin/$binary"
  strip "$work/bin/$binary"
done
gcc -Os -Wall -static -DVERSION=tensormesh -o "$work/bin/pause" build/pause/linux/pause.c >>"$log" 2>&1 \
  || gcc -Os -Wall -static -DVERSION=tensormesh -o "$work/bin/pause" build/pause/pause.c >>"$log" 2>&1 || fail "pause did not compile"
printf '%s\n' "$KUBE_GIT_VERSION" >"$work/bin/VERSION"

# The folder appears under its final name only when it is whole, so that an interrupted
# build is never mistaken for a cached one.
cd /
rm -rf "$dest" && mv "$work/bin" "$dest"
chmod -R u+w "$work" && rm -rf "$work"
say "done: $dest"
