#!/bin/sh
# Run for each event of the kernel's device model (busybox's uevent): network interfaces that come and go. Disks need nothing.
[ "$SUBSYSTEM" = net ] || exit 0
case $ACTION:$INTERFACE in
add:eth*) /usr/lib/hive/dhcp "$INTERFACE" & ;;
remove:eth*)
  kill "$(cat "/run/hive/dhcp.$INTERFACE/pid" 2>/dev/null)" 2>/dev/null
  rm -rf "/run/hive/dhcp.$INTERFACE" "/run/hive/$INTERFACE.address" "/run/hive/$INTERFACE.lease"
  ;;
esac
