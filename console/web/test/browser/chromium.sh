#!/bin/sh
# The browser of the tests: Debian's chromium, installed where it is missing.
set -eu

if [ -x /usr/bin/chromium ]; then
	exit 0
fi
install="apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "The browser tests need Debian's chromium. As root: apt-get update && $install" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
exec $install
