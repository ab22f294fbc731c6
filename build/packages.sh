#!/bin/sh
# Says which of Debian's packages this machine lacks for make's targets, and the
# one command that installs them all. usage: sh build/packages.sh TARGET…
# It ends with 1 if something is missing. Without a target it looks for all.
set -eu

lacks='' install='' more=''

# need PACKAGE… FOR: they are missing, and what they are for.
need() {
	for last; do :; done
	while [ $# -gt 1 ]; do
		lacks="$lacks$(printf '  %-24s %s' "$1" "$last")
"
		install="$install $1"
		shift
	done
}
has() { command -v "$1" >/dev/null; }

compiler='' rootfs='' browser='' lists=''
[ $# -gt 0 ] || set -- test
for target; do
	case $target in
	cli | doctor | lock) ;;
	dev | bench) compiler=1 ;;
	test-unit) compiler=1 lists=1 ;;
	test-browser) compiler=1 browser=1 ;;
	test | test-full) compiler=1 rootfs=1 browser=1 lists=1 ;;
	*) compiler=1 rootfs=1 lists=1 ;;
	esac
done

[ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || need debian-archive-keyring "the keys that Debian's packages are checked with"
[ -r /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates "Go modules and npm packages come by HTTPS"
if [ -n "$compiler" ]; then
	# Debian's gcc comes without the C library's headers.
	if ! has gcc; then
		need gcc libc6-dev "runc, Ignition and the start of Node.js are compiled"
	elif ! printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' | gcc -x c -o /dev/null - 2>/dev/null; then
		need libc6-dev "the C library's headers: gcc cannot make a program"
	fi
fi
if [ -n "$lists" ]; then
	has git || need git "its list of the sources"
fi
if [ -n "$rootfs" ]; then
	has mount || need mount "without /proc Debian's packages do not install alike"
	if [ "$(id -u)" != 0 ]; then
		if ! has newuidmap || ! has newgidmap; then
			need uidmap "whoever is not root makes the node's root file system in a user namespace"
		fi
		me=$(id -un)
		for file in /etc/subuid /etc/subgid; do
			if ! awk -F: -v me="$me" -v id="$(id -u)" '($1 == me || $1 == id) && $3 >= 65536 { found = 1 } END { exit !found }' "$file" 2>/dev/null; then
				more="usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $me"
			fi
		done
	fi
fi
if [ -n "$browser" ] && [ "$(id -u)" != 0 ]; then
	# Root's is installed by console/web/test/browser/chromium.sh.
	[ -x /usr/bin/chromium ] || need chromium fonts-dejavu-core "the console is tested in it"
fi

[ -n "$install$more" ] || exit 0
command=''
[ -z "$install" ] || command="apt-get update && apt-get install -y --no-install-recommends$install"
if [ -n "$more" ]; then
	lacks="$lacks$(printf '  %-24s %s' "65536 subuids" "user IDs for that namespace, in /etc/subuid and /etc/subgid")
"
	command="${command:+$command && }$more"
fi
echo "This machine lacks:"
printf '%s' "$lacks"
echo "One command gets it:"
if [ "$(id -u)" = 0 ]; then
	echo "  $command"
elif has sudo; then
	echo "  sudo sh -c '$command'"
else
	echo "  su -c '$command'"
fi
exit 1
