#!/usr/bin/env bash
# What holds for the crates as packages, beside their tests.
#
#   ./check.sh            everything below
#   ./check.sh deny       licences, sources, and that one crate owns each outside dependency (deny.toml; needs cargo-deny)
#   ./check.sh unused     no dependency that no source file names
#   ./check.sh features   each library builds with no feature, with each feature alone, and with all
#   ./check.sh book       the guide is one (mdBook), and each of its pages is in its summary (needs mdbook)
#   ./check.sh package    each library is a whole package: what would be uploaded builds by itself
#
# Nothing is asked of the net that is not in cargo's store already: run `cargo fetch` once before.
set -euo pipefail
cd "$(dirname "$0")"

libraries=(swarm-client consul-client session-store balancer autoscaler)
programs=(examples/ha-stack examples/web examples/lab)
export CARGO_TARGET_DIR=$PWD/target

deny() {
  command -v cargo-deny >/dev/null || {
    echo "check.sh: cargo-deny is missing: cargo install cargo-deny --locked" >&2
    return 1
  }
  cargo deny --offline --locked check licenses bans sources
}

# The names in a section of a manifest.
names() { # manifest, section
  sed -n "/^\[$2\]\$/,/^\[/p" "$1" | sed -n 's/^\([A-Za-z0-9_-]*\)[. ].*=.*/\1/p'
}

unused() {
  local folder manifest dependency word failed=0
  for folder in "${libraries[@]}" "${programs[@]}"; do
    manifest=$folder/Cargo.toml
    for dependency in $({ names "$manifest" dependencies; names "$manifest" dev-dependencies; } | sort -u); do
      word=${dependency//-/_}
      grep -rqE "\b$word(::|;|!| as )" --include='*.rs' --include='*.md' "$folder" || {
        echo "check.sh: no file of $folder names $dependency: take it out of $manifest" >&2
        failed=1
      }
    done
  done
  return "$failed"
}

features() {
  local library feature
  for library in "${libraries[@]}"; do
    echo "$library: no feature"
    cargo check --quiet --locked --offline -p "$library" --lib --no-default-features
    for feature in $(names "$library/Cargo.toml" features); do
      [ "$feature" = default ] && continue
      echo "$library: $feature alone"
      cargo check --quiet --locked --offline -p "$library" --lib --no-default-features --features "$feature"
    done
    echo "$library: all features"
    cargo check --quiet --locked --offline -p "$library" --lib --all-features
  done
}

book() {
  local page failed=0
  for page in docs/src/*.md; do
    page=${page##*/}
    [ "$page" = SUMMARY.md ] || grep -q "($page)" docs/src/SUMMARY.md || {
      echo "check.sh: docs/src/$page is not in docs/src/SUMMARY.md" >&2
      failed=1
    }
  done
  command -v mdbook >/dev/null || {
    echo "check.sh: mdbook is missing: cargo install mdbook --locked" >&2
    return 1
  }
  mdbook build docs && return "$failed"
}

package() {
  local library
  for library in "${libraries[@]}"; do
    # The tree need not be clean: what is checked is what is there.
    cargo package --quiet --locked --offline --allow-dirty -p "$library"
    for file in README.md CHANGELOG.md src/lib.rs; do
      cargo package --quiet --locked --offline --allow-dirty --list -p "$library" | grep -qx "$file" || {
        echo "check.sh: the package $library has no $file" >&2
        return 1
      }
    done
  done
}

parts=("$@")
[ "${#parts[@]}" -gt 0 ] || parts=(deny unused book features package)
for part in "${parts[@]}"; do
  case $part in
    deny | unused | book | features | package) ;;
    *)
      echo "check.sh: there is no $part; use deny, unused, book, features, package, or nothing for all" >&2
      exit 2
      ;;
  esac
  printf '==> %s\n' "$part"
  began=$SECONDS
  "$part" || { printf '==> %s: FAILED\n' "$part" >&2; exit 1; }
  printf '==> %s: passed (%d s)\n' "$part" "$((SECONDS - began))"
done
