#!/bin/sh
# Once at boot, before anything else (inittab's sysinit): what needs no network.
. /usr/lib/hive/common
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm /run/hive
mount -t devpts -o gid=5,mode=620 pts /dev/pts
mount -t tmpfs shm /dev/shm
marker init
for module in $(cat /lib/modules/boot); do insmod /lib/modules/$module.ko 2>/dev/null; done
# Devices that not every machine has.
for device in /sys/bus/pci/devices/*/device; do
  read -r id <"$device"
  case $id in
  0x1002 | 0x1045) optional=balloon ;;
  0x1005 | 0x1044) optional=random ;;
  *) continue ;;
  esac
  for module in $(cat /lib/modules/$optional); do insmod /lib/modules/$module.ko 2>/dev/null; done
done
hostname "$(cat /etc/hostname)"
ip link set lo up
acpid >/dev/null 2>&1 # the power button: /etc/acpi/PWRF/00000080

# The initramfs has grown the partition; the file system follows, while it is in use. The size it was last fitted to is kept,
# so that an ordinary boot doesn't ask.
while read -r device at _; do [ "$at" = / ] && root=$device; done </proc/mounts
read -r sectors <"/sys/class/block/${root#/dev/}/size"
if [ "$(cat /var/lib/hive/root-sectors 2>/dev/null)" != "$sectors" ]; then
  resize2fs "$root" >/var/log/resize2fs.log 2>&1 && echo "$sectors" >/var/lib/hive/root-sectors
fi
