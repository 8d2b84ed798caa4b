#!/usr/bin/env bash
# Which versions of the servers the tests pass against, as a table.
#
#   ./versions.sh [--keep] [SERVER...]    servers: redis-7.0 redis-8.0 valkey-8.1 valkey-9 docker-20.10 docker-26.1 docker-28;
#                                         all of them without a name
#
# Each server comes from the packages of a Debian release, in a root file system of its own (debootstrap, in the folder ha-stack-versions of
# $VERSIONS_DIR or /var/lib, which is removed at the end unless --keep is given). Against a Redis or Valkey the live tests of session-store are run;
# for a Docker the whole lab lives in that root, and the tests of the libraries on it are run. Consul is in no Debian release after the one
# that has 1.8. Needs root. Ends with an error if a test fails: the row says so too.
set -euo pipefail
cd "$(dirname "$0")"

roots=${VERSIONS_DIR:-/var/lib}/ha-stack-versions
keep=
declare -A suite=([redis-7.0]=bookworm [redis-8.0]=trixie [valkey-8.1]=trixie [valkey-9]=forky
  [docker-20.10]=bookworm [docker-26.1]=trixie [docker-28]=forky)
order=(redis-7.0 redis-8.0 valkey-8.1 valkey-9 docker-20.10 docker-26.1 docker-28)
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
  local at
  for at in "${mounted[@]}"; do umount "$at" 2>/dev/null || true; done
  # A root that is still mounted somewhere is never removed from below.
  [ -n "$keep" ] || ! [ -d "$roots" ] || findmnt -rn -o TARGET | grep -q "^$roots/" || rm -rf "$roots"
}
trap clean EXIT

bind() { # folder of this machine, root: the same folder there
  local there=$2$1
  mkdir -p "$there"
  mountpoint -q "$there" && return
  mount --bind "$1" "$there"
  mounted+=("$there")
}

# A root file system of a release, with these packages in it.
root_of() { # root, release, packages
  local root=$1 script=()
  # Releases that this debootstrap does not know yet are made as sid is.
  [ -e "/usr/share/debootstrap/scripts/$2" ] || script=(/usr/share/debootstrap/scripts/sid)
  if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include="$3" "$2" "$root" "$mirror" "${script[@]}" >"$root.log" 2>&1 || {
      echo "versions.sh: no root file system of $2; the end of $root.log:" >&2
      tail -n 5 "$root.log" >&2
      return 1
    }
    touch "$root/made"
  fi
  # Where tests keep what they give their servers.
  bind /tmp "$root"
}

# How many of the tests passed and failed, over all programs that ran.
counted() { # what cargo said
  sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$1" |
    awk '{ passed += $1; failed += $2; any = 1 } END { if (any) print passed " passed, " failed " failed" }'
}

# The live tests of session-store, with a Redis or Valkey of that root.
sessions() { # root, kind, where cargo's words go
  local part programs=$1.programs
  mkdir -p "$programs"
  for part in server sentinel; do
    printf '#!/bin/sh\nexec chroot %s /usr/bin/%s-%s "$@"\n' "$1" "$2" "$part" >"$programs/redis-$part"
    chmod 755 "$programs/redis-$part"
  done
  version=$("$programs/redis-server" --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')
  PATH=$programs:$PATH timeout 900 cargo test "${build[@]}" --test live -p session-store -- --ignored --test-threads=1 >"$3" 2>&1
}

# The lab and the libraries on it, all of it in that root: engines, command lines and the tests themselves.
lab() { # root, where cargo's words go
  local root=$1 exports host
  version=$(chroot "$root" dockerd --version | sed -n 's/^Docker version \([0-9.]*\).*/\1/p')
  # The whole workspace, as test.sh builds it, so that nothing is built twice.
  cargo test "${build[@]}" --workspace --test libraries --no-run && exports=$("$CARGO_TARGET_DIR/ci/lab" packages) && eval "$exports" || return 1
  install -D "$CONSUL_BIN" "$root/usr/local/bin/consul" || return 1
  # Not chroot: whoever enters a host of the lab gets the root of its mount namespace. All mounts end with the last process in there.
  cat >"$root.runner" <<EOF
#!/bin/sh
exec unshare --mount --propagation private /bin/sh -c '
  set -e
  mount --rbind "$root" "$root"
  for folder in /proc /sys /dev /tmp "$PWD"; do
    mkdir -p "$root\$folder"
    mountpoint -q "$root\$folder" || mount --rbind "\$folder" "$root\$folder"
  done
  there=\$PWD
  cd "$root"
  mkdir -p before
  pivot_root . before
  umount -l before
  cd "\$there"
  exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "\$@"
' sh "\$@"
EOF
  chmod 755 "$root.runner"
  host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  env "CARGO_TARGET_${host}_RUNNER=$root.runner" timeout 1800 cargo test "${build[@]}" --workspace --test libraries -- \
    --ignored --test-threads=1 >"$2" 2>&1
}

# The one that this machine's own packages come from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)

export CARGO_TARGET_DIR=$PWD/target
build=(--profile ci --all-features --quiet --no-fail-fast)

mkdir -p "$roots"
rows=("| server | from | tests |" "|---|---|---|")
failed=
for server in "${wanted[@]}"; do
  release=${suite[$server]} kind=${server%-*} out=$(mktemp) version=
  case $kind in
    docker)
      packages=docker.io,redis-server,redis-sentinel,keepalived,iproute2,iptables,e2fsprogs,hostname,mount,procps,perl,curl,docker-registry
      [ "$release" = bookworm ] || packages+=,docker-cli
      what="the libraries on the lab"
      root_of "$roots/docker-$release" "$release" "$packages"
      lab "$roots/docker-$release" "$out" || { failed=1; tail -n 200 "$out" >&2; }
      ;;
    *)
      packages=redis-server,redis-sentinel
      [ "$release" = bookworm ] || packages+=,valkey-server,valkey-sentinel
      what="session-store, live"
      root_of "$roots/$release" "$release" "$packages"
      sessions "$roots/$release" "$kind" "$out" || { failed=1; tail -n 40 "$out" >&2; }
      ;;
  esac
  [[ $version == "${server#*-}"* ]] || echo "versions.sh: $release has $kind $version by now, not ${server#*-}" >&2
  count=$(counted "$out")
  rows+=("| $kind $version | Debian $release | $what: ${count:-none ran} |")
  [ -n "$count" ] || failed=1
  rm -f "$out"
done
printf '%s\n' "${rows[@]}"
[ -z "$failed" ]
