#!/bin/sh
# The first process of the real node's own mount, network and process namespaces. It makes private what a
# kubelet would otherwise change on the machine, says that it is ready, and becomes a reaper that does nothing:
#
#   node-namespace.sh STATE PAUSE     STATE: the node's folder; PAUSE: Kubernetes' pause program
#
# When it ends the kernel ends every process of the node, and with them go mounts, interfaces and rules.
set -eu
state=$1
pause=$2

# Pods may ask for mount propagation, which needs a shared root; it is shared within this namespace only.
mount --make-rshared /
mount -t tmpfs -o mode=755 node-run /run
mkdir -p /run/lock

# /var/lib/kubelet/device-plugins, /var/lib/cni and /var/log/pods are fixed names in the programs. What is written
# there lands in the node's folder. The plugins' folder is a plain bind mount, so that its sockets work from both sides.
for place in lib log; do
  mkdir -p "$state/var-$place" "$state/var-$place.work"
  mount -t overlay node-var-$place -o "lowerdir=/var/$place,upperdir=$state/var-$place,workdir=$state/var-$place.work" /var/$place
done
mkdir -p "$state/device-plugins" /var/lib/kubelet/device-plugins /var/lib/cni /var/log/pods /var/log/containers
mount --bind "$state/device-plugins" /var/lib/kubelet/device-plugins

# Where manifests say that a node has them: the socket that tells which pod holds which device, and the mock driver.
for place in kubelet/pod-resources tensormesh-mock-driver; do mkdir -p "/var/lib/$place"; done
mkdir -p "$state/kubelet/pod-resources" "$state/driver"
mount --bind "$state/kubelet/pod-resources" /var/lib/kubelet/pod-resources
mount --bind "$state/driver" /var/lib/tensormesh-mock-driver

# A kubelet insists on these settings of the whole machine. Here it sees, and changes, copies.
mkdir -p "$state/sysctl"
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$setting" ] || continue
  copy=$state/sysctl/$(echo "$setting" | tr / .)
  cat "/proc/sys/$setting" >"$copy"
  mount --bind "$copy" "/proc/sys/$setting"
done

ip link set lo up
touch "$state/namespace-ready"
exec "$pause"
