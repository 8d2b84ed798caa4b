#!/usr/bin/env bash
# Benchmarks beside peers, in one run, alternating.
#
#   ./bench.sh TOPIC [--json] [options of the topic]     the topics are the folders in examples/bench
#
# A topic's `packages` file names the Debian packages that it needs; missing ones are installed, as root or through sudo,
# which is said first. The last line of standard output with --json is one object of figures.
set -euo pipefail
cd "$(dirname "$0")"

bench=examples/bench
topics() { (cd "$bench" && for f in */Cargo.toml; do [ -e "$f" ] && printf '%s ' "${f%/*}"; done); }

topic=${1:-}
if [ -z "$topic" ] || [ ! -e "$bench/$topic/Cargo.toml" ]; then
  echo "bench.sh: there is no topic '$topic'; topics: $(topics)" >&2
  exit 2
fi
shift

missing=()
if [ -e "$bench/$topic/packages" ]; then
  while read -r package; do
    case $package in '' | '#'*) continue ;; esac
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done <"$bench/$topic/packages"
fi
if [ "${#missing[@]}" -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  echo "bench.sh: installing ${missing[*]} (Debian packages; as root)" >&2
  "${root[@]}" apt-get update -qq
  # A package that starts a service at installation must not do so here.
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

exec cargo run --release --quiet --manifest-path "$bench/Cargo.toml" --package "bench-$topic" -- "$@"
