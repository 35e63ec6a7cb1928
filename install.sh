#!/usr/bin/env bash
# Installs Hive from this checkout on Debian or Ubuntu: the host's packages, Node if it is missing, the build, the binary
# and, where systemd runs, its service.
#
#   ./install.sh                       everything
#   ./install.sh --dependencies-only   only the host's packages
#   ./install.sh --tests               only the host's packages, and what the tests use besides (`npm test` calls this)
#   ./install.sh --no-service          no systemd service
#   ./install.sh --quiet               say only what changes or fails
set -euo pipefail
cd "$(dirname "$0")"

PREFIX=${PREFIX:-/usr/local}
dependencies_only=false tests=false service=true quiet=false
for argument in "$@"; do
  case $argument in
    --dependencies-only) dependencies_only=true ;;
    --tests) dependencies_only=true tests=true ;;
    --no-service) service=false ;;
    --quiet) quiet=true ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "install.sh: unknown option $argument (see --help)" >&2; exit 2 ;;
  esac
done

say() { $quiet || printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { echo "install.sh: $*" >&2; exit 1; }

# Package, and a file that proves it is there (faster than asking dpkg, and true for programs from elsewhere).
PACKAGES="
qemu-system-x86      /usr/bin/qemu-system-x86_64
qemu-utils           /usr/bin/qemu-img
openvswitch-switch   /usr/sbin/ovs-vswitchd
iproute2             /sbin/ip
nftables             /usr/sbin/nft
ethtool              /sbin/ethtool
util-linux           /usr/bin/setpriv
openssh-client       /usr/bin/ssh
openssl              /usr/bin/openssl
ca-certificates      /etc/ssl/certs/ca-certificates.crt
cpio                 /usr/bin/cpio
lz4                  /usr/bin/lz4
zstd                 /usr/bin/zstd
xz-utils             /usr/bin/xz
binutils             /usr/bin/strip
e2fsprogs            /sbin/mke2fs
grub-common          /usr/bin/grub-mkimage
mmdebstrap           /usr/bin/mmdebstrap
procps               /usr/bin/ps
awscli               /usr/bin/aws
"

# Clients and tools of the tests. The compiler builds node-pty, which has no prebuilt binary for Linux.
TEST_PACKAGES="
iputils-ping         /usr/bin/ping
iptables             /usr/sbin/iptables
tcpdump              /usr/bin/tcpdump
putty-tools          /usr/bin/puttygen
python3-boto3        /usr/lib/python3/dist-packages/boto3
python3              /usr/bin/python3
make                 /usr/bin/make
g++                  /usr/bin/g++
libnode-dev          /usr/include/node/node.h
etcd-server          /usr/bin/etcd
redis-tools          /usr/bin/redis-cli
redis-server         /usr/bin/redis-server
"

missing_packages() {
  while read -r package proof; do
    [ -z "$package" ] || [ -e "$proof" ] || [ -e "/usr$proof" ] || echo "$package"
  done <<<"$1"
}

node_is_usable() {
  command -v node >/dev/null && command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]
}

install_packages() {
  local missing
  missing=$(missing_packages "$PACKAGES")
  ! $tests || missing="$missing $(missing_packages "$TEST_PACKAGES")"
  node_is_usable || missing="$missing nodejs npm"
  missing=$(echo $missing)
  [ -n "$missing" ] || { say "The host has every package that Hive needs"; return; }
  command -v apt-get >/dev/null || die "these are missing, and there is no apt-get to install them: $missing"
  [ "$(id -u)" = 0 ] || die "these are missing; run as root, or first: sudo apt-get install $missing"
  quiet=false say "Installing $missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || die "apt-get update failed; are the package sources in /etc/apt reachable?"
  # Services that a package brings (Open vSwitch) are started by start_openvswitch, also where there is no init.
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null || die "apt-get could not install: $missing"
  # Debian starts an etcd and a Redis at once; the tests start their own.
  case $missing in *etcd-server*) ! has_systemd || systemctl disable --now etcd >/dev/null 2>&1 || true ;; esac
  case $missing in *redis-server*) ! has_systemd || systemctl disable --now redis-server >/dev/null 2>&1 || true ;; esac
}

has_systemd() { [ -d /run/systemd/system ]; }

start_openvswitch() {
  ovs-vsctl --timeout=3 show >/dev/null 2>&1 && return
  say "Starting Open vSwitch"
  if has_systemd; then systemctl enable --now openvswitch-switch >/dev/null 2>&1
  else /usr/share/openvswitch/scripts/ovs-ctl start --system-id=random >/dev/null 2>&1
  fi || echo "install.sh: Open vSwitch did not start; 'hive doctor' says more" >&2
}

build() {
  # As npm leaves it: older than the lockfile means that the lockfile has changed since.
  if [ ! -x node_modules/.bin/bun ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "Fetching the locked dependencies (npm ci)"
    npm ci --no-fund --no-audit --loglevel=error
  fi
  say "Building dist/hive"
  npm run --silent build
}

install_binary() {
  install -D -m 0755 dist/hive "$PREFIX/bin/hive"
  say "Installed $PREFIX/bin/hive"
  # QEMU runs as this user, which owns nothing but its machines' files.
  id hive-qemu >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin hive-qemu
}

start_service() {
  sed "s#^ExecStart=/usr/local/bin/hive#ExecStart=$PREFIX/bin/hive#" hive.service >/etc/systemd/system/hive.service
  systemctl daemon-reload
  systemctl enable hive >/dev/null 2>&1
  # Also when it runs already, since the binary is a new one; the machines go on.
  systemctl restart hive
  for _ in $(seq 50); do
    if "$PREFIX/bin/hive" status >/dev/null 2>&1; then
      say "Started hive.service (systemctl status hive, journalctl -u hive)"
      return
    fi
    sleep 0.2
  done
  echo "install.sh: hive.service does not answer yet: journalctl -u hive says why" >&2
}

install_packages
$dependencies_only && exit 0
[ "$(id -u)" = 0 ] || die "must run as root: it installs a binary, a user and a service"
build
install_binary
start_openvswitch
if $service && has_systemd; then start_service; fi
say "Done. Next: hive quickstart"
