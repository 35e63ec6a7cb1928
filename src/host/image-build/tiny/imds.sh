# The instance metadata service, version 2, by hand: busybox's wget can't send PUT.

# http METHOD PATH HEADER: the body on stdout; fails unless the answer is 200.
# The request goes through a FIFO that stays open: a client that closes its side early looks like one that left.
http() {
  fifo=/run/hive/http.$$
  rm -f $fifo
  mkfifo $fifo
  exec 4<>$fifo
  printf '%s %s HTTP/1.0\r\nHost: 169.254.169.254\r\n%s\r\nConnection: close\r\n\r\n' "$1" "$2" "$3" >&4
  nc -w 5 169.254.169.254 80 <$fifo >$fifo.answer 2>/dev/null
  exec 4>&-
  {
    read -r _ status _
    while read -r header && [ "${header%?}" ]; do :; done # up to the line that is only CR
    [ "$status" = 200 ] && cat
  } <$fifo.answer
  answered=$?
  rm -f $fifo $fifo.answer
  return $answered
}

# Asks for a session token, for up to half a minute: the network may come up after the machine.
imds_token() {
  attempt=0
  until token=$(http PUT /latest/api/token "X-aws-ec2-metadata-token-ttl-seconds: 21600") && [ -n "$token" ]; do
    attempt=$((attempt + 1))
    [ $attempt = 60 ] && return 1
    sleep 0.5
  done
}

# imds_get PATH: below /latest/
imds_get() { http GET "/latest/$1" "X-aws-ec2-metadata-token: $token"; }
