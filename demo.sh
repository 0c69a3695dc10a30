#!/bin/bash
# Shows relayd at work, with nothing but the real OpenSSH at both ends. It installs what is missing, builds,
# runs everything on loopback in a folder of its own, and leaves nothing behind but the build.
#
#   ./demo.sh          shows it and ends
#   ./demo.sh --stay   leaves it up and says what to try; Ctrl-C ends it
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD

usage() {
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
}

stay=0
case ${1:-} in
"") ;;
--stay) stay=1 ;;
--help) usage; exit ;;
*) usage >&2; exit 2 ;;
esac

# ---- what it needs ----

have() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null; }

build() {
	local what=()

	for program in ssh ssh-keygen sshd curl python3; do
		have $program || what=(--test)
	done
	scripts/deps.sh "${what[@]}"
	echo "Building relayd in $top/build ..."
	mkdir -p build
	{
		{ { [ -e configure ] && [ ! Makefile.am -nt configure ]; } || autoreconf -fi; } &&
			{ [ -e build/Makefile ] || (cd build && ../configure); } &&
			make -C build -j "$(nproc)"
	} >build/demo.log 2>&1 || {
		tail -n 25 build/demo.log
		echo "demo.sh: relayd does not build; all of it is in build/demo.log"
		exit 1
	} >&2
}

# ---- running and showing ----

work=          # the folder of everything but the build
made_run_sshd= # set if /run/sshd was made
pids=()        # what runs in the background, oldest first

stop() { # PID
	local tries

	kill "$1" 2>/dev/null || return 0
	for ((tries = 0; tries < 100; tries++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.05
	done
	kill -KILL "$1" 2>/dev/null || true
}

clean_up() {
	local i

	trap '' INT TERM HUP
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
		stop "${pids[i]}"
	done
	[ -z "$made_run_sshd" ] || rmdir /run/sshd 2>/dev/null || true
	[ -z "$work" ] || rm -rf "$work"
}

die() {
	echo "demo.sh: $*"
	[ ! -e "$work/relayd.log" ] || { echo "The relay's log:"; tail -n 20 "$work/relayd.log"; }
	exit 1
} >&2

# say LINE...: a comment about what comes next.
say() { printf '\n'; printf '# %s\n' "$@"; }

# until_true WHAT COMMAND...: waits for it, 20 s at most.
until_true() {
	local what=$1 end=$((SECONDS + 20))

	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || die "not within 20 s: $what"
		sleep 0.05
	done
}

# run COMMAND [EXPECTED]: shows a command line, runs it, shows what it prints; EXPECTED must be in that.
# `wait` lets a signal through at once. Returns the exit status of the command.
run() {
	local status=0

	printf '$ %s\n' "$1"
	timeout -k 5 30 bash -c "$1" </dev/null >out 2>&1 &
	pids+=($!)
	wait $! || status=$?
	unset 'pids[-1]'
	cat out
	[ $# -lt 2 ] || grep -q -- "$2" out || die "that should have printed \"$2\""
	return $status
}

# start COMMAND: shows a command line and runs it in the background.
start() {
	printf '$ %s &\n' "$1"
	bash -c "exec $1" </dev/null >>background.log 2>&1 &
	pids+=($!)
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ---- the people and machines ----

# person NAME: a key, and an ssh_config that uses this folder and nothing of the user's own.
person() {
	ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$1"
	cat >"$1.conf" <<-END
		Host relay
		    HostName 127.0.0.1
		    Port $relay_port
		    HostKeyAlias relay
		Host *
		    IdentityFile $work/$1
		    IdentitiesOnly yes
		    IdentityAgent none
		    UserKnownHostsFile $work/known_hosts
		    GlobalKnownHostsFile /dev/null
		    StrictHostKeyChecking yes
		    BatchMode yes
	END
}

# PAM works in few containers; without it sshd lets nobody in whose account is locked.
use_pam() {
	case $(id -u):$(getent shadow "$(id -un)" | cut -d : -f 2) in
	'0:!'*) echo yes ;;
	*) echo no ;;
	esac
}

start_relay() {
	local log=relayd.log

	"$top/build/relayd/relayd" --listen 127.0.0.1:0 --state-dir "$work/state" \
		--control-socket "$work/control.sock" --public-address relay </dev/null >$log 2>&1 &
	pids+=($!)
	relayd_pid=$!
	until_true "the start of relayd" grep -q ' ready$' $log
	relay_port=$(sed -n 's/.* listening on 127\.0\.0\.1://p' $log)
	export PATH=$top/build/relayctl:$PATH RELAYD_CONTROL_SOCKET=$work/control.sock
	relayctl host-key >known_hosts
}

start_web_server() {
	mkdir web
	echo "This page comes from the device." >web/index.html
	python3 -u -m http.server --bind 127.0.0.1 --directory web 0 </dev/null >web.log 2>&1 &
	pids+=($!)
	until_true "the start of the web server" grep -q ' port [0-9]' web.log
	web_port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' web.log)
}

start_sshd() {
	sshd_port=$(free_port)
	ssh-keygen -q -t ed25519 -N '' -C raspi -f sshd_key
	cat >sshd.conf <<-END
		ListenAddress 127.0.0.1
		Port $sshd_port
		HostKey $work/sshd_key
		PidFile none
		AuthorizedKeysFile $work/alice.pub
		StrictModes no
		UsePAM $(use_pam)
		PasswordAuthentication no
		PermitRootLogin yes
		PrintMotd no
	END
	if [ "$(id -u)" -eq 0 ] && [ ! -d /run/sshd ]; then # compiled into sshd, made by its service only
		mkdir /run/sshd
		made_run_sshd=1
	fi
	"$(PATH=$PATH:/usr/sbin command -v sshd)" -D -e -f "$work/sshd.conf" </dev/null >sshd.log 2>&1 &
	pids+=($!)
	until_true "the start of sshd" listens "$sshd_port"
	echo "raspi $(cut -d ' ' -f 1,2 sshd_key.pub)" >>known_hosts
}

is_online() { relayctl list endpoints | grep -q "^$1 .* yes "; }

# ---- the show ----

enrol() {
	say "The administrator adds a device and a client: a public key and a name each."
	run "relayctl add-device --name raspi raspi.pub" "added device raspi"
	run "relayctl add-client --name alice alice.pub" "added client alice"
}

publish() {
	say "The device publishes its web server and its own sshd by name, with a plain ssh -R."
	start "ssh -F raspi.conf -N -R web.raspi:80:127.0.0.1:$web_port -R 22:127.0.0.1:$sshd_port relay"
	until_true "the publish of web.raspi" is_online web.raspi
	until_true "the publish of raspi" is_online raspi
	run "relayctl list endpoints"
	say "A name is an entry in the relay's directory: this is what alice may reach."
	run "ssh -F alice.conf relay ls" web.raspi:80
	if command -v ss >/dev/null; then
		say "Its own port is the only one on which the relay listens."
		run "ss -Hltnp | grep pid=$relayd_pid," ":$relay_port "
	fi
}

fetch() {
	say "The client reaches the web server by name: standard input and output of ssh -W ..."
	run "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | ssh -F alice.conf -W web.raspi:80 relay" "comes from the device"
	say "... or a local port."
	local_port=$(free_port)
	start "ssh -F alice.conf -N -L 127.0.0.1:$local_port:web.raspi:80 relay"
	until_true "the local port" listens "$local_port"
	run "curl -sS http://127.0.0.1:$local_port/" "comes from the device"
}

shell() {
	say "A command on the device's own sshd, through the relay. It is encrypted from end to end," \
		"and the host keys of both, relay and device, are checked strictly."
	run "ssh -F alice.conf -J relay raspi 'echo \"hello from \$(uname -n), as \$(whoami)\"'" "hello from"
}

refuse() {
	local status=0

	say "Another tenant: its client reaches nothing of the first one's, and cannot tell what there is."
	run "relayctl add-tenant acme" "added"
	run "relayctl --tenant acme add-client --name bob bob.pub" "added client bob"
	run "ssh -F bob.conf -W web.raspi:80 relay" || status=$?
	[ $status -ne 0 ] || die "a client of another tenant was let through"
	echo "(refused, as it should be: exit status $status)"
	say "Who was refused can ask why ..."
	run "ssh -F bob.conf relay why" "not_reachable"
	say "... and the administrator sees who, what and the cause that bob is not told."
	run "grep 'principal=bob.* refused' relayd.log" "there is no such name"
}

show_what_to_try() {
	cat <<-END

		# It is all up. In another terminal:
		cd $work
		export PATH=$top/build/relayctl:\$PATH RELAYD_CONTROL_SOCKET=$work/control.sock

		ssh -F alice.conf -J relay raspi                # a shell on "the device"
		ssh -F alice.conf relay whoami                  # what the relay knows of a key; also: help, ls, why, config
		ssh -v -F bob.conf -W raspi:22 relay            # why a refusal: see the line "Remote: refused ..."
		ssh -F alice.conf -N -D 1080 relay              # and: curl --proxy socks5h://127.0.0.1:1080 http://web.raspi/
		curl http://127.0.0.1:$local_port/                    # the local port of before
		relayctl list sessions                          # also: devices, clients, keys, endpoints, bridges, tenants
		relayctl remove-client alice                    # cuts what alice has open
		relayctl events --follow                        # who does what
		tail -f relayd.log

		# Ctrl-C here ends it and removes the folder.
	END
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
build
work=$(mktemp -d)
cd "$work"
echo "relayd starts in $work, on 127.0.0.1 only."
start_relay
for name in raspi alice bob; do
	person $name
done
start_web_server
start_sshd
enrol
publish
fetch
shell
refuse
if [ $stay = 1 ]; then
	show_what_to_try
	trap 'exit 0' INT TERM
	wait $relayd_pid || true
	die "relayd has ended"
fi
printf '\n# That was it. ./demo.sh --stay leaves it up for you to try.\n'
