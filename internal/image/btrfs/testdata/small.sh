#!/bin/sh -e
# Makes small.img.zst, as root. A file of each layout is in it, a subvolume and a snapshot.
dir=$(mktemp -d)
img=$dir/small.img mnt=$dir/mnt
mkdir "$mnt"
truncate -s 24M "$img"
mkfs.btrfs -q -f --mixed -n 4k -U 0b7d2a6e-3f0c-4c4e-9a55-2f1f3c0d9e11 "$img"
mount -o loop "$img" "$mnt"
(
	cd "$mnt"
	mkdir folder
	seq 1 3000 >plain
	echo inline >folder/inline
	ln -s folder/inline link
	mknod null c 1 3
	btrfs -q subvolume create sub
	echo in >sub/file
	btrfs -q subvolume snapshot -r sub snapshot
	truncate -s 1M holes
	echo x >>holes
	fallocate -l 100K ahead
	for i in $(seq 1 60); do echo "$i" >"folder/file$i"; done
)
umount "$mnt"
for how in lzo zlib zstd; do
	mount -o "loop,compress-force=$how" "$img" "$mnt"
	seq 1 30000 >"$mnt/$how"
	seq 1 150 >"$mnt/$how-inline"
	umount "$mnt"
done
zstd -19 -q -f "$img" -o "$(dirname "$0")/small.img.zst"
rm -r "$dir"
