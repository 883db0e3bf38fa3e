#!/bin/busybox sh
# The first process of a guest. Makes the machine's own files its root, which it can read and, as far
# as it can see, write: what is written is in memory, except in /run/guest. Then starts the script there.
/bin/busybox --install -s /bin
export PATH=/bin
fail() {
    echo "init: $*"
    poweroff -f
}
mount -t proc proc /proc || fail "mount /proc"
mount -t sysfs sysfs /sys || fail "mount /sys"
mount -t devtmpfs devtmpfs /dev || fail "mount /dev"
for module in /modules/*; do
    insmod "$module" || fail "load $module"
done
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$options" root /root || fail "mount the machine's files"
mount -t tmpfs -o size=60% tmpfs /upper || fail "mount a tmpfs"
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/root,upperdir=/upper/files,workdir=/upper/work overlay /new ||
    fail "mount the root"
for folder in proc sys dev; do
    mkdir -p "/new/$folder"
    mount -o move "/$folder" "/new/$folder" || fail "move /$folder"
done
mkdir -p /new/run /new/dev/pts /new/dev/shm /new/dev/net
# Whoever opens it has the kernel load its module, as on machines where kmod makes such nodes.
mknod /new/dev/net/tun c 10 200 || fail "make /dev/net/tun"
mount -t devpts devpts /new/dev/pts || fail "mount /dev/pts"
mount -t tmpfs tmpfs /new/dev/shm || fail "mount /dev/shm"
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup || fail "mount cgroups"
mount -t tmpfs tmpfs /new/run || fail "mount /run"
mkdir /new/run/guest
mount -t 9p -o "rw,$options" share /new/run/guest || fail "mount the share"
read -r modules </modules.path
release=$(uname -r)
mkdir -p "/new/lib/modules/$release"
mount -o bind "/new$modules" "/new/lib/modules/$release" || fail "mount the modules of $release"
cp /bin/busybox /new/run/busybox
# The kernel loads modules by this program, which knows by its name what it is to do.
ln -s busybox /new/run/modprobe
echo /run/modprobe >/new/proc/sys/kernel/modprobe
# What drives the hardware, as udev would have loaded it; and what udev knows nothing of.
chroot /new /run/modprobe -a igb igbvf virtio_net rdma_rxe ib_uverbs ib_umad rdma_ucm vfio-pci ||
    fail "load the hardware's modules"
# Tests run in namespaces of their own; what hardware there is, is in this one.
mkdir /new/dev/share
mount -o bind /new/run/guest /new/dev/share || fail "mount the share where tests find it"
touch /new/dev/machine || fail "make /dev/machine"
mount -o bind /new/proc/self/ns/net /new/dev/machine || fail "keep the network namespace"
hostname guest
# The shell of the machine: busybox would run its own programs instead of the ones that are named.
exec switch_root /new /bin/sh /run/guest/run
