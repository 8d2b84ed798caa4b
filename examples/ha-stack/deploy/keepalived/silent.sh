#!/bin/sh
# silent.sh ADDRESS PORT: at this address a gateway that is gone is silent rather than refusing. Who knocks tries again after
# 1 s, and finds the address on another host. Run it as root when the host starts; a second run changes nothing. Where the
# kernel has no match for sockets, nothing is changed and the address refuses.
set -eu
address=$1 port=$2
iptables -w 5 -N ha-gateway 2>/dev/null || exit 0
if iptables -w 5 -A ha-gateway -m socket --nowildcard -j RETURN; then
  iptables -w 5 -A ha-gateway -j DROP
  iptables -w 5 -I INPUT -d "$address" -p tcp --syn --dport "$port" -j ha-gateway
else
  iptables -w 5 -X ha-gateway
fi
