# SPDX-License-Identifier: GPL-2.0-or-later
# The part of scripts/lab that makes hosts; sourced by it, never run.
# shellcheck shell=bash
#
# A host is the lab with a writable layer in memory, and mount, process, network and host name spaces of its own: what runs in
# there is a process of that host, and all of it ends when its first process does. A real libvirtd runs there without systemd.
#
# FOLDER, in /tmp, is where the outside meets it, at the same path inside:
#   pid    the host's first process, as the outside numbers it: /proc/PID/root is the host's root
#   log/   the host's /var/log
# shellcheck disable=SC2154 # lab, self, repository, use_lock are set by scripts/lab

host_usage() {
  cat <<'END_OF_USAGE'
Usage: scripts/lab host start FOLDER [--install BUILD]
       scripts/lab host serve FOLDER [--install BUILD]
       scripts/lab host run FOLDER COMMAND [ARGUMENT…]
       scripts/lab host libvirtd FOLDER start|stop|kill
       scripts/lab host stop FOLDER

A host of its own with a running libvirtd, made of the lab in about a second; FOLDER, in /tmp, is made if need be.

  start     makes it and returns when libvirtd answers; the host lives until stop
  serve     the same in the foreground: the host ends with this process, and this process with the host
  run       runs COMMAND there (in place of this script), as root
  libvirtd  starts, ends (SIGTERM), or kills (SIGKILL) libvirtd there, while VMs run on; returns when that is done
  stop      ends every process of it; what was written there is gone, apart from FOLDER

--install puts what meson has built in the folder BUILD into the host, as 'meson install' does.
END_OF_USAGE
}

host_command() { # COMMAND FOLDER …
  case ${1-} in
  -h | --help | help | '')
    host_usage
    return
    ;;
  start | serve | run | libvirtd | stop | init) ;;
  *) die "no command 'host $1' (see: scripts/lab host --help)" ;;
  esac
  local command=$1 folder=${2-}
  [ -n "$folder" ] || die "host $command: no folder given (see: scripts/lab host --help)"
  need_root "scripts/lab host"
  folder=$(readlink -m "$folder")
  case $folder in /tmp/*) ;; *) die "host $command: $folder is not in /tmp, which is all that hosts share" ;; esac
  shift 2
  "host_$command" "$folder" "$@"
}

# The host's first process. Its number may have gone to another process since, which then has no such environment.
host_pid() { # FOLDER
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "DOMYBS_LAB_HOST=$1" || return 1
  echo "$pid"
}

need_host() { # FOLDER
  host_pid "$1" || die "no host runs in $1 (see: scripts/lab host start)"
}

host_serve() { # FOLDER [--install BUILD]
  local folder=$1 build=
  shift
  while [ $# -gt 0 ]; do
    case $1 in
    --install)
      build=$(readlink -m "${2-}")
      [ -e "$build/build.ninja" ] || die "--install wants a folder in which meson has built, not '${2-}'"
      ;;
    *) die "host: no option '$1' (see: scripts/lab host --help)" ;;
    esac
    shift
    shift || true
  done
  ! host_pid "$folder" >/dev/null || die "a host runs in $folder already"
  ensure_lab >&2
  lock_lab
  mkdir -p "$folder"
  rm -rf "$folder/pid" "$folder/ready" "$folder/log"
  # QEMU's user has to find its way to sockets and images in there
  chmod 711 "$folder"
  mkdir -p "$folder/log/libvirt/qemu"
  DOMYBS_LAB_HOST=$folder DOMYBS_LAB_HOST_BUILD=$build DOMYBS_LAB_HOST_ACCELERATOR=$(find_accelerator) \
    exec unshare --mount --propagation private --pid --fork --kill-child --net --uts -- "$self" host init "$folder"
}

host_start() { # FOLDER …
  local folder=$1 serving i
  ! host_pid "$folder" >/dev/null || die "a host runs in $folder already"
  mkdir -p "$folder"
  setsid "$self" host serve "$@" >"$folder/serve.log" 2>&1 </dev/null &
  serving=$!
  for ((i = 0; i < 600; i++)); do
    [ ! -e "$folder/ready" ] || [ -z "$(host_pid "$folder")" ] || return 0
    if ! kill -0 "$serving" 2>/dev/null; then
      cat "$folder/serve.log" >&2
      die "the host in $folder did not start"
    fi
    sleep 0.05
  done
  cat "$folder/serve.log" >&2
  host_stop "$folder"
  die "the host in $folder did not start within 30 s"
}

host_run() { # FOLDER CMD…
  local pid
  pid=$(need_host "$1")
  shift
  [ $# -gt 0 ] || die "host run: no command given"
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  exec nsenter --target "$pid" --mount --pid --net --uts --root -- env --chdir=/ "$@"
}

host_libvirtd() { # FOLDER WHAT
  host_run "$1" /usr/local/sbin/lab-libvirtd "${2-}"
}

host_stop() { # FOLDER
  local pid i
  pid=$(host_pid "$1") || return 0
  kill -KILL "$pid" 2>/dev/null || true
  # The kernel ends the others of the name space first
  for ((i = 0; i < 100; i++)); do
    if ! kill -0 "$pid" 2>/dev/null; then
      rm -f "$1/pid" "$1/ready"
      return 0
    fi
    sleep 0.05
  done
  die "the host in $1 (process $pid) does not end"
}

# ---- inside: process 1 of the host ----

host_init() { # FOLDER
  local folder=$1 work=$1/root root=$1/root/tree outside
  # As the outside sees it: /proc is still the outside's here
  outside=$(awk '{ print $4 }' /proc/self/stat)
  mkdir -p "$work"
  mount -t tmpfs -o mode=755 domybs-host "$work"
  mkdir "$work/upper" "$work/work" "$root"
  # metacopy: libvirt changes the owner of kernels and disks, which is no reason to copy them
  mount -t overlay -o "lowerdir=$lab,upperdir=$work/upper,workdir=$work/work,metacopy=on" domybs-host "$root"
  host_devices "$root/dev"
  mount -t proc proc "$root/proc"
  # Without control groups, which the outside would keep
  mount -t sysfs sysfs "$root/sys"
  mount -t tmpfs -o mode=755 run "$root/run"
  mount --bind /tmp "$root/tmp"
  mount --bind "$folder/log" "$root/var/log"
  mkdir -p "$root$repository"
  mount --bind "$repository" "$root$repository"
  host_configure "$root"
  if [ -n "$DOMYBS_LAB_HOST_BUILD" ]; then
    meson install -C "$DOMYBS_LAB_HOST_BUILD" --no-rebuild --quiet --destdir "$root"
  fi
  ip link set lo up
  hostname domybs-host
  # The root of a name space, so that who enters it is in the host; the lab lies below the layer and stays
  mkdir "$root/mnt/outside"
  cd "$root" || exit 1
  pivot_root . mnt/outside
  umount -l /mnt/outside
  unset DOMYBS_LAB_HOST_BUILD DOMYBS_LAB_HOST_ACCELERATOR
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  # A process's environment shows what it was started with. bash, as process 1, collects the dead.
  # shellcheck disable=SC2016 # expanded there
  exec chroot . env --chdir=/ bash -c '
    lab-libvirtd start || exit 1
    echo "$2" >"$1/pid"
    : >"$1/ready"
    sleep infinity &
    wait $!' host-init "$folder" "$outside"
}

# Devices of its own, so that libvirt may change their owners.
host_devices() { # DEV
  local device
  mount -t tmpfs -o mode=755 dev "$1"
  for device in null zero full random urandom tty net/tun vhost-net; do
    [ -e "/dev/$device" ] || continue
    mkdir -p "$(dirname "$1/$device")"
    cp -a "/dev/$device" "$1/$device"
  done
  if [ "$DOMYBS_LAB_HOST_ACCELERATOR" = kvm ]; then
    cp -a /dev/kvm "$1/kvm"
    chmod 666 "$1/kvm"
  fi
  ln -s /proc/self/fd "$1/fd"
  ln -s fd/0 "$1/stdin"
  ln -s fd/1 "$1/stdout"
  ln -s fd/2 "$1/stderr"
  ln -s pts/ptmx "$1/ptmx"
  mkdir "$1/pts" "$1/shm" "$1/hugepages"
  mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$1/pts"
  mount -t tmpfs -o mode=1777 shm "$1/shm"
  mount -t hugetlbfs hugetlbfs "$1/hugepages"
}

host_configure() { # ROOT
  local root=$1
  # There is no systemd to talk to, no virtlogd, no polkit, no need for mount name spaces within this one
  cat >>"$root/etc/libvirt/qemu.conf" <<'END'
stdio_handler = "file"
namespaces = []
END
  cat >>"$root/etc/libvirt/libvirtd.conf" <<'END'
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
END
  echo '127.0.0.1 localhost domybs-host' >"$root/etc/hosts"
  # The network driver would want dnsmasq for it
  rm -f "$root/etc/libvirt/qemu/networks/autostart/"*
  cat >"$root/usr/local/sbin/lab-libvirtd" <<'END'
#!/bin/bash
# start|stop|kill: libvirtd of this host, and nothing else of it
pid=/run/libvirtd.pid

# gone PROCESS: waits 20 s for its end
gone() {
  local i
  for ((i = 0; i < 400; i++)); do
    [ -e "/proc/$1/exe" ] || return 0
    sleep 0.05
  done
  return 1
}

case $1 in
start)
  LIBVIRT_LOG_OUTPUTS=2:file:/var/log/libvirt/libvirtd.log libvirtd --daemon --pid-file $pid || exit 1
  ;;
stop)
  number=$(cat $pid) && kill -TERM "$number"
  # On a busy machine libvirt 11.3 was seen to hang in its end, where systemd would kill it, too
  gone "$number" || { kill -KILL "$number" && gone "$number"; }
  ;;
kill)
  number=$(cat $pid) && kill -KILL "$number" && gone "$number"
  ;;
*)
  echo "usage: lab-libvirtd start|stop|kill" >&2
  exit 2
  ;;
esac
END
  chmod +x "$root/usr/local/sbin/lab-libvirtd"
}
