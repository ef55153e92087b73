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

# made by `make generate` of the rows in engine/spec/
_besactl_fields='--model --name --output --overwrite --archive --archive-coded --preset --method --sparsity --pattern --bits --calibration --samples --seed --simulate --measure --precision --priority --timeout'
_besactl_keys='
	name model output overwrite archive archive_coded export preset method sparsity pattern allocation.method allocation.deviation
	allocation.threshold besa.granularity besa.rows_per_group besa.reconstruct besa.importance besa.candidates besa.lambda
	besa.epochs besa.batch_size besa.optimizer besa.d_coef besa.learning_rate besa.target besa.parameterization besa.safeguards
	one_shot.importance sparsegpt.dampening admm.rates admm.iterations admm.ramp admm.damping admm.rho admm.cg_steps admm.cg_damping
	refit.method refit.epochs refit.batch_size refit.learning_rate refit.norms refit.cg_steps refit.cg_damping refit.global_epochs
	refit.global_learning_rate quantization.bits quantization.group_size quantization.symmetric quantization.order
	quantization.rounding quantization.format calibration.path calibration.sources.0.path calibration.sources.0.weight
	calibration.sources.0.field calibration.field calibration.samples calibration.sequence_length calibration.seed
	evaluation.perplexity.0.name evaluation.perplexity.0.path evaluation.perplexity.0.sequence_length evaluation.perplexity.0.join
	evaluation.perplexity.0.field evaluation.tasks.0.name evaluation.tasks.0.path evaluation.tasks.0.format evaluation.tasks.0.limit
	hardware.simulate hardware.measure progress.perplexity_every notify.url precision priority timeout_seconds
'
_besactl_field() { # the value of an option that sets a field; false where it is another
	case $1 in
	-m | --model) COMPREPLY=() && _besactl_names models ;;
	--preset) COMPREPLY=($(compgen -W 'fast balanced best paper' -- "$cur")) ;;
	--method) COMPREPLY=($(compgen -W 'besa wanda magnitude one_shot sparsegpt admm none' -- "$cur")) ;;
	-c | --calibration) COMPREPLY=() && _besactl_names data ;;
	--precision) COMPREPLY=($(compgen -W 'auto f32 bf16' -- "$cur")) ;;
	-n | --name | -o | --output | -s | --sparsity | --pattern | --bits | --samples | --seed | --priority | --timeout) COMPREPLY=() ;;
	*) return 1 ;;
	esac
	return 0
}
# to here

_besactl() {
	local cur prev words cword command= word
	local everywhere='--url --token-file --ca-file --json --help --version'
	local submit="$_besactl_fields --sequence-length --eval --set --metadata --after --dry-run --estimate --idempotency-key --watch --wait --reconnect"
	_init_completion -n = 2>/dev/null || {
		cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
		words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	}
	for word in "${words[@]:1:cword-1}"; do
		case $word in
		submit | watch | list | show | report | log | artifacts | compare | cancel | pause | resume | retry | rm | study | gc | audit | drain | undrain | models | data | info)
			command=$word && break
			;;
		esac
	done

	_besactl_field "$prev" && return
	case $prev in
	--state) COMPREPLY=($(compgen -W 'queued running cancelling pausing paused succeeded failed cancelled' -- "$cur")) && return ;;
	--after) COMPREPLY=($(compgen -W "last $(_besactl_column list --limit 50)" -- "$cur")) && return ;;
	--eval | -e) COMPREPLY=() && _besactl_names data "$([[ $cur == *=* ]] && echo "${cur%%=*}=")" && return ;;
	--set)
		COMPREPLY=()
		if [[ $cur == *path=* ]]; then
			_besactl_names data "${cur%%=*}="
		elif [[ $cur != *=* ]]; then
			compopt -o nospace
			COMPREPLY=($(compgen -S = -W "$_besactl_keys" -- "$cur"))
		fi
		return
		;;
	--token-file | --ca-file) compopt -o default && COMPREPLY=() && return ;;
	--url | -u | --sequence-length | --metadata | --idempotency-key | -k | --reconnect | --limit)
		COMPREPLY=()
		return
		;;
	esac

	case $command in
	'') word='submit watch list show report log artifacts compare cancel pause resume retry rm study gc audit drain undrain models data info' ;;
	submit) word=$submit ;;
	watch) word=--reconnect ;;
	list) word='--state --metadata --limit' ;;
	models | data) word=--names ;;
	study) word='--csv --idempotency-key --limit --reconnect --watch' ;;
	gc) word=--dry-run ;;
	audit) word=--limit ;;
	drain) word=--now ;;
	*) word= ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$([[ $command ]] && echo "$word") $everywhere" -- "$cur"))
		return
	fi
	case $command in
	'') COMPREPLY=($(compgen -W "$word" -- "$cur")) ;;
	submit) compopt -o default && COMPREPLY=() ;;
	study)
		case $prev in
		study) COMPREPLY=($(compgen -W 'submit list show watch cancel rm' -- "$cur")) ;;
		submit) compopt -o default && COMPREPLY=() ;;
		*) COMPREPLY=($(compgen -W "last $(_besactl_column study list --limit 50)" -- "$cur")) ;;
		esac
		;;
	watch | show | report | log | artifacts | compare | cancel | pause | resume | retry | rm)
		COMPREPLY=($(compgen -W "last $(_besactl_column list --limit 50)" -- "$cur"))
		;;
	esac
} && complete -F _besactl besactl
