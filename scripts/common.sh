# SPDX-License-Identifier: GPL-2.0-or-later
# Shell functions shared by the scripts here; sourced, never run.
# shellcheck shell=bash

# Prints "[  12s] text": every line of progress carries the time since the script began.
say() {
  printf '[%4ds] %s\n' "$SECONDS" "$*"
}

# Prints what failed, why and what to do next, and ends the script.
die() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 needs root: run it with sudo"
}

# step LOG TEXT CMD…: runs CMD with its output in LOG, and says how long it took. On failure shows the end of the log and ends the
# script. CMD is in a process group of its own, and this shell only waits: so INT, TERM and HUP are heard at once, end all of CMD,
# and then the script (whose EXIT trap cleans up).
step() {
  local log=$1 text=$2 began=$SECONDS status=0 traps
  shift 2
  say "$text …"
  printf '\n==== %s: %s\n' "$text" "$*" >>"$log"
  traps=$(trap -p INT TERM HUP)
  trap 'step_interrupted 130' INT
  trap 'step_interrupted 143' TERM
  trap 'step_interrupted 129' HUP
  set -m
  (
    set +m
    "$@"
  ) >>"$log" 2>&1 </dev/null &
  step_pid=$!
  set +m
  wait "$step_pid" || status=$?
  trap - INT TERM HUP
  eval "$traps"
  if [ "$status" != 0 ]; then
    printf -- '---- the last lines of %s:\n' "$log" >&2
    tail -n 25 "$log" >&2
    die "$text: failed with status $status (whole log: $log)"
  fi
  say "$text: done in $((SECONDS - began)) s"
}

step_interrupted() { # STATUS
  local i
  trap '' INT TERM HUP
  kill -TERM -- "-$step_pid" 2>/dev/null || true
  for ((i = 0; i < 50; i++)); do
    kill -0 -- "-$step_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$step_pid" 2>/dev/null || true
  exit "$1"
}

# retry TIMES CMD…: mirrors fail now and then for reasons that are gone a few seconds later.
retry() {
  local times=$1 try
  shift
  for ((try = 1; ; try++)); do
    if "$@"; then
      return 0
    fi
    [ "$try" -lt "$times" ] || return 1
    echo "try $try of $times failed: $*; again in $((try * 5)) s" >&2
    sleep $((try * 5))
  done
}

apt_quiet() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# Package lists that are absent or older than a day are fetched again: an old list names files that the mirror has dropped.
apt_lists_fresh() {
  [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -1440 -print -quit 2>/dev/null)" ]
}

# host_packages LOG PACKAGE[>=VERSION]…: installs on this machine what is missing. Asks the network for nothing if nothing is.
host_packages() {
  local log=$1 want package least have missing=()
  shift
  for want in "$@"; do
    package=${want%%>=*}
    least=
    case $want in *'>='*) least=${want#*>=} ;; esac
    have=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null) || have=
    case $have in
    'installed '*)
      if [ -z "$least" ] || dpkg --compare-versions "${have#installed }" ge "$least"; then
        continue
      fi
      ;;
    esac
    missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_root "installing ${missing[*]}"
  if ! apt_lists_fresh; then
    step "$log" "apt-get update" retry 3 apt_quiet update
  fi
  step "$log" "installing ${missing[*]}" retry 3 apt_quiet install --no-install-recommends "${missing[@]}"
}

# Sets fixed_addresses to what sanitised programs of Debian 12's compilers have to be started with on kernels that randomise addresses
# by more than 28 bits: there they end at once now and then.
# shellcheck disable=SC2034 # for who sources this
sanitizer_wrapper() {
  fixed_addresses=()
  if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] && setarch -R true 2>/dev/null; then
    fixed_addresses=(setarch -R)
  fi
}

# What the build and the tests need on this machine, apart from what the lab brings. debian-archive-keyring from this version on
# knows the keys that sign Debian 13.
# shellcheck disable=SC2034 # used by who sources this
DOMYBS_BUILD_PACKAGES=(build-essential meson ninja-build pkg-config libglib2.0-dev libjson-glib-dev libseccomp-dev libvirt-dev libxml2-dev
  liburing-dev libnbd-dev liblz4-dev libgnutls28-dev)
# shellcheck disable=SC2034
DOMYBS_TEST_PACKAGES=(clang libclang-rt-dev valgrind spin nbdkit libnbd-bin fio qemu-utils iproute2)
# shellcheck disable=SC2034
DOMYBS_LAB_PACKAGES=(mmdebstrap 'debian-archive-keyring>=2023.3+deb12u2' util-linux iproute2)
