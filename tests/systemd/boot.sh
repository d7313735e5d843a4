# Boots the systemd of this computer as process 1 of namespaces of its own, on an overlay of the
# root file system: what happens there is gone with it. Called by booted.py inside `unshare`.
#   boot.sh FOLDER    FOLDER: an empty one; FOLDER/root becomes the root
set -e
folder=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
echo 0123456789abcdef0123456789abcdef > etc/machine-id
rm -rf etc/systemd/system
mkdir -p etc/systemd/system mnt
# Nothing of this computer is wanted but a manager, its journal and basic.target.
for unit in systemd-udevd systemd-networkd systemd-timesyncd systemd-resolved systemd-logind \
    systemd-remount-fs systemd-modules-load systemd-sysctl; do
  ln -s /dev/null "etc/systemd/system/$unit.service"
done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > etc/systemd/system/booted.target
pivot_root . mnt
exec chroot . env -i container=recd-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=booted.target --log-target=journal
