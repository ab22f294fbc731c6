#!/bin/sh
# Prints the path of a go command that can build Rackseed, and gets one first if
# the host has none or an older one than Go 1.21, the first that fetches newer
# toolchains by itself (https://go.dev/doc/toolchain): Debian 13's, unpacked into
# the build cache. Nothing is installed, and nothing on the host is changed.
# Before that it looks whether the host has what the targets of make need.
#
# usage: sh build/bootstrap.sh TARGET…
#
# Variables: RACKSEED_DEBIAN_MIRROR, as http://HOST/debian; without it the mirror
# of the host's own apt configuration.
set -eu

say() { echo "bootstrap: $*" >&2; }
fail() { say "$*"; exit 1; }

# new_enough GO: the command runs, and is Go 1.21 or newer.
new_enough() {
	v=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	case $v in
	go1.[0-9] | go1.[0-9].* | go1.1[0-9] | go1.1[0-9].* | go1.20 | go1.20.*) return 1 ;;
	go[1-9]*) return 0 ;;
	esac
	return 1
}

[ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m): Rackseed is built on x86-64 (its tools are Debian's for amd64)"
for need in apt-get apt-cache apt-config dpkg-deb; do
	command -v "$need" >/dev/null || fail "there is no $need: build on Debian 12 or 13, whose packages Rackseed is made of"
done
sh "$(dirname "$0")/packages.sh" "$@" >&2 || exit 1

# room FOLDER WAYOUT: it, or where it will be made, has room for Go and the program
# that builds; that one looks further.
room() {
	at=$1
	while [ ! -d "$at" ]; do at=$(dirname "$at"); done
	mib=$(df -Pk "$at" | awk 'NR == 2 { print int($4 / 1024) }')
	[ "$mib" -ge 1024 ] || fail "$at has $mib MiB free, and to begin with 1024 are needed: make room there, or go on with: export $2"
}
room "${XDG_CACHE_HOME:-$HOME/.cache}" XDG_CACHE_HOME=/a/larger/disk
room "${TMPDIR:-/tmp}" TMPDIR=/var/tmp

# Go and npm also know the variable in capitals, apt does not.
[ -n "${http_proxy-}" ] || [ -z "${HTTP_PROXY-}" ] || export http_proxy="$HTTP_PROXY"
[ -n "${https_proxy-}" ] || [ -z "${HTTPS_PROXY-}" ] || export https_proxy="$HTTPS_PROXY"
[ -n "${no_proxy-}" ] || [ -z "${NO_PROXY-}" ] || export no_proxy="$NO_PROXY"

host=$(command -v go || true)
if [ -n "$host" ] && new_enough "$host"; then
	echo "$host"
	exit 0
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/rackseed/go-debian13
program=root/usr/lib/go-1.24/bin/go
go=$cache/$program
if [ -x "$go" ] && new_enough "$go"; then
	echo "$go"
	exit 0
fi

keys=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror: from the variable, else the first one in the host's own lists
# (deb822 and one-line format) whose path ends in /debian, or the list of
# mirrors that Debian's cloud images name.
mirror=${RACKSEED_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
	mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
		sed -n -e 's/#.*//' -e 's/^URIs:/ /p' -e 's/^deb / /p' | tr ' \t' '\n\n' |
		sed -n -e 's|^\(https*://[^ ]*/debian\)/*$|\1|p' -e '/^mirror+file:.*\/debian\.list$/p' | head -n 1)
fi
[ -n "$mirror" ] || fail "no Debian mirror is known: set RACKSEED_DEBIAN_MIRROR=http://HOST/debian"

say "this host has no Go 1.21 or newer; unpacking Debian 13's into $cache"
mkdir -p "${cache%/*}"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
apt=$work/apt
mkdir -p "$apt/etc/preferences.d" "$apt/etc/trusted.gpg.d" "$apt/etc/none" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$work/debs" "$work/root"
: >"$apt/status"
echo "deb [signed-by=$keys] $mirror trixie main" >"$apt/etc/sources.list"

# The host's own way through proxies, its passwords, and nothing else of its
# configuration.
apt-config dump --format '%f "%v";%n' 2>/dev/null | grep '^Acquire::http' >"$apt/apt.conf" || : >"$apt/apt.conf"
cat >>"$apt/apt.conf" <<-EOF
	Dir "$apt";
	Dir::Etc "$apt/etc";
	Dir::Etc::parts "none";
	Dir::Etc::netrc "/etc/apt/auth.conf";
	Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
	Dir::State "$apt/state";
	Dir::State::status "$apt/status";
	Dir::Cache "$apt/cache";
	APT::Architecture "amd64";
	APT::Architectures "amd64";
	APT::Sandbox::User "$(id -un)";
	Acquire::Languages "none";
EOF
export APT_CONFIG="$apt/apt.conf"
apt-get -qq update >&2 || fail "the package lists of $mirror could not be read"
(cd "$work/debs" && apt-get -qq download golang-1.24-go golang-1.24-src >&2) || fail "Go could not be downloaded from $mirror"
for deb in "$work"/debs/*.deb; do
	dpkg-deb -x "$deb" "$work/root"
done
rm -rf "$work/debs" "$apt"
new_enough "$work/$program" || fail "$work/$program was unpacked but does not run"
# Complete or not there at all, whatever interrupts this; another make may have
# been faster.
chmod 755 "$work"
if [ ! -x "$go" ]; then
	rm -rf "$cache"
	mv "$work" "$cache"
fi
echo "$go"
