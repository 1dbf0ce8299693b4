# mount(8) with mount.kura in /sbin, seen by this process and its children alone: mount8.sh DIRECTORY KURA HELPER
set -eu
dir=$1 kura=$2
cd "$dir"
mount -t tmpfs -o mode=755 none "$(realpath /sbin)"
install -m 755 "$3" /sbin/mount.kura
# /dev/fuse is everybody's, as it is on most machines.
mknod -m 666 fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
export KURA_PROGRAM="$kura"
chmod 755 "$dir"
mkdir data nobodys cache
chmod 777 nobodys
printf 'correct horse battery' >'pass word'
KURA_STATE_DIR=$dir/state KURA_CACHE_DIR=$dir/cache KURA_PASSPHRASE_FILE="pass word" \
  "$kura" init --quiet --kdf-memory-mib 8 "$dir/my store" >/dev/null
options="state_dir=$dir/state,cache_dir=$dir/cache,passphrase_file=$dir/pass word"
field() { printf %s "$1" | sed 's/ /\\040/g'; }
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
fail() {
  echo "FAILED: $1"
  exit 1
}

# By root, on the command line.
said=$(mount -t kura "$dir/my store" "$dir/data" -o "noatime,$options")
[ -z "$said" ] || fail "it says $said"
[ "$(findmnt -no FSTYPE data)" = fuse.kura ] || fail "findmnt does not know it"
echo hello >data/f
umount data

# By fstab, as systemd and `mount -a` do.
line="$(field "$dir/my store") $dir/data kura _netdev,nofail,x-systemd.automount,$(field "$options") 0 0"
printf '%s\n' "$line" >fstab
mount -f -T fstab data
! mountpoint -q data || fail "-f only looks"
mount -a -T fstab -O _netdev
[ "$(cat data/f)" = hello ] || fail "the file is not there"
! mount -T fstab data 2>twice || fail "it is mounted twice"
grep -q "mounted at $dir/data already" twice || fail "$(cat twice)"
umount data
mount -T fstab data -o ro
! touch data/g 2>/dev/null || fail "it is not read-only"
umount data
! mount -t kura "$dir/my store" "$dir/data" -o "frobnicate,$options" 2>unknown || fail "an unknown option is taken"
grep -q frobnicate unknown || fail "$(cat unknown)"

# For another user, whose state and key it is.
waited=0
while [ -n "$(find state -name '*.json' -path '*mounts*')" ] && [ $waited -lt 600 ]; do
  sleep 0.1
  waited=$((waited + 1))
done
chown -R 65534:65534 state cache 'my store' 'pass word'
mount -t kura "$dir/my store" "$dir/nobodys" -o "as=nobody,$options"
[ "$(as_nobody cat nobodys/f)" = hello ] || fail "the user does not see it"
! ls nobodys 2>/dev/null || fail "root sees it, whom nobody let in"
umount nobodys

# By an ordinary user, where fstab allows it.
printf '%s %s kura noauto,user,%s 0 0\n' "$(field "$dir/my store")" "$dir/nobodys" "$(field "$options")" >fstab
mount --bind fstab /etc/fstab
as_nobody mount "$dir/nobodys"
[ "$(as_nobody cat nobodys/f)" = hello ] || fail "the user does not see what is mounted by fstab"
as_nobody umount "$dir/nobodys"
! mountpoint -q nobodys || fail "it is mounted still"
echo "all is well"
