#!/bin/sh
# A shell on the serial console, as root and without a password: who reaches the serial port of a machine can start it with any
# disk, so a password would protect nothing. It comes up when the boot's messages are through, or at once when Enter is pressed.
. /usr/lib/hive/common
waited=0
while [ ! -e /run/hive/ready ] && [ $waited -lt 60 ]; do
  read -r -t 1 _ && break
  waited=$((waited + 1))
done
export TERM=vt100
cd /root
exec /bin/sh -l
