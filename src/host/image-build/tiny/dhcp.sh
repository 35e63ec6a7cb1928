#!/bin/sh
# dhcp INTERFACE: returns once it has an address, and leaves a client behind that renews the lease.
. /usr/lib/hive/common
mkdir "/run/hive/dhcp.$1" 2>/dev/null || exit 0 # one client an interface
ip link set "$1" up || exit 1
# Options 121 (classless routes) and 26 (MTU) are not asked for by default.
udhcpc -i "$1" -b -t 30 -T 1 -A 5 -O staticroutes -O mtu -O search -p "/run/hive/dhcp.$1/pid" -s /usr/lib/hive/dhcp-event >/dev/null 2>&1
[ -f "/run/hive/$1.address" ]
