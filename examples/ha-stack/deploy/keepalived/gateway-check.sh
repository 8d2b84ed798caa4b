#!/bin/bash
# gateway-check.sh [answers]: ends well if this host's gateway is ready. That it is not, it says when no connection is left on it,
# or after 0.7 s: the address then moves without cutting anybody. No answer within a second is a failure with `answers`
# alone. Without curl, which not every machine has.
exec 3<>/dev/tcp/127.0.0.1/8081 || exit 1
printf 'GET /healthz?quiesce HTTP/1.0\r\n\r\n' >&3
read -r -t 1 _ code _ <&3
if [ $? -gt 128 ]; then
  [ "$1" != answers ]
  exit
fi
[ "$code" = 200 ]
