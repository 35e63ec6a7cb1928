#!/usr/bin/env bash
# The README's two commands in a fresh Debian 12: nothing is there but the base system and a checkout.
#
#   test/slow/fresh-root.sh                 install.sh, quickstart (twice), ssh to its machine, npm test
#   HIVE_FRESH_TESTS="src smithy" …         npm test shortened to these files and folders ("none": not at all)
#   HIVE_FRESH_KEEP=1 …                     keep the root, and say where it is
#
# The root has its own mount, process, host name and network namespaces; slirp4netns joins it to the package registries, so that
# the host's network is neither changed nor seen. apt's and npm's settings are the host's, read when this runs. Needs root.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "fresh-root.sh: must run as root" >&2; exit 1; }

need() { command -v "$1" >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1" >/dev/null; }; }
need mmdebstrap
need slirp4netns

started=$SECONDS
say() { printf '\n### %4d s: %s\n' $((SECONDS - started)) "$*"; }

root=$(mktemp -d /var/tmp/hive-fresh.XXXXXX)
slirp=
finish() {
  code=$?
  [ -z "$slirp" ] || kill "$slirp" 2>/dev/null || true
  if [ -n "${HIVE_FRESH_KEEP:-}" ]; then echo "kept: $root"; else rm -rf --one-file-system "$root"; fi
  exit $code
}
trap finish EXIT

say "mmdebstrap: Debian 12's base system"
sources=$(grep -ls bookworm /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} | xargs -r grep -l debian || true)
[ -n "$sources" ] || { echo "fresh-root.sh: this host's own apt sources name no Debian bookworm to install from" >&2; exit 1; }
apt_options=$(apt-config dump | grep -E '^Acquire::(Check-|Retries|http|https)' || true)
arguments=()
while read -r option; do [ -z "$option" ] || arguments+=("--aptopt=$option"); done <<<"$apt_options"
# shellcheck disable=SC2086 # one word a file
mmdebstrap --quiet --variant=minbase --include=ca-certificates,init-system-helpers "${arguments[@]}" bookworm "$root" \
  $sources

# Settings of the host that the registries need; the certificates beside the distribution's own, which its package keeps.
printf '%s\n' "$apt_options" >"$root/etc/apt/apt.conf.d/90host"
if [ -d /etc/apt/auth.conf.d ]; then cp -r /etc/apt/auth.conf.d "$root/etc/apt/"; fi
cp /etc/ssl/certs/ca-certificates.crt "$root/usr/local/share/host-certificates.pem"
{ grep -v -E '^(nodedir|cafile)' "${HOME:-/root}/.npmrc" 2>/dev/null || true; echo cafile=/usr/local/share/host-certificates.pem; } >"$root/root/.npmrc"
echo nameserver 10.0.2.3 >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost fresh\n' >"$root/etc/hosts"

say "a checkout with what the working tree would commit"
git clone --quiet "$project" "$root/root/hive"
(cd "$project" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
  tar --null -T - -cf -) | tar -C "$root/root/hive" -xf -

cat >"$root/root/inside.sh" <<'INSIDE'
set -euo pipefail
started=$SECONDS
say() { printf '\n### %4d s inside: %s\n' $((SECONDS - started)) "$*"; }
cd /root/hive
say "./install.sh"
./install.sh
say "hive quickstart"
hive quickstart | tee /tmp/said
say "the ssh command that it printed"
$(grep -m1 -oE 'ssh -i .*' /tmp/said) cat /etc/motd
say "hive quickstart, again"
hive quickstart >/tmp/again
$(grep -m1 -oE 'ssh -i .*' /tmp/again) uname -a
say "hive status, hive doctor"
hive status
hive doctor
case ${HIVE_FRESH_TESTS:-} in
  none) ;;
  *) say "npm test"; npm test -- $HIVE_FRESH_TESTS 2>&1 | tee /tmp/tests | grep -vE '^\(pass\)'; tail -1 /tmp/tests | grep -qE ' 0 failed' ;;
esac
say "done"
INSIDE

# Runs in the namespaces before the root is entered: what a machine's boot would have made.
cat >"$root/root/enter.sh" <<'ENTER'
set -e
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
# Nodes of its own, since Hive gives /dev/net/tun to its guests' user.
for device in null zero full random urandom tty net/tun kvm; do
  [ ! -e "/dev/$device" ] || mknod -m 0666 "$root/dev/$device" c $(stat -c '0x%t 0x%T' "/dev/$device")
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
hostname fresh
ip link set lo up
# The other end of the network is made from outside, once this process can be named.
echo ready >"$root/root/entered"
for _ in $(seq 200); do ip link show tap0 >/dev/null 2>&1 && break; sleep 0.1; done
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}" \
  NODE_EXTRA_CA_CERTS=/usr/local/share/host-certificates.pem CI="${CI:-}" HIVE_FRESH_TESTS="${HIVE_FRESH_TESTS:-}" \
  bash /root/inside.sh
ENTER

unshare --mount --pid --net --uts --ipc --fork --kill-child bash "$root/root/enter.sh" "$root" &
namespaces=$!
until [ -e "$root/root/entered" ]; do kill -0 "$namespaces"; sleep 0.1; done
# unshare's only child is the first process in the namespaces.
slirp4netns --configure --mtu=1400 "$(cat "/proc/$namespaces/task/$namespaces/children" | tr -d ' ')" tap0 >/dev/null 2>&1 &
slirp=$!
say "in the fresh root"
wait "$namespaces"
say "done"
