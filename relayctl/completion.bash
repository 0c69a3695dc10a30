# Completion of relayctl for bash. In front of this stands _relayctl_commands, a line for each command:
#
#   WORDS;ROLES;OPTIONS;ARGUMENTS    --name=VALUE takes a value, ARGUMENT... the rest of the words
#
# Names come from relayd itself, if it answers. What it says is never evaluated: it is compared, as text.

# Adds those of the words that begin like what is typed.
_relayctl_offer() {
	local word

	for word in "$@"; do
		[[ $word == "$cur"* ]] && COMPREPLY+=("$word")
	done
}

# _relayctl_ask COLUMNS COMMAND...: from each row that relayctl lists, these columns, joined by ':'. Over SSH nothing is
# asked: that might want a password.
_relayctl_ask() {
	local columns=$1

	shift
	[ "$via" ] || timeout 2 "${words[0]}" "${own[@]}" --json "$@" 2>/dev/null | awk -v columns="$columns" '
		BEGIN { n = split(columns, wanted, ":") }
		match($0, /^    "[a-z_]+": /) {
			value = substr($0, RLENGTH + 1)
			gsub(/^"|"?,?$/, "", value)
			row[substr($0, 6, RLENGTH - 8)] = value
		}
		/^  }/ { for (i = 1; i <= n; i++) printf "%s%s", row[wanted[i]], i < n ? ":" : "\n" }'
}

_relayctl_offer_asked() {
	local answer

	mapfile -t answer < <(_relayctl_ask "$@")
	_relayctl_offer "${answer[@]}"
}

_relayctl_offer_files() {
	local file

	compopt -o filenames 2>/dev/null
	while IFS= read -r file; do
		COMPREPLY+=("$file")
	done < <(compgen -f -- "$cur")
}

# _relayctl_offer_value VALUE: what may stand for VALUE in `command`, behind the words `given`.
_relayctl_offer_value() {
	case $command/$1 in
	*/*'|'*) IFS='|' read -ra values <<<"$1"; _relayctl_offer "${values[@]}" ;;
	*/KEY* | */FILE* | */PATH) _relayctl_offer_files ;;
	*/STATE) _relayctl_offer on off ;;
	*/TENANT) _relayctl_offer_asked name list tenants ;;
	*/DEVICE | remove-device/NAME) _relayctl_offer_asked name list devices ;;
	remove-client/NAME | set-admin/NAME) _relayctl_offer_asked name list clients ;;
	*-endpoint/NAME) _relayctl_offer_asked name list endpoints ;;
	*/ENDPOINT) _relayctl_offer_asked name:port list endpoints ;;
	remove-key/FINGERPRINT) _relayctl_offer_fingerprints "${given[0]}" ;;
	*/FINGERPRINT) _relayctl_offer_asked fingerprint list pending ;;
	*/SESSION) _relayctl_offer_asked id list sessions; _relayctl_offer_asked principal list sessions ;;
	*/LIMIT) mapfile -t values <<<"$_relayctl_limits"; _relayctl_offer "${values[@]}" ;;
	limit/VALUE) _relayctl_offer none default ;;
	add-tenant/NAME | */--name=NAME) ;; # a new one
	*/NAME | */--principal=NAME) _relayctl_offer_asked name list devices; _relayctl_offer_asked name list clients ;;
	esac
}

# Those of one device or client.
_relayctl_offer_fingerprints() {
	local answer row

	mapfile -t answer < <(_relayctl_ask principal:fingerprint list keys)
	for row in "${answer[@]}"; do
		[ "${row%%:*}" != "$1" ] || _relayctl_offer "${row#*:}"
	done
}

# Takes relayctl's own options out of the words: `left` is what stands before the one that is being typed. Returns 1 if
# that is the value of such an option, and has been completed.
_relayctl_take_own() {
	local i last=$((${#words[@]} - 1))

	for ((i = 1; i < last; i++)); do
		case ${words[i]} in
		--control-socket | --tenant | --via | --ssh | --interval)
			if ((i + 1 == last)); then
				case ${words[i]} in
				--control-socket) _relayctl_offer_value PATH ;;
				--tenant) _relayctl_offer_value TENANT ;;
				esac
				return 1
			fi
			case ${words[i]} in
			--control-socket | --tenant) own+=("${words[i]}" "${words[i + 1]}") ;;
			--via) via=${words[i + 1]} ;;
			esac
			((i++))
			;;
		--json | --watch | --follow) ;;
		*) left+=("${words[i]}") ;;
		esac
	done
}

# Sets command, options and arguments if `left` begins with a command; else offers words that go on towards one.
_relayctl_find_command() {
	local words_ roles options_ arguments_ begun="${left[*]}"

	while IFS=';' read -r words_ roles options_ arguments_; do
		if [ "$via" ]; then
			[ "$roles" = ADMIN ] && continue
		elif [[ " $roles " != *' ADMIN '* ]]; then
			continue
		fi
		if [[ "$begun " == "$words_ "* ]]; then
			command=$words_ options=$options_ arguments=$arguments_
			return 0
		elif [ -z "$begun" ]; then
			[[ " ${COMPREPLY[*]} " == *" ${words_%% *} "* ]] || _relayctl_offer "${words_%% *}"
		elif [[ $words_ == "$begun "* ]]; then
			_relayctl_offer "${words_#"$begun "}"
		fi
	done <<<"$_relayctl_commands"
	return 1
}

# Steps over what the command was given; offers what may come next.
_relayctl_offer_next() {
	local word option wanted='' skip rest

	read -ra skip <<<"$command"
	for word in "${left[@]:${#skip[@]}}"; do
		if [ "$wanted" ]; then
			wanted=
		elif [[ $word == --* && " $options " == *" $word="* ]]; then
			wanted=${options#*"$word="}
			wanted=$word=${wanted%% *}
		elif [[ $word != --* ]]; then
			given+=("$word")
		fi
	done
	if [ "$wanted" ]; then
		case $wanted in
		--name=* | --principal=*) _relayctl_offer_value "$wanted" ;;
		*) _relayctl_offer_value "${wanted#*=}" ;;
		esac
	elif [[ $cur == -* ]]; then
		for option in $options; do
			_relayctl_offer "${option%%=*}"
		done
		_relayctl_offer_own
	else
		read -ra rest <<<"$arguments"
		word=${rest[${#given[@]}]:-}
		[ "$word" ] || [[ ${arguments##* } != *... ]] || word=${arguments##* }
		_relayctl_offer_value "${word%...}"
	fi
}

_relayctl_offer_own() {
	_relayctl_offer --control-socket --tenant --json --via --ssh
	case $command in
	'') _relayctl_offer --help --version ;;
	events) _relayctl_offer --follow ;;
	list\ * | show | status) _relayctl_offer --watch --interval ;;
	esac
}

_relayctl() {
	local line=${COMP_LINE:0:COMP_POINT} words=() own=() left=() given=() values=()
	local cur via='' command='' options='' arguments=''

	COMPREPLY=()
	read -ra words <<<"$line"
	case $line in
	*[[:blank:]]) words+=('') ;;
	esac
	cur=${words[-1]}
	_relayctl_take_own || return 0
	if _relayctl_find_command; then
		_relayctl_offer_next
	elif [[ $cur == -* ]]; then
		COMPREPLY=()
		_relayctl_offer_own
	fi
	# readline takes what stands behind the last colon for the word.
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
		local before=${cur%"${cur##*:}"}
		COMPREPLY=("${COMPREPLY[@]#"$before"}")
	fi
}

complete -F _relayctl relayctl
