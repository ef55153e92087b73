# bash completion for besactl(1)

# Ids of jobs, as the daemon has them now; nothing when it does not answer.
_besactl_column() {
	besactl "$@" 2>/dev/null | awk 'NR > 1 { print $1 }'
}

# Names of models or data that can be used, behind a prefix ("NAME=") that stays. They are others' words, and compgen -W would run what
# is in them.
_besactl_names() {
	local name
	compopt -o filenames
	while IFS= read -r name; do
		[[ $2$name == "$cur"* ]] && COMPREPLY+=("$2$name")
	done < <(besactl "$1" --names 2>/dev/null)
}

_besactl() {
	local cur prev words cword command= word
	local everywhere='--url --token-file --json --help --version'
	local submit='--model --sparsity --method --output --overwrite --name --calibration --samples --sequence-length --seed --eval
		--precision --priority --timeout --set --dry-run --idempotency-key --watch --wait --reconnect'
	_init_completion -n = 2>/dev/null || {
		cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
		words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	}
	for word in "${words[@]:1:cword-1}"; do
		case $word in
		submit | watch | list | show | report | compare | cancel | retry | rm | models | data | info)
			command=$word && break
			;;
		esac
	done

	case $prev in
	--method) COMPREPLY=($(compgen -W 'besa wanda magnitude none' -- "$cur")) && return ;;
	--precision) COMPREPLY=($(compgen -W 'auto f32 bf16' -- "$cur")) && return ;;
	--state) COMPREPLY=($(compgen -W 'queued running cancelling succeeded failed cancelled' -- "$cur")) && return ;;
	--model | -m) COMPREPLY=() && _besactl_names models && return ;;
	--calibration | -c) COMPREPLY=() && _besactl_names data && return ;;
	--eval | -e) COMPREPLY=() && _besactl_names data "$([[ $cur == *=* ]] && echo "${cur%%=*}=")" && return ;;
	--set)
		COMPREPLY=()
		[[ $cur == *path=* ]] && _besactl_names data "${cur%%=*}="
		return
		;;
	--token-file) compopt -o default && COMPREPLY=() && return ;;
	--url | -u | --sparsity | -s | --output | -o | --name | -n | --samples | --sequence-length | --seed | --priority | --timeout | \
		--idempotency-key | -k | --reconnect | --limit)
		COMPREPLY=()
		return
		;;
	esac

	case $command in
	'') word='submit watch list show report compare cancel retry rm models data info' ;;
	submit) word=$submit ;;
	watch) word=--reconnect ;;
	list) word='--state --limit' ;;
	models | data) word=--names ;;
	*) word= ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$([[ $command ]] && echo "$word") $everywhere" -- "$cur"))
		return
	fi
	case $command in
	'') COMPREPLY=($(compgen -W "$word" -- "$cur")) ;;
	submit) compopt -o default && COMPREPLY=() ;;
	watch | show | report | compare | cancel | retry | rm)
		COMPREPLY=($(compgen -W "last $(_besactl_column list --limit 50)" -- "$cur"))
		;;
	esac
} && complete -F _besactl besactl
