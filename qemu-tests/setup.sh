#!/usr/bin/env bash
# Installs the Debian 12 packages for the demonstration and the tests, as root. Does nothing if all are installed.
set -euo pipefail
packages=(
    aria2 btrfs-progs busybox-static ca-certificates chromium chromium-driver cpio dnsmasq-base dosfstools
    e2fsprogs exfatprogs f2fs-tools fdisk fuse3 gcc gdisk grub-common grub-efi-amd64-bin grub-efi-amd64-signed
    grub-pc-bin iproute2 ipxe ipxe-qemu kmod libc6-dev libnbd-bin lvm2 minisign mtools nbdkit
    nbdkit-plugin-python ntfs-3g openssl ovmf partclone parted python3-libtorrent qemu-system-x86 qemu-utils
    sbsigntool seabios shim-signed systemd-boot-efi transmission-cli xfsprogs xorriso zstd
)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: run this as root; it installs: ${missing[*]}" >&2; exit 2; }
    echo "setup: installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v cargo >/dev/null || { echo "setup: cargo is missing; install Rust by rustup first" >&2; exit 2; }
# rust-toolchain.toml names the musl target; `rustup show` installs them if they are missing.
if command -v rustup >/dev/null; then
    rustup target add x86_64-unknown-linux-musl >/dev/null 2>&1 || rustup target add x86_64-unknown-linux-musl
fi
