#!/bin/sh
# Before the machine stops or restarts (inittab's shutdown): ends what runs, then unmounts, so that the disk is whole.
. /usr/lib/hive/common
marker shutdown
kill -TERM -1 2>/dev/null
kill -HUP -1 2>/dev/null # an interactive shell ignores TERM
# Up to five seconds for programs to end by themselves. A kernel thread has no executable; 1 is init, $$ is this script.
tries=0
while [ $tries -lt 50 ]; do
  left=
  for process in /proc/[0-9]*; do
    case $process in /proc/1 | /proc/$$) continue ;; esac
    [ -e "$process/exe" ] && left=1 && break
  done
  [ -z "$left" ] && break
  sleep 0.1
  tries=$((tries + 1))
done
kill -KILL -1 2>/dev/null
sync
umount -a -r 2>/dev/null
