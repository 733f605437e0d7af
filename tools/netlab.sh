#!/bin/sh
# Sees to it that the programs of the network laboratory (scenarios/netlab) are there. Run by make; safe to run again.
# As root on Debian or Ubuntu it installs what is missing; elsewhere it says what is missing and how to get it.
set -eu

PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }

missing_packages() {
    command -v ip >/dev/null 2>&1 || printf 'iproute2 '
    command -v nft >/dev/null 2>&1 || printf 'nftables '
    command -v unshare >/dev/null 2>&1 || printf 'util-linux '
    command -v mount >/dev/null 2>&1 || printf 'mount '
}

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "The network laboratory needs $missing: installing"
    # shellcheck disable=SC2086 # several names
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
    missing=$(missing_packages)
    [ -n "$missing" ] || exit 0
fi

say "The network laboratory needs these packages, and they are not there: $missing"
say "On Debian or Ubuntu:  sudo apt-get install $missing"
say "On Fedora:            sudo dnf install iproute nftables util-linux"
say "On Arch:              sudo pacman -S iproute2 nftables util-linux"
exit 1
