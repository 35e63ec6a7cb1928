#!/bin/sh
# Carries out what the DHCP server said. Run by udhcpc, with the lease in the environment.
. /usr/lib/hive/common
index=${interface#eth}
table=$((100 + index)) # busybox knows tables up to 1023

case $1 in
deconfig)
  ip addr flush dev "$interface"
  rm -f "/run/hive/$interface.address"
  ;;
bound | renew)
  # A renewal that changes nothing must not disturb the connections that are open.
  lease="$ip/$mask $mtu $router $staticroutes $dns $domain $search"
  [ "$1" = renew ] && [ "$(cat "/run/hive/$interface.lease" 2>/dev/null)" = "$lease" ] && exit 0
  echo "$lease" >"/run/hive/$interface.lease"
  [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
  ip addr flush dev "$interface"
  ip addr add "$ip/${mask:-24}" broadcast + dev "$interface"
  # Where option 121 is given, the router option is ignored (RFC 3442).
  [ -n "$staticroutes" ] && set -- $staticroutes || set -- ${router:+0.0.0.0/0 ${router%% *}}
  ip route flush table $table 2>/dev/null
  eval "$(ipcalc -n "$ip/${mask:-24}")" # NETWORK=
  [ "$index" -gt 0 ] && ip route replace "$NETWORK/${mask:-24}" dev "$interface" table $table
  while [ $# -gt 1 ]; do
    via="via $2"
    [ "$2" = 0.0.0.0 ] && via=
    ip route replace "$1" $via dev "$interface" metric $((100 + index))
    [ "$index" -gt 0 ] && ip route replace "$1" $via dev "$interface" table $table
    shift 2
  done
  # What a further interface is asked, it answers through itself: the network drops a sender's address on another's port.
  if [ "$index" -gt 0 ]; then
    while ip rule del table $table 2>/dev/null; do :; done
    ip rule add from "$ip" table $table
  fi
  if [ "$interface" = eth0 ]; then
    # The metadata service is reached through the router, or straight where there is none.
    [ -n "$(ip route show default)" ] || ip route replace 169.254.169.254 dev eth0
    {
      [ -n "${search:-$domain}" ] && echo "search ${search:-$domain}"
      for server in $dns; do echo "nameserver $server"; done
    } >/etc/resolv.conf
  fi
  echo "$ip" >"/run/hive/$interface.address"
  ;;
esac
