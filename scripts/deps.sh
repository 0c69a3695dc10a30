#!/bin/bash
# Installs what relayd needs: Debian packages, and libssh in deps/libssh where the system's is too old or
# lacks the fixes in scripts/patches. Quick when there is nothing to do; touches nothing else.
#
#   scripts/deps.sh                    what building needs
#   scripts/deps.sh --test             and what the tests need (openssh-server among it)
#   scripts/deps.sh --package          what the Debian package, and the test of it, need
#   scripts/deps.sh --bench            and what the benchmarks need (openssh-server, HAProxy, gnuplot)
#   scripts/deps.sh --sanitize FLAVOUR builds deps/libssh-FLAVOUR too; FLAVOUR: address, undefined, thread
#
# LIBSSH_SOURCE=FILE.tar.xz or FOLDER: libssh's source, for systems that cannot fetch Debian's.
set -euo pipefail
[ -z "${LIBSSH_SOURCE:-}" ] || LIBSSH_SOURCE=$(realpath -m "$LIBSSH_SOURCE")
cd "$(dirname "$0")/.."

build_packages=(build-essential autoconf automake autoconf-archive pkg-config
	libevent-dev libsqlite3-dev libjansson-dev libinih-dev uthash-dev libssl-dev libsystemd-dev)
libssh_packages=(cmake dpkg-dev patch xz-utils util-linux debian-archive-keyring)
test_packages=(libcriterion-dev openssh-server openssh-client dropbear-bin python3 python3-pytest
	python3-pytest-xdist python3-paramiko autossh curl haproxy sqlite3 iproute2 procps xauth clang-format mandoc)
bench_packages=(openssh-server openssh-client haproxy gnuplot-nox openssl passwd util-linux python3 python3-pytest
	python3-paramiko)
package_packages=(debhelper systemd openssh-client passwd procps python3 util-linux)

oldest=0.12.2 # older ones accept forged packets, among other things
tested=0.12   # the series that the tests run with

say() { echo "deps.sh: $*" >&2; }
die() { say "$*"; exit 1; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

usage() {
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
}

# ---- packages ----

missing_packages() {
	dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' |
		sort -u | comm -13 - <(printf '%s\n' "$@" | sort -u)
}

install_packages() {
	local missing as_root=()

	if ! command -v dpkg-query >/dev/null; then
		say "this is not a Debian system; install what these packages hold by hand: $*"
		return
	fi
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		as_root=(sudo)
		if ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && command -v sudo >/dev/null; }; then
			say "these packages are missing: ${missing[*]}"
			die "neither root nor able to sudo; run as root: apt-get install --no-install-recommends ${missing[*]}"
		fi
	fi
	say "installing ${missing[*]}"
	as_root+=(env DEBIAN_FRONTEND=noninteractive)
	"${as_root[@]}" apt-get -q update
	"${as_root[@]}" apt-get -q -y install --no-install-recommends "${missing[@]}"
}

# ---- libssh: the source ----

# The archives that serve this machine's own release, as apt reads its own configuration.
own_archives() {
	local codename
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
	apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk -v own="$codename" '$2 == "main" && ($1 == own ||
			$1 ~ /^(oldstable|stable|testing|unstable|sid)$/) && !seen[$3]++ { print $3 }'
}

# apt_configuration DIR URI KEYRING: writes a configuration that keeps all of apt's files in DIR. The machine's
# own is read before it, for its proxies; what it runs after an update is left out.
apt_configuration() {
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/state"
	printf 'Types: deb-src\nURIs: %s\nSuites: sid\nComponents: main\nSigned-By: %s\n' "$2" "$3" >"$1/sid.sources"
	cat >"$1/apt.conf" <<EOF
#clear APT::Update;
#clear APT::Default-Release;
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Dir::Etc::SourceList "$1/sid.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$1/state";
Dir::State::Lists "$1/lists";
Dir::State::Status "/var/lib/dpkg/status";
Dir::Cache "$1/cache";
EOF
}

# fetch_debian DIR: puts libssh's source of Debian's sid into DIR/source. apt verifies it: the release by the
# keyring, the package by the release.
fetch_debian() {
	local keyring uri apt=$1/apt

	command -v apt-get >/dev/null && (. /etc/os-release && [ "$ID" = debian ]) ||
		die "libssh $oldest or newer is needed, and only Debian's source can be fetched from here:" \
			"unpack it yourself and set LIBSSH_SOURCE to the tarball or the folder"
	keyring=$(ls /usr/share/keyrings/debian-archive-keyring.{pgp,gpg} 2>/dev/null | head -n 1) || true
	[ -n "$keyring" ] || die "no keyring to verify Debian's archive with: install debian-archive-keyring"
	for uri in $(own_archives); do
		say "fetching libssh's source of Debian sid"
		rm -rf "$apt"
		apt_configuration "$apt" "$uri" "$keyring"
		if apt-get -q -c "$apt/apt.conf" update >"$1/log" 2>&1 &&
			(cd "$1" && apt-get -q -c "$apt/apt.conf" --only-source --download-only source libssh) >>"$1/log" 2>&1; then
			dpkg-source --no-check -x "$1"/libssh_*.dsc "$1/source" >>"$1/log" 2>&1 || die_log "$1/log" "bad source"
			return
		fi
	done
	[ -e "$1/log" ] || die "apt's sources name no archive of this Debian release: set LIBSSH_SOURCE to libssh's source"
	! grep -Eq 'NO_PUBKEY|EXPKEYSIG|Missing key' "$1/log" ||
		die "debian-archive-keyring is too old to verify Debian sid: upgrade it, or set LIBSSH_SOURCE to libssh's source"
	die_log "$1/log" "could not fetch libssh's source; LIBSSH_SOURCE can name a tarball or folder instead"
}

fetch_given() {
	mkdir "$1/source"
	if [ -d "$LIBSSH_SOURCE" ]; then
		cp -R "$LIBSSH_SOURCE/." "$1/source"
	else
		tar -xf "$LIBSSH_SOURCE" -C "$1/source" --strip-components=1 || die "$LIBSSH_SOURCE: not a tarball"
	fi
}

source_version() {
	[ ! -e "$1/CMakeLists.txt" ] || sed -n 's/^project(libssh VERSION \([0-9.]*\).*/\1/p' "$1/CMakeLists.txt"
}

# ---- libssh: the build ----

die_log() {
	tail -n 25 "$1" >&2
	shift
	die "$*"
}

# Applies the fixes. One that does not apply is in the source already or was overtaken: the probe judges.
apply_patches() {
	local patch

	for patch in scripts/patches/*.patch; do
		if patch -p1 -f -d "$1" --dry-run <"$patch" >/dev/null; then
			patch -p1 -f -d "$1" <"$patch" >/dev/null
		else
			say "$patch does not apply; going on without it"
		fi
	done
}

# compile SOURCE BUILD PREFIX FLAVOUR
compile() {
	local flags="-O2 -g -fPIC -DMAX_BUF_SIZE=65536 -ffile-prefix-map=${1%/*}=libssh"

	[ "$4" = plain ] || flags="$flags -fsanitize=$4 -fno-omit-frame-pointer"
	cmake -S "$1" -B "$2" -DCMAKE_INSTALL_PREFIX="$3" -DCMAKE_INSTALL_LIBDIR=lib \
		-DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-DNDEBUG -DCMAKE_C_FLAGS="$flags" \
		-DBUILD_SHARED_LIBS=OFF -DUNIT_TESTING=OFF -DWITH_EXAMPLES=OFF -DWITH_GSSAPI=OFF -DWITH_SFTP=OFF \
		-DWITH_PCAP=OFF -DWITH_ZLIB=OFF -DWITH_GEX=OFF -DWITH_EXEC=OFF &&
		cmake --build "$2" --parallel "$(nproc)" &&
		cmake --install "$2" &&
		rm -r "$3/lib/cmake"
}

# pkg_config_file VERSION FLAVOUR: with a prefix that follows the file wherever it is moved.
pkg_config_file() {
	local sanitize=

	[ "$2" = plain ] || sanitize="-fsanitize=$2 "
	cat <<EOF
prefix=\${pcfiledir}/../..
relayd_fixes=confirm-once,request-leak

Name: libssh
Description: SSH library, static, with relayd's fixes
Version: $1
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lssh $sanitize-lcrypto -lpthread
EOF
}

# recipe FLAVOUR: what the build depends on, as one line; a change of it makes deps.sh build again.
recipe() {
	{ echo "$1 $oldest"; declare -f compile pkg_config_file; cat scripts/patches/*.patch; } | sha256sum | cut -d ' ' -f 1
}

given_source() {
	if [ -f "${LIBSSH_SOURCE:-}" ]; then
		sha256sum <"$LIBSSH_SOURCE" | cut -d ' ' -f 1
	elif [ -d "${LIBSSH_SOURCE:-}" ]; then
		(cd "$LIBSSH_SOURCE" && find . -type f -name '*.[ch]' -print0 | sort -z | xargs -0 sha256sum) |
			sha256sum | cut -d ' ' -f 1
	fi
}

is_built() { # PREFIX FLAVOUR
	local stamp=$1/stamp source

	[ -e "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$(recipe "$2")" ] || return 1
	source=$(given_source)
	[ -z "$source" ] || [ "$(sed -n 2p "$stamp")" = "$source" ]
}

# probe PKG-CONFIG-FOLDER DIR: does that libssh withstand what its fixes are for?
probe() {
	local mode

	# shellcheck disable=SC2046
	${CC:-cc} -O1 -o "$2/probe" tests/libssh/probe.c \
		$(PKG_CONFIG_PATH=$1 pkg-config --cflags --libs libssh) -lpthread
	for mode in confirm leak tamper; do
		"$2/probe" $mode || return 1
	done
}

system_is_good() {
	local version dir good=1

	version=$(pkg-config --modversion libssh 2>/dev/null) && at_least "$version" $oldest || return 1
	dir=$(mktemp -d)
	probe "${PKG_CONFIG_PATH:-}" "$dir" 2>"$dir/log" || good=0
	[ $good = 1 ] || say "the system's libssh $version is new enough, but: $(tail -n 1 "$dir/log")"
	rm -r "$dir"
	[ $good = 1 ]
}

build_libssh() { # PREFIX FLAVOUR
	local version dir=$work/$2

	mkdir "$dir"
	if [ -n "${LIBSSH_SOURCE:-}" ]; then
		fetch_given "$dir"
	else
		fetch_debian "$dir"
	fi
	version=$(source_version "$dir/source")
	[ -n "$version" ] || die "this source is not libssh's, or names no version"
	at_least "$version" $oldest || die "libssh $version is too old: relayd needs $oldest or newer"
	case $version in
	"$tested".*) ;;
	*) say "warning: libssh $version is newer than the series relayd is tested with ($tested)" ;;
	esac
	apply_patches "$dir/source"
	say "building libssh $version in $1"
	compile "$dir/source" "$dir/build" "$dir/prefix" "$2" >"$dir/log" 2>&1 ||
		die_log "$dir/log" "libssh $version does not build"
	pkg_config_file "$version" "$2" >"$dir/prefix/lib/pkgconfig/libssh.pc"
	if [ "$2" = plain ]; then
		probe "$dir/prefix/lib/pkgconfig" "$dir" || die "libssh $version lacks a fix that relayd needs: not installed"
	fi
	{ recipe "$2"; given_source; } >"$dir/prefix/stamp"
	[ ! -e "$1" ] || mv "$1" "$dir/old"
	mv "$dir/prefix" "$1"
}

need_libssh() { # FLAVOUR
	local prefix=deps/libssh

	[ "$1" = plain ] || prefix=deps/libssh-$1
	! is_built $prefix "$1" || return 0
	if [ ! -e $prefix ] && [ "$1" = plain ] && [ -z "${LIBSSH_SOURCE:-}" ] && system_is_good; then
		return
	fi
	mkdir -p deps
	exec 9>deps/.lock
	flock 9
	if ! is_built $prefix "$1"; then # by somebody else, while this one waited
		rm -rf deps/.work.*
		work=$(mktemp -d "$PWD/deps/.work.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		build_libssh $prefix "$1"
		rm -rf "$work"
	fi
	exec 9>&-
}

packages=("${build_packages[@]}" "${libssh_packages[@]}")
flavours=(plain)
while [ $# -gt 0 ]; do
	case $1 in
	--test) packages+=("${test_packages[@]}") ;;
	--package) packages+=("${package_packages[@]}") ;;
	--bench) packages+=("${bench_packages[@]}") ;;
	--sanitize)
		case ${2:-} in
		address | undefined | thread) flavours+=("$2") ;;
		*) die "--sanitize: address, undefined or thread" ;;
		esac
		shift
		;;
	--help) usage; exit ;;
	*) usage >&2; exit 2 ;;
	esac
	shift
done
[ -z "${LIBSSH_SOURCE:-}" ] || [ -e "$LIBSSH_SOURCE" ] || die "LIBSSH_SOURCE: $LIBSSH_SOURCE does not exist"
install_packages "${packages[@]}"
for flavour in "${flavours[@]}"; do
	need_libssh "$flavour"
done
