# Shared by the scripts of Hive's tiny image.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

# Tells the console what has been reached, and when, in seconds since the kernel started.
marker() {
  read -r uptime _ </proc/uptime
  echo "HIVE:$1 up=$uptime${2:+ $2}" >/dev/console
}
