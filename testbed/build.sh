#!/usr/bin/env bash
# Builds what the tests and the demo run against: etcd and its tools, kube-apiserver, kube-controller-manager, kubectl and
# helm, from the versions pinned in go.mod and helm/go.mod. The binaries go to a cache outside the checkout, so that a fresh clone
# builds nothing twice. The last line on standard output is the folder that holds them.
#
# KUBEBUILDER_ASSETS    a folder with etcd, kube-apiserver and kubectl: these are then taken from there
# BROADCAST_TESTBED_CACHE   where the cache is (default: ~/.cache/broadcast-operator/testbed)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'testbed: %s\n' "$*" >&2; }

if ! command -v go >/dev/null; then
  say "Go is needed to build a control plane, 1.26 or newer. Install it, and run this again."
  exit 1
fi

key=$(cat "$here/go.mod" "$here/go.sum" "$here/helm/go.mod" "$here/helm/go.sum" "$here/build.sh" <(echo "${KUBEBUILDER_ASSETS:-}") | cksum | cut -d' ' -f1)
cache=${BROADCAST_TESTBED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/broadcast-operator/testbed}
folder="$cache/$(go env GOOS)-$(go env GOARCH)-$key"
mkdir -p "$folder"

# Two builds at once would do the work twice; the lock goes with its process.
exec 9>"$folder/.lock"
if command -v flock >/dev/null && ! flock -n 9; then
  say "another build is under way, waiting for it"
  flock 9
fi

# Without their version stamp the Kubernetes binaries refuse to start.
kubernetes=$(cd "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
stamp="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes"

# build <name> <module folder> <package>
build() {
  local started=$SECONDS beat
  [ -x "$folder/$1" ] && return
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; then
    ln -sf "$KUBEBUILDER_ASSETS/$1" "$folder/$1"
    return
  fi
  say "building $1 (once; it takes up to a few minutes)"
  ( while sleep 15; do say "  still building $1, $((SECONDS - started)) s"; done ) 9>&- &
  beat=$!
  ( cd "$here/$2" && CGO_ENABLED=0 go build -trimpath -ldflags "$stamp" -o "$folder/$1.part" "$3" ) || { kill "$beat"; exit 1; }
  kill "$beat" 2>/dev/null || true
  mv "$folder/$1.part" "$folder/$1"
  say "built $1 in $((SECONDS - started)) s"
}

build etcd . go.etcd.io/etcd/server/v3
build etcdctl . go.etcd.io/etcd/etcdctl/v3
build etcdutl . go.etcd.io/etcd/etcdutl/v3
build kube-apiserver . k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager . k8s.io/kubernetes/cmd/kube-controller-manager
build kubectl . k8s.io/kubernetes/cmd/kubectl
build helm helm helm.sh/helm/v4/cmd/helm
echo "$folder"
