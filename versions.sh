#!/usr/bin/env bash
# Which versions of the servers the tests pass against, as a table.
#
#   ./versions.sh [--keep] [SERVER...]    servers: redis-7.0 redis-8.0 valkey-8.1 valkey-9; all of them without a name
#
# Each server comes from the packages of a Debian release, in a root file system of its own (debootstrap, in the folder ha-stack-versions of
# $VERSIONS_DIR or /var/lib, which is removed at the end unless --keep is given), and the live tests of session-store run against it. Needs root. Ends
# with an error if a test fails: the row says so too.
set -euo pipefail
cd "$(dirname "$0")"

roots=${VERSIONS_DIR:-/var/lib}/ha-stack-versions
keep=
declare -A suite=([redis-7.0]=bookworm [redis-8.0]=trixie [valkey-8.1]=trixie [valkey-9]=forky)
order=(redis-7.0 redis-8.0 valkey-8.1 valkey-9)
wanted=()
for argument in "$@"; do
  if [ "$argument" = --keep ]; then
    keep=1
  elif [ -n "${suite[$argument]:-}" ]; then
    wanted+=("$argument")
  else
    echo "versions.sh: there is no server '$argument'; servers: ${order[*]}" >&2
    exit 2
  fi
done
[ "${#wanted[@]}" -gt 0 ] || wanted=("${order[@]}")
[ "$(id -u)" -eq 0 ] || {
  echo "versions.sh: run it as root: it makes root file systems and enters them" >&2
  exit 1
}
command -v debootstrap >/dev/null || {
  echo "versions.sh: debootstrap is missing: apt-get install debootstrap" >&2
  exit 1
}

mounted=()
clean() {
  local root
  for root in "${mounted[@]}"; do umount "$root/tmp" 2>/dev/null || true; done
  # A root that is still mounted somewhere is never removed from below.
  [ -n "$keep" ] || ! [ -d "$roots" ] || findmnt -rn -o TARGET | grep -q "^$roots/" || rm -rf "$roots"
}
trap clean EXIT

# A root file system of a release, with the servers in it.
root_of() { # suite
  local root=$roots/$1 packages=redis-server,redis-sentinel script=()
  [ "$1" = bookworm ] || packages+=,valkey-server,valkey-sentinel
  # Releases that this debootstrap does not know yet are made as sid is.
  [ -e "/usr/share/debootstrap/scripts/$1" ] || script=(/usr/share/debootstrap/scripts/sid)
  if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include="$packages" "$1" "$root" "$mirror" "${script[@]}" >"$roots/$1.log" 2>&1 || {
      echo "versions.sh: no root file system of $1; the end of $roots/$1.log:" >&2
      tail -n 5 "$roots/$1.log" >&2
      return 1
    }
    touch "$root/made"
  fi
  if ! mountpoint -q "$root/tmp"; then
    # Where tests keep what they give their servers.
    mount --bind /tmp "$root/tmp"
    mounted+=("$root")
  fi
}
# The one that this machine's own packages come from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)

mkdir -p "$roots"
rows=("| server | from | live tests of session-store |" "|---|---|---|")
failed=
for server in "${wanted[@]}"; do
  release=${suite[$server]}
  root_of "$release"
  root=$roots/$release kind=${server%-*} programs=$roots/$server
  mkdir -p "$programs"
  for part in server sentinel; do
    printf '#!/bin/sh\nexec chroot %s /usr/bin/%s-%s "$@"\n' "$root" "$kind" "$part" >"$programs/redis-$part"
    chmod 755 "$programs/redis-$part"
  done
  version=$("$programs/redis-server" --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')
  [[ $version == "${server#*-}"* ]] || echo "versions.sh: $release has $kind $version by now, not ${server#*-}" >&2
  out=$(mktemp)
  PATH=$programs:$PATH timeout 900 cargo test --quiet -p session-store --all-features --test live -- \
    --ignored --test-threads=1 >"$out" 2>&1 || { failed=1; tail -n 40 "$out" >&2; }
  count=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' "$out" | tail -n 1)
  rows+=("| $kind $version | Debian $release | ${count:-none ran} |")
  [ -n "$count" ] || failed=1
  rm -f "$out"
done
printf '%s\n' "${rows[@]}"
[ -z "$failed" ]
