# Runs a command as Kubernetes runs the pod: the files of an image as a root that cannot be written, no rights, and
# process 1 of its own. For tools/image/container.mjs, which starts it in namespaces of its own; the mounts end with them.
# Arguments: root, user, group, folder, then mounts as `ro:from:to` or `rw:from:to`, `--`, variables, the command.
set -eu
root=$1 user=$2 group=$3 folder=$4
shift 4

mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,noexec tmpfs "$root/dev"
for device in null zero full random urandom; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
while [ "$1" != -- ]; do
  mode=${1%%:*} to=${1##*:} from=${1#*:}
  mkdir -p "$root$to"
  mount --bind "${from%:*}" "$root$to"
  mount -o "remount,bind,nosuid,nodev,noexec,$mode" "$root$to"
  shift
done
shift
mount -o remount,bind,ro "$root"

# Every step is an exec: the command is process 1 in the end, and signals are its own.
exec chroot "$root" /usr/bin/env -i -C "$folder" /usr/bin/setpriv --reuid "$user" --regid "$group" --clear-groups \
  --bounding-set=-all --inh-caps=-all --no-new-privs -- /usr/bin/env "$@"
