#!/usr/bin/env bash
# Installs the Debian 12 packages for the demonstration and the tests, as root. Does nothing if all are installed
# and apt's lists are younger than a day.
set -euo pipefail
packages=(
    aria2 btrfs-progs busybox-static ca-certificates chromium chromium-driver cpio curl dnsmasq-base dosfstools
    e2fsprogs exfatprogs f2fs-tools fdisk fuse3 gcc gdisk git grub-common grub-efi-amd64-bin
    grub-efi-amd64-signed grub-pc-bin iproute2 ipxe ipxe-qemu kmod libc6-dev libnbd-bin lvm2 minisign mtools
    nbdkit nbdkit-plugin-python ntfs-3g openssh-client openssl ovmf partclone parted python3-libtorrent
    qemu-system-x86 qemu-utils sbsigntool seabios shellcheck shim-signed systemd-boot-efi
    transmission-cli wget xfsprogs xorriso zstd
)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done

# Fetches apt's lists, at most 10 minutes after another program, such as unattended-upgrades, locked them.
fetch_lists() {
    local said waited=0
    until said=$(LC_ALL=C apt-get update -qq 2>&1); do
        if [[ $said != *"Could not get lock"* ]] || [ $((waited += 5)) -gt 600 ]; then
            echo "$said" >&2
            return 1
        fi
        sleep 5
    done
    [ -z "$said" ] || echo "$said" >&2
}

if [ "${#missing[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: run this as root; it installs: ${missing[*]}" >&2; exit 2; }
    echo "setup: installing ${missing[*]}"
    fetch_lists
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
elif [ "$(id -u)" = 0 ] && [ -z "$(find /var/lib/apt/lists/partial -prune -mtime -1 2>/dev/null)" ]; then
    # The tests download the kernel that the lists name, and a mirror keeps only the newest. Without a network
    # they use the kernel that an earlier run downloaded.
    fetch_lists || echo "setup: apt's lists stay old" >&2
fi
command -v cargo >/dev/null || { echo "setup: cargo is missing; install Rust by rustup first" >&2; exit 2; }
# rust-toolchain.toml names the musl target; `rustup show` installs them if they are missing.
if command -v rustup >/dev/null; then
    rustup target add x86_64-unknown-linux-musl >/dev/null 2>&1 || rustup target add x86_64-unknown-linux-musl
fi
