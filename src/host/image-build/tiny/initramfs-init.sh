#!/bin/sh
# First stage, in the initramfs: finds the root disk, grows its partition into the space behind it, hands over to it.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
label=hive-tiny
for word in $(cat /proc/cmdline); do case $word in root=LABEL=*) label=${word#root=LABEL=} ;; esac; done

# The disk that the machine started from comes first in each driver's order. A second disk with the same label (a volume made from
# the same snapshot, attached to look at it) must not be taken for it.
find_root() {
  for root in /dev/vda1 /dev/nvme0n1p1 /dev/sda1 /dev/xvda1; do
    # ext4's label: 16 bytes at 120 in the superblock, which starts at 1024
    [ -b $root ] && [ "$(dd if=$root bs=1 skip=1144 count=16 2>/dev/null)" = "$label" ] && return 0
  done
  return 1
}
for module in $(cat /lib/modules/first); do insmod /lib/modules/$module.ko; done
tries=0
until find_root; do
  tries=$((tries + 1))
  if [ $tries = 25 ]; then for module in $(cat /lib/modules/fallback); do insmod /lib/modules/$module.ko 2>/dev/null; done; fi
  if [ $tries = 250 ]; then
    echo "HIVE:root-not-found no disk carries a file system named $label; the disks are:"
    cat /proc/partitions
    exec sh
  fi
  sleep 0.02
done

# The volume may be larger than the image. The root partition is the only one, so its length in the partition table is all that
# has to change: 4 bytes of one sector, little-endian, written before anything is mounted.
disk=${root%1}
case $disk in *[0-9]p) disk=${disk%p} ;; esac
name=${root#/dev/}
read -r disk_sectors <"/sys/class/block/${disk#/dev/}/size"
read -r start <"/sys/class/block/$name/start"
read -r sectors <"/sys/class/block/$name/size"
most=4294967295 # what the partition table can say: 2 TiB
room=$((disk_sectors - start))
[ $room -gt $most ] && room=$most
room=$((room / 2048 * 2048))
if [ $room -gt "$sectors" ]; then
  bytes=$(printf '\\%03o\\%03o\\%03o\\%03o' $((room & 255)) $((room >> 8 & 255)) $((room >> 16 & 255)) $((room >> 24 & 255)))
  printf "$bytes" | dd of=$disk bs=1 seek=458 conv=notrunc 2>/dev/null
  sync
  blockdev --rereadpt $disk
fi

# An inode table that nobody uses yet is not worth writing zeroes to: that would only fill the volume's file.
mount -t ext4 -o rw,noatime,noinit_itable $root /newroot || { echo "HIVE:root-not-mounted $root"; exec sh; }
mount -o move /dev /newroot/dev
mount -o move /proc /newroot/proc
mount -o move /sys /newroot/sys
exec switch_root /newroot /sbin/init
