#!/bin/sh
# Lays out the image's root file system: assemble.sh FOLDER PROGRAM. The Dockerfile runs it in its build stage, a test of
# this repository runs it for a folder that it then enters. PROGRAM is the built `kara`.
set -eu
root=$1
program=$2

# The names that the one program is called by.
names="server cli benchmark check-rdb check-aof"

mkdir -p "$root/usr/local/bin" "$root/etc" "$root/data" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$program" "$root/usr/local/bin/kara"
chmod 755 "$root/usr/local/bin/kara"
for family in kara valkey redis; do
    for name in $names; do
        ln -sf kara "$root/usr/local/bin/$family-$name"
    done
done
# A name that this build doesn't know would start a server: better no such program.
case "$("$root/usr/local/bin/valkey-cli" --version </dev/null)" in
    "Valkey server"*) rm "$root"/usr/local/bin/*-cli ;;
esac
ln -sf kara "$root/usr/local/bin/kara-entrypoint"
ln -sf kara "$root/usr/local/bin/kara-health"

# The C library and what else the program is linked with, under the paths that it looks for them.
ldd "$program" | sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

echo 'kara:x:1000:1000:Kara:/data:/usr/local/bin/kara' >"$root/etc/passwd"
echo 'kara:x:1000:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# Whoever mounts a volume here decides whose it is (fsGroup in Kubernetes); without one it is the image's user's.
chown 1000:1000 "$root/data" 2>/dev/null || chmod 777 "$root/data"
