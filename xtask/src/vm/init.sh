#!/usr/bin/busybox sh
# First process of a test machine. Results go to the second serial port, the kernel's words to the first.
b=/usr/bin/busybox
export PATH=/usr/sbin:/usr/bin HOME=/root RUST_BACKTRACE=1
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
$b mount -t tmpfs none /run
$b mount -t tmpfs none /tmp
$b mount -t bpf none /sys/fs/bpf
$b mount -t cgroup2 none /sys/fs/cgroup
$b mount -t securityfs none /sys/kernel/security 2>/dev/null
exec </dev/null >/dev/ttyS1 2>&1
$b stty -F /dev/ttyS1 raw
while read -r module; do
    $b insmod "/modules/$module" || echo "cannot load $module"
done </modules/order
/usr/sbin/ip link set lo up
echo "@@ kernel $($b uname -r)"
# Behind a pipe no program takes the serial port for a terminal to draw on.
while read -r name command; do
    echo "@@ begin $name"
    { sh -c "$command" 2>&1; echo "@@ end $name $?"; } | $b cat
done </jobs
echo "@@ done"
$b poweroff -f
