#!/usr/bin/env bash
# The tests.
#
#   ./test.sh              everything: packages, unit, integration and doc tests, real servers, the lab, both demos
#   ./test.sh --embedded   what needs no root and no packages
#   ./test.sh --long       everything, with each demo several times over, the stack on plain engines, and every fault
#
# Root is needed for packages and for the lab; without it sudo is asked. A part that is missing is an error, never a
# silent skip.
set -euo pipefail
cd "$(dirname "$0")"

mode=${1:-all}
case $mode in
  all | --embedded | --long) ;;
  *)
    echo "test.sh: there is no $mode; use --embedded, --long, or nothing" >&2
    exit 2
    ;;
esac

passed=0
step() { # what, command...
  local what=$1 began=$SECONDS
  shift
  printf '\n==> %s\n' "$what"
  if "$@"; then
    passed=$((passed + 1))
    printf '==> %s: passed (%d s)\n' "$what" "$((SECONDS - began))"
  else
    printf '\n==> %s: FAILED\n%d passed, 1 failed\n' "$what" "$passed" >&2
    exit 1
  fi
}

# No step may hang: seconds, command...
bounded() {
  local seconds=$1 front=()
  shift
  # A person at a terminal may be asked for sudo's password, which only the terminal's own group may read.
  [ ! -t 0 ] || front=(--foreground)
  timeout "${front[@]}" -k 30 "$seconds" "$@" || {
    local code=$?
    [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || echo "ended after $seconds s, which is its bound: $*" >&2
    return "$code"
  }
}

verdict() { # file: the last line of standard output says whether the demo kept its promises
  tail -n 1 "$1" | grep -q '"ok":true' || {
    echo "the demo's last line does not say \"ok\":true: $(tail -n 1 "$1")" >&2
    return 1
  }
}

demo() { # arguments of the demo
  local out
  out=$(mktemp)
  if ! "$programs"/ha-stack demo --json "$@" | tee "$out"; then
    rm -f "$out"
    return 1
  fi
  verdict "$out" || { rm -f "$out"; return 1; }
  rm -f "$out"
}

export CARGO_TARGET_DIR=$PWD/target
# The verdict on a change must come from the change: property tests draw the same cases each time, other ones with --long.
seed=1
[ "$mode" != --long ] || seed=$RANDOM
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$seed}
echo "property tests draw from the seed PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"

# One build for tests and demos (Cargo.toml says of what kind): the tests bring the programs along. --long plays the demos with what
# people run.
build=(--profile ci --workspace --all-features)
programs=target/ci
step "unit, integration and doc tests" bounded 2400 cargo test "${build[@]}" --quiet --no-fail-fast
rounds=1
if [ "$mode" = --long ]; then
  rounds=5
  export HA_STACK_LONG=1
  programs=target/release
  step "release build" cargo build --release -p ha-stack -p lab
fi
for round in $(seq "$rounds"); do step "demo on loopback, round $round of $rounds" demo; done

if [ "$mode" = --embedded ]; then
  printf '\n%d passed, 0 failed\n' "$passed"
  exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
  echo "Packages and the lab need root: sudo may ask for your password."
  root=(sudo --preserve-env=PATH,CONSUL_BIN,LAB_DIR,HA_STACK_LONG)
  # Test binaries that need root are run through sudo by cargo itself.
  host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${host}_RUNNER=${root[*]}"
fi

lab() { "${root[@]}" "$programs"/lab "$@"; }
# Only a lab that was brought up here is taken down here.
ours=
trap '[ -z "$ours" ] || lab down >/dev/null 2>&1 || true' EXIT

# What tests need beside the lab: a browser, a Prometheus, the proxies that the renderers write for, a clock to set.
others() {
  local package missing=() guard=
  for package in chromium chromium-driver fonts-dejavu-core prometheus nginx haproxy libfaketime; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  echo "installing ${missing[*]} through apt-get; nothing of it is started"
  # Debian's maintainer scripts ask this before they start a daemon.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    guard=1
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
    "${root[@]}" chmod 755 /usr/sbin/policy-rc.d
  fi
  local result=0
  "${root[@]}" apt-get -q update && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y --no-install-recommends install "${missing[@]}" || result=1
  [ -z "$guard" ] || "${root[@]}" rm -f /usr/sbin/policy-rc.d
  return "$result"
}

step "packages" lab packages
step "more packages, for tests" others
# Where the Consul program is, for tests that start an agent of their own.
exports=$(lab packages)
eval "$exports"

# The whole workspace is named each time, so that nothing is built twice for other features.
ignored() { bounded 1800 cargo test "${build[@]}" --quiet --no-fail-fast "$@" -- --ignored --test-threads=1; }
step "the libraries against real servers, ha-stack in a browser, with a Prometheus and with nginx and HAProxy" ignored --test live
step "the lab, and the libraries on it" ignored --test lab --test libraries

# Runs ha-stack on the lab that is up; its last line, which stays in $line, says "ok":true.
told() {
  local env=DOCKER_HOST,CONSUL_HTTP_ADDR,REDIS_URL,HA_STACK_ENGINES,HA_STACK_FRONT,HA_STACK_LAB out result=0
  out=$(mktemp)
  if [ "${#root[@]}" -gt 0 ]; then
    sudo --preserve-env="$env" "$programs"/ha-stack "$@" --json | tee "$out" || result=1
  else
    "$programs"/ha-stack "$@" --json | tee "$out" || result=1
  fi
  [ "$result" -ne 0 ] || verdict "$out" || result=1
  line=$(tail -n 1 "$out")
  rm -f "$out"
  return "$result"
}

# In a lab of its own: lab's flags, then what ha-stack is to do there, and after it what $afterwards names, if it is set.
in_lab() {
  local flags=$1 exports result=0
  shift
  # shellcheck disable=SC2086
  lab up $flags || return 1
  ours=1
  # The lab's engines, Consul and Redis, by the usual environment variables.
  exports=$(lab env) || return 1
  eval "$exports"
  told "$@" && ${afterwards:-true} || result=1
  lab down || result=1
  ours=
  return "$result"
}

# The same hosts without Consul: gateways and scalers ask the Swarm itself. Zero replicas and back is part of it.
without_consul() {
  local host
  for host in h1 h2 h3; do lab daemon "$host" consul stop || return 1; done
  told demo --platform swarm --discovery swarm --no-faults --zero
}
# Every fault in its short form; --long plays them in full, further below.
faults_and_without_consul() {
  if [ "$mode" != --long ]; then told faults --platform swarm --short || once_more || return 1; fi
  without_consul
}
# What was broken or left out in a short run is played once more, and told: a machine that does other things meanwhile may cost
# a request its time once. What is broken twice is broken.
once_more() {
  local again
  again=$(awk -v RS='[{]"name":"' 'NR > 1 && (/"broken":\["/ || /"skipped":"/) { sub(/".*/, ""); printf "%s%s", sep, $0; sep = "," }' <<<"$line")
  [ -n "$again" ] || return 1
  echo "once more, for it was broken or left out: $again"
  told faults --platform swarm --short --only "$again"
}
for round in $(seq "$rounds"); do
  afterwards=
  [ "$round" -ne 1 ] || afterwards=faults_and_without_consul
  step "demo on a Swarm of three hosts, then its faults and without Consul, round $round of $rounds" in_lab "" demo --platform swarm
  afterwards=
done
# The reference deployment on hosts that have an engine, which answers its own socket and certificates, and nothing else.
deployed() { # what has to hold on it, one after the other
  lab up --tls --bare || return 1
  ours=1
  local check exports env=DOCKER_HOST,DOCKER_TLS_VERIFY,DOCKER_CERT_PATH,HA_STACK_ENGINES,CONSUL_BIN,CONSUL_HTTP_TOKEN result=0
  exports=$(lab env) || return 1
  eval "$exports"
  # A token of ours: with one that is drawn, nobody but the roles could ask Consul.
  export CONSUL_HTTP_TOKEN
  CONSUL_HTTP_TOKEN=$(cat /proc/sys/kernel/random/uuid)
  local stack=("$programs"/ha-stack)
  [ "${#root[@]}" -eq 0 ] || stack=(sudo --preserve-env="$env" "$programs"/ha-stack)
  "${stack[@]}" deploy || result=1
  for check in "$@"; do
    [ "$result" -ne 0 ] || "$check" || result=1
  done
  unset CONSUL_HTTP_TOKEN DOCKER_TLS_VERIFY DOCKER_CERT_PATH
  lab down || result=1
  ours=
  return "$result"
}
unchanged() {
  local said
  said=$("${stack[@]}" deploy) && [ "$said" = "nothing to do" ] || {
    echo "a second deploy is not without work: $said" >&2
    return 1
  }
}
# Registrars and scalers without the engine's socket: those of the certificates that they got instead. The scaler decides by them here,
# and the registrars do their work with the second site.
by_certificates() {
  local began host tries decided left
  began=$(date +%s)
  "${stack[@]}" deploy --role-certs "$DOCKER_CERT_PATH" || return 1
  left=$(for host in h1 h2 h3; do
    # shellcheck disable=SC2016
    lab exec "$host" -- bash -c 'docker ps -q | xargs docker inspect -f "{{.Name}} {{json .HostConfig.Mounts}} {{json .HostConfig.Binds}}"'
  done | grep docker.sock || true)
  [ -z "$left" ] || {
    printf 'these have the socket still:\n%s\n' "$left" >&2
    return 1
  }
  for tries in $(seq 60); do
    for host in h1 h2 h3; do
      decided=$(lab exec "$host" -- curl -s -m 10 http://127.0.0.1:8083/metrics | sed -n 's/^ha_scaler_last_decision_timestamp_seconds{.*} \([0-9]*\).*/\1/p' | sort -n | tail -n 1)
      if [ "${decided:-0}" -gt "$began" ]; then
        printf 'the scaler on %s decides, by certificates, at try %s\n' "$host" "$tries"
        return 0
      fi
    done
    sleep 1
  done
  echo "no scaler decided within a minute after it got certificates instead of the socket" >&2
  return 1
}
# Two sites behind the same gateways, by their labels; when the second one is gone, so is its route.
second_site() {
  local site=${DOCKER_HOST#tcp://} said
  site=http://${site%:*}:8080
  "${stack[@]}" deploy --name shop --file examples/ha-stack/deploy/second-site.yml &&
    served_by shop.example shop_web. && served_by other.example ha_web. &&
    "${stack[@]}" remove --name shop && served_by shop.example ha_web.
}
# host, task's name: who answers the gateway's requests for this host, within a minute.
served_by() {
  local tries
  for tries in $(seq 60); do
    if said=$(curl -s -m 10 -f -H "Host: $1" "$site/") && [[ $said == *"id=instance>$2"* ]]; then
      printf '%s is served by %s at try %s\n' "$1" "${2%.}" "$tries"
      return 0
    fi
    sleep 1
  done
  echo "$1 is not served by $2 within a minute; the last answer: $said" >&2
  return 1
}
# On a host, where its Consul listens, by the token that was chosen. The service is found, whatever the stack file calls it.
found() {
  local said status=("$PWD/$programs/ha-stack" --docker-host "$DOCKER_HOST" status --platform swarm)
  local with=(CONSUL_HTTP_TOKEN="$CONSUL_HTTP_TOKEN" DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH="$DOCKER_CERT_PATH")
  said=$(lab exec h1 -- env "${with[@]}" "${status[@]}") || return 1
  [[ $said == "ha_web on swarm: "* ]] || {
    echo "the status of the deployed stack is another one: $said" >&2
    return 1
  }
}
# What the processes of the stack may do, as the kernel has it; and what nobody may without a token or a password.
confined() {
  local host said all=""
  # shellcheck disable=SC2016
  local look='for id in $(docker ps -q); do
    pid=$(docker inspect -f "{{.State.Pid}}" "$id")
    name=$(docker inspect -f "{{index .Config.Labels \"com.docker.swarm.service.name\"}}" "$id")
    read -r uid caps nnp < <(awk "/^Uid:/ {u = \$2} /^CapEff:/ {c = \$2} /^NoNewPrivs:/ {n = \$2} END {print u, c, n}" "/proc/$pid/status")
    root=$(awk "\$2 == \"/\" {print substr(\$4, 1, 2)}" "/proc/$pid/mounts")
    echo "$name uid=$uid caps=$((16#$caps)) no-new-privileges=$nnp root=$root"
  done'
  for host in h1 h2 h3; do
    said=$(lab exec "$host" -- bash -c "$look") || return 1
    all+=$said$'\n'
  done
  said=$(grep -v 'uid=65534 caps=0 no-new-privileges=1 root=ro$' <<<"$all" | grep . || true)
  [ -z "$said" ] && [ "$(grep -c . <<<"$all")" -ge 20 ] || {
    printf 'these may do more than they should, or too few run:\n%s\nall:\n%s\n' "$said" "$all" >&2
    return 1
  }
  said=$(lab exec h1 -- curl -s -m 10 -o /dev/null -w '%{http_code}' -X PUT -d x http://127.0.0.1:8500/v1/kv/x) || return 1
  [ "$said" = 403 ] || {
    echo "Consul answers a write without a token with $said, not with 403" >&2
    return 1
  }
  printf '%s processes are nobody, without a capability, on images that they cannot write\n' "$(grep -c . <<<"$all")"
}
# A user logs in and is known to the next request. New Sentinels take half a minute before they make replicas.
logs_in() {
  local site jar said tries
  site=${DOCKER_HOST#tcp://}
  site=http://${site%:*}:8080
  jar=$(mktemp)
  for tries in $(seq 60); do
    if curl -s -m 10 -o /dev/null -f -c "$jar" -d user=ada "$site/login" &&
      said=$(curl -s -m 10 -f -b "$jar" -X POST "$site/views") && [[ $said == *'"user":"ada"'* ]]; then
      printf 'logged in at try %s: %s\n' "$tries" "$said"
      rm -f "$jar"
      return 0
    fi
    sleep 2
  done
  echo "nobody could log in on the deployed site at $site within two minutes" >&2
  rm -f "$jar"
  return 1
}
removed() { "${stack[@]}" remove; }
# A host is taken out for work and back: nothing of the stack is left on it meanwhile, and users notice nothing.
worked_on() {
  local tries left=1
  docker node update --availability drain h2 || return 1
  for tries in $(seq 90); do
    left=$(lab exec h2 -- docker ps -q | grep -c . || true)
    [ "$left" -gt 0 ] || break
    sleep 0.5
  done
  docker node update --availability active h2 || return 1
  [ "$left" -eq 0 ] || {
    echo "h2 still has $left containers 45 s after it was drained" >&2
    return 1
  }
  printf 'h2 was empty after %s looks\n' "$tries"
  logs_in
}
# The commands of the guide's page, each on every host: the volumes are saved, lost, and put back; who was logged in is so again.
saved_and_put_back() {
  local host save back jar said tries site=${DOCKER_HOST#tcp://}
  site=http://${site%:*}:8080
  jar=$(mktemp)
  mapfile -t said < <(sed -n '/^```console,host$/,/^```$/s/^\$ //p' docs/src/operating.md)
  save=${said[0]} back=${said[1]}
  [ "${#said[@]}" -eq 2 ] || {
    echo "docs/src/operating.md has ${#said[@]} commands for a host, not 2" >&2
    return 1
  }
  curl -s -m 10 -o /dev/null -f -c "$jar" -d user=grace "$site/login" || return 1
  # Written to disk each second.
  sleep 2
  for host in h1 h2 h3; do
    lab exec "$host" -- bash -euc "mkdir /run/saved && cd /run/saved && $save" || return 1
  done
  removed || return 1
  for host in h1 h2 h3; do
    # A container that has just ended may hold its volume for a moment.
    lab exec "$host" -- bash -euc 'for _ in $(seq 40); do docker volume prune -f >/dev/null; docker volume rm $(docker volume ls -q -f name=ha_) 2>/dev/null || true
      [ -n "$(docker volume ls -q -f name=ha_)" ] || break; sleep 0.5; done; [ -z "$(docker volume ls -q -f name=ha_)" ]' || return 1
    lab exec "$host" -- bash -euc "cd /run/saved && ls -l && $back && rm -r /run/saved" || return 1
  done
  "${stack[@]}" deploy || return 1
  for tries in $(seq 60); do
    if said=$(curl -s -m 10 -f -b "$jar" -X POST "$site/views") && [[ $said == *'"user":"grace"'* ]]; then
      printf 'known again at try %s: %s\n' "$tries" "$said"
      rm -f "$jar"
      return 0
    fi
    sleep 2
  done
  echo "who was logged in before is not known after two minutes; the last answer: $said" >&2
  rm -f "$jar"
  return 1
}
# Which host leads the deployed stack's Swarm, Consul or Redis; one that has a replica and does not lead the Swarm for `none`.
leader_of() {
  local host said
  case $1 in
    none)
      said=$(lab leaders) line=$(lab exec h1 -- curl -s -m 10 'http://127.0.0.1:8081/load?service=ha_web') || return 1
      for host in h3 h2 h1; do
        if [[ $line == *"\"host\":\"$host\""* ]] && ! grep -q "^swarm  *$host\$" <<<"$said"; then echo "$host"; return 0; fi
      done
      ;;
    swarm) lab leaders | awk '$1 == "swarm" { print $2 }' ;;
    consul)
      said=$(lab exec h1 -- curl -s -m 10 -H "X-Consul-Token: $CONSUL_HTTP_TOKEN" http://127.0.0.1:8500/v1/status/leader) || return 1
      said=${said#\"} said=${said%%:*}
      echo "h$((${said##*.} - 10))"
      ;;
    # As most Sentinels have it.
    redis)
      # shellcheck disable=SC2016
      for host in h1 h2 h3; do
        lab exec "$host" -- bash -c 'grep -h "^sentinel monitor" "$(docker volume inspect -f "{{.Mountpoint}}" $(docker volume ls -q -f name=ha_sentinel))/sentinel.conf"'
      done | sort | uniq -c | sort -rn | sed -n '1s/.* redis-\([0-9]\) .*/h\1/p'
      ;;
  esac
}
# A host loses its power: who is whole again when, and what users lose, each on a connection of its own.
loses_power() { # what it leads, the host
  local began host line gone=$2 alive whole="" said posts jar users=() failed total counted views site=http://$HA_STACK_FRONT:8080
  for host in h1 h2 h3; do [ "$host" = "$gone" ] || alive=$host; done
  said=$(mktemp) posts=$(mktemp) jar=$(mktemp)
  curl -s -m 25 -f -o /dev/null -c "$jar" -d user=lin "$site/login" || return 1
  for _ in 1 2 3 4; do
    (while :; do curl -s -m 30 -o /dev/null -w '%{http_code}\n' "$site/" >>"$said"; sleep 0.05; done) &
    users+=($!)
  done
  (while :; do curl -s -m 30 -o /dev/null -w '%{http_code}\n' -b "$jar" -X POST "$site/views" >>"$posts"; sleep 0.2; done) &
  users+=($!)
  sleep 2
  lab power-off "$gone" || { kill "${users[@]}"; return 1; }
  began=$(date +%s%N)
  while [ -z "$whole" ] && [ $((($(date +%s%N) - began) / 1000000000)) -lt 90 ]; do
    line=$(lab exec "$alive" -- curl -s -m 2 'http://127.0.0.1:8081/load?service=ha_web' | grep -o '"host":"[^"]*","zone":[^,]*,"weight":[0-9]*,"state":"ready"' | grep -vc "\"$gone\"" || true)
    [ "${line:-0}" -lt 2 ] || whole=$((($(date +%s%N) - began) / 100000000))
    sleep 0.2
  done
  sleep 5
  kill "${users[@]}"
  wait "${users[@]}" 2>/dev/null || true
  total=$(grep -c . "$said" || true) failed=$(grep -vc '^200$' "$said" || true) counted=$(grep -c '^200$' "$posts" || true)
  views=$(curl -s -m 25 -b "$jar" -X POST "$site/views" | sed -n 's/.*"views":\([0-9]*\).*/\1/p')
  # The last one of the user's is counted though nobody waited for its answer, or it is not; so is each that failed.
  local most=$(($(grep -c . "$posts") + 2))
  rm -f "$said" "$posts" "$jar"
  printf '%s lost its power, which led: %s. Two replicas again after %s.%s s; of %s GETs of 4 users %s failed; %s views acknowledged, %s counted\n' \
    "$gone" "$1" "$((${whole:-0} / 10))" "$((${whole:-0} % 10))" "$total" "$failed" "$counted" "$((${views:-0} - 1))"
  [ -n "$whole" ] && [ "$whole" -le "$([ "$1" = swarm ] && echo 450 || echo 300)" ] && [ "$failed" -le 4 ] || {
    echo "more than 30 s (45 s with an election of the Swarm's leader), or more than one failed request a user" >&2
    return 1
  }
  [ "${views:-0}" -gt "$counted" ] && [ "$views" -le "$most" ] || {
    echo "views were lost or doubled" >&2
    return 1
  }
}
loses_each_host() {
  local kind gone leads
  for kind in none consul redis swarm; do
    gone=$(leader_of "$kind")
    [ -n "$gone" ] || {
      echo "nobody leads, or each replica is on the Swarm's leader: $kind" >&2
      return 1
    }
    # Who leads the Swarm as well waits for its election.
    leads=$kind
    [ "$gone" != "$(leader_of swarm)" ] || leads=swarm
    loses_power "$leads" "$gone" || return 1
    lab power-on "$gone" || return 1
    whole_again || return 1
  done
}
# Every task that is wanted runs, for ten seconds; then Consul and Redis of the host that came back have caught up.
whole_again() {
  local well=0
  for _ in $(seq 120); do
    well=$((well + 1))
    docker service ls --format '{{.Replicas}}' | awk '{ split($1, n, "/"); if (n[1] != n[2]) bad = 1 } END { exit bad }' || well=0
    [ "$well" -lt 10 ] || return 0
    sleep 1
  done
  docker service ls >&2
  return 1
}
step "the reference deployment from its stack file" deployed logs_in unchanged found confined by_certificates second_site worked_on removed
if [ "$mode" = --long ]; then
  step "each host of the reference deployment loses its power" deployed logs_in loses_each_host
  step "the reference deployment is saved, lost, and put back" deployed logs_in saved_and_put_back
  for front in own nginx haproxy; do
    step "demo on three plain engines, in front: $front" in_lab --no-swarm demo --platform engines --gateway "$front"
  done
  step "every fault on a Swarm of three hosts" in_lab "" faults --platform swarm
  step "faults at random, for ten minutes" in_lab "" faults --platform swarm --random --minutes 10 --seed "$seed"
fi

printf '\n%d passed, 0 failed\n' "$passed"
