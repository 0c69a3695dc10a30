#!/bin/bash
# Builds relayd and runs its tests: the unit tests, the probes of libssh, and the end-to-end tests with real SSH
# clients. The last line is `N passed, N failed`; the exit status is 0 if none failed and any ran.
#
#   ./test.sh                                everything, built in build/
#   ./test.sh tests/e2e/test_forms.py ...    only those end-to-end tests; takes what pytest takes: files, -k NAME, -x
#   ./test.sh --sanitize address,undefined   with sanitizers, built in build-asan/
#   ./test.sh --sanitize thread              built in build-tsan/
#   ./test.sh --soak 30m                     the soak test alone, for so long (s, m or h)
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD
passed=0
failed=0

usage() {
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
}

say() { printf '\n==== %s\n' "$*"; }

# count NAME PASSED FAILED
count() {
	passed=$((passed + $2))
	failed=$((failed + $3))
	echo "$1: $2 of $(($2 + $3)) passed"
}

finish() {
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ] && [ $passed -gt 0 ]
	exit
}

# ---- building ----

# prepare LOG COMMAND...: without it there is nothing to test.
prepare() {
	local log=$1

	shift
	"$@" >>"$log" 2>&1 && return
	tail -n 40 "$log"
	echo "test.sh: $* failed; all of it is in $log"
	failed=1
	finish
}

# is_configured ARGUMENT...: was this folder, with these?
is_configured() {
	[ -e Makefile ] && [ "$(eval "printf '%s\n' $(./config.status --config)")" = "$(printf '%s\n' "$@")" ]
}

configure() (
	arguments=("--enable-werror")
	if [ -n "$sanitize" ]; then
		arguments+=("--enable-sanitize=$sanitize" "--with-libssh=$top/deps/libssh-${sanitize%%,*}" "CFLAGS=-O1 -g")
	fi
	[ -e configure ] && [ ! configure.ac -nt configure ] && [ ! Makefile.am -nt configure ] || autoreconf -fi || return
	cd "$build" || return
	is_configured "${arguments[@]}" || { "$top/configure" "${arguments[@]}" && make clean; }
)

build() {
	local log=$build/build.log

	say "building in $build"
	mkdir -p "$build"
	: >"$log"
	prepare "$log" configure
	prepare "$log" make -C "$build" -j "$(nproc)" all tests/bench/load
	prepare "$log" make -C "$build" -j "$(nproc)" check TESTS=
}

sanitizer_options() {
	export RELAYD_TEST_SLOW=${RELAYD_TEST_SLOW:-4} RELAYD_TEST_JOBS=${RELAYD_TEST_JOBS:-6} # they wait most of the time
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	export TSAN_OPTIONS=halt_on_error=0:second_deadlock_stack=1:suppressions=$build/suppressions
	mkdir -p "$build"
	# A descriptor that libssh closed and accept() got again: DESIGN.md, section 5, rule 2. This is broad, but what it can
	# hide is no more than races for the number of a descriptor: the kernel locks what epoll_ctl() changes.
	echo race:epoll_ctl >"$build/suppressions"
}

# ---- the tests ----

unit() {
	local log=$build/unit.log numbers

	if [ "$sanitize" = thread ]; then
		echo "unit: not under the thread sanitizer, where Criterion cannot start"
		return
	fi
	say "unit tests"
	LC_ALL=C "$build/tests/unit/unit" --color=never --short-filename --timeout 120 >"$log" 2>&1 || true
	# [====] Synthesis: Tested: 41 | Passing: 40 | Failing: 1 | Crashing: 0
	numbers=$(sed -n 's/.*Synthesis: Tested: \([0-9]*\) | Passing: \([0-9]*\) .*/\1 \2/p' "$log")
	if [ -z "$numbers" ]; then
		cut -b 1-200 "$log" | tail -n 40
		echo "unit: it did not come to its end"
		count unit 0 1
		return
	fi
	grep -v Synthesis: "$log" | cut -b 1-200 || true
	count unit "${numbers#* }" $((${numbers% *} - ${numbers#* }))
	# What a sanitizer says at the end of a test's process comes too late for Criterion.
	if grep -qE '(Address|Leak|UndefinedBehavior)Sanitizer|runtime error:' "$log"; then
		echo "unit: a sanitizer has something to say"
		count sanitizer 0 1
	fi
}

# What libssh must withstand; its fixes are ours (scripts/patches).
probes() {
	local mode good=0

	say "libssh"
	for mode in confirm leak tamper; do
		if timeout 120 "$build/tests/libssh/probe" $mode 2>&1; then
			good=$((good + 1))
		else
			echo "libssh: probe $mode failed"
		fi
	done
	count libssh $good $((3 - good))
}

# Prints the ids of what failed, cut to a readable length, then "PASSED FAILED". A skipped test has failed: what
# cannot run here has shown nothing.
read_report() {
	/usr/bin/python3 - "$1" <<-'END'
		import sys, xml.etree.ElementTree as tree
		good = {}
		for case in tree.parse(sys.argv[1]).iter("testcase"):
		    name = f"{case.get('classname')}::{case.get('name')}"
		    bad = [e for e in case if e.tag in ("failure", "error", "skipped")]
		    good[name] = good.get(name, True) and not bad
		for name in good:
		    if not good[name]:
		        print("failed:", name[:150])
		print(sum(good.values()), len(good) - sum(good.values()))
	END
}

e2e() {
	local report=$build/e2e.xml status=0 numbers

	say "end-to-end tests"
	echo "RELAYD_TEST_SEED=${RELAYD_TEST_SEED:-1}"
	[ $# -gt 0 ] || set -- tests/e2e
	rm -f "$report"
	RELAYD=$build/relayd/relayd RELAYCTL=$build/relayctl/relayctl PYTHONDONTWRITEBYTECODE=1 \
		timeout -k 10 $((1500 + ${RELAYD_TEST_SOAK:-0})) /usr/bin/python3 -m pytest -p no:cacheprovider -n "${RELAYD_TEST_JOBS:-4}" -q --no-header \
		--tb=short -r N --junitxml="$report" "$@" 2>&1 |
		sed -u -e '/^bringing up nodes/d' -e '/^-* generated xml file/d' | cut -b 1-200 || status=${PIPESTATUS[0]}
	if ! numbers=$(read_report "$report"); then
		echo "e2e: pytest left no report (exit status $status)"
		count e2e 0 1
		return
	fi
	sed '$d' <<<"$numbers"
	numbers=$(tail -n 1 <<<"$numbers")
	[ $status -eq 0 ] || [ "${numbers#* }" -gt 0 ] || numbers="${numbers% *} 1" # it stopped before its end
	# shellcheck disable=SC2086
	count e2e $numbers
}

# seconds TIME: of 90, 90s, 30m or 2h; nothing if it is none of these.
seconds() {
	local number=${1%[smh]}

	[[ $number =~ ^[1-9][0-9]{0,5}$ ]] || return 0
	case $1 in
	*h) echo $((number * 3600)) ;;
	*m) echo $((number * 60)) ;;
	*) echo "$number" ;;
	esac
}

sanitize=
while [ $# -gt 0 ]; do
	case $1 in
	--sanitize)
		sanitize=${2:-}
		case $sanitize in
		address | address,undefined) build=build-asan ;;
		undefined) build=build-ubsan ;;
		thread) build=build-tsan ;;
		*)
			echo "test.sh: --sanitize takes address, undefined, address,undefined or thread" >&2
			exit 2
			;;
		esac
		shift 2
		;;
	--soak)
		RELAYD_TEST_SOAK=$(seconds "${2:-}")
		if [ -z "$RELAYD_TEST_SOAK" ]; then
			echo "test.sh: --soak takes a time, such as 30m" >&2
			exit 2
		fi
		export RELAYD_TEST_SOAK
		shift 2
		set -- "$@" tests/e2e/test_soak.py
		;;
	--help)
		usage
		exit
		;;
	*) break ;;
	esac
done
build=$top/${build:-build}
only_e2e=0
[ $# -eq 0 ] || only_e2e=1
ulimit -S -n 20000 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"
if [ -n "$sanitize" ]; then
	sanitizer_options
	scripts/deps.sh --test --sanitize "${sanitize%%,*}"
else
	scripts/deps.sh --test
fi
build
if [ $only_e2e = 0 ]; then
	unit
	probes
fi
e2e "$@"
finish
