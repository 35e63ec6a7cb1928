#!/bin/sh
# Once at boot, after rc: network, instance metadata, ssh, user data. What cloud-init does elsewhere.
. /usr/lib/hive/common
. /usr/lib/hive/imds
state=/var/lib/hive

fingerprints() {
  key=$(dropbearkey -y -f $state/ssh_host_ed25519_key)
  public=$(echo "$key" | grep '^ssh-')
  print=$(echo "$key" | sed -n 's/^Fingerprint: //p')
  # The words that cloud-init prints, for tools that look for them in the console's output.
  {
    echo "-----BEGIN SSH HOST KEY FINGERPRINTS-----"
    echo "256 $print root@$(hostname) (ED25519)"
    echo "-----END SSH HOST KEY FINGERPRINTS-----"
    echo "-----BEGIN SSH HOST KEY KEYS-----"
    echo "$public"
    echo "-----END SSH HOST KEY KEYS-----"
  } >/dev/console
}

start_sshd() { # once the instance is known: a machine started from another's image must have keys of its own
  [ -f $state/ssh_host_ed25519_key ] || dropbearkey -t ed25519 -f $state/ssh_host_ed25519_key >/dev/null 2>&1
  dropbear -s -r $state/ssh_host_ed25519_key -P /run/dropbear.pid # -s: no passwords
  marker sshd
}

authorize_keys() {
  mkdir -p /root/.ssh
  list=$(imds_get meta-data/public-keys/) || list=
  for key in $list; do imds_get "meta-data/public-keys/${key%%=*}/openssh-key" && echo; done >/root/.ssh/authorized_keys
  chmod 700 /root /root/.ssh
  chmod 600 /root/.ssh/authorized_keys
}

set_hostname() {
  name=$(imds_get meta-data/local-hostname) || return
  echo "${name%%.*}" >/etc/hostname
  hostname "${name%%.*}"
  printf '127.0.0.1 localhost\n127.0.1.1 %s %s\n' "$name" "${name%%.*}" >/etc/hosts
}

run_user_data() {
  script=$state/user-data
  imds_get user-data >$script || { rm -f $script; return 0; }
  [ "$(head -c 3 $script)" = IyE ] && base64 -d $script >$script.plain && mv $script.plain $script # "#!", encoded twice
  case $(head -c 2 $script | od -An -tx1 | tr -d ' ') in 1f8b) gunzip -c <$script >$script.plain && mv $script.plain $script ;; esac
  case $(head -c 15 $script) in
  '#!'*)
    chmod 700 $script
    { cd / && $script </dev/null 2>&1; echo $? >$state/user-data.exit; } | tee /var/log/user-data.log >/dev/console
    marker userdata "exit=$(cat $state/user-data.exit)"
    ;;
  '#cloud-config'*) marker userdata-ignored "this image has no cloud-init: #cloud-config is not applied, only #! scripts are run" ;;
  '') ;;
  *) marker userdata-ignored "only user data that starts with #! is run" ;;
  esac
}

for path in /sys/class/net/eth*; do [ -d "$path" ] && interfaces="$interfaces ${path##*/}"; done
for interface in $interfaces; do
  [ "$interface" = eth0 ] || /usr/lib/hive/dhcp "$interface" &
done
if /usr/lib/hive/dhcp eth0; then marker network "$(cat /run/hive/eth0.address)"; else marker network-failed; fi

if imds_token && id=$(imds_get meta-data/instance-id) && [ -n "$id" ]; then
  marker imds "$id"
  if [ "$(cat $state/instance-id 2>/dev/null)" != "$id" ]; then
    rm -f $state/ssh_host_* $state/user-data*
    authorize_keys
    set_hostname
    start_sshd
    fingerprints
    echo "$id" >$state/instance-id
    run_user_data
  else
    start_sshd
  fi
else
  marker imds-failed "the metadata service at 169.254.169.254 did not answer"
  start_sshd
fi
: >/run/hive/ready
marker ready
