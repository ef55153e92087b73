# fish completion for besactl(1)

set -l commands submit watch list show report log artifacts compare cancel pause resume retry rm study gc audit drain undrain models data info

function __besactl_jobs
    echo last
    besactl list --limit 50 2>/dev/null | awk 'NR > 1 { print $1 "\t" $2 }'
end

complete -c besactl -f
complete -c besactl -s u -l url -x -d 'address of the daemon'
complete -c besactl -l token-file -r -F -d 'file that holds its token'
complete -c besactl -l ca-file -r -F -d 'certificates that https is checked by'
complete -c besactl -s j -l json -d 'print JSON'
complete -c besactl -s h -l help -d 'print help'
complete -c besactl -s V -l version -d 'print the version'

set -l none "not __fish_seen_subcommand_from $commands"
complete -c besactl -n $none -a submit -d 'queue a job'
complete -c besactl -n $none -a watch -d 'follow a job to its end'
complete -c besactl -n $none -a list -d 'jobs, the newest first'
complete -c besactl -n $none -a show -d 'one job'
complete -c besactl -n $none -a report -d 'one job\'s blocks'
complete -c besactl -n $none -a log -d 'what besad has logged of one job'
complete -c besactl -n $none -a artifacts -d 'the files of one job\'s output'
complete -c besactl -n $none -a compare -d 'jobs side by side'
complete -c besactl -n $none -a cancel -d 'stop jobs that are not finished'
complete -c besactl -n $none -a pause -d 'have jobs wait'
complete -c besactl -n $none -a resume -d 'queue paused jobs again'
complete -c besactl -n $none -a retry -d 'queue failed or cancelled jobs again'
complete -c besactl -n $none -a rm -d 'forget finished jobs'
complete -c besactl -n $none -a study -d 'a job for each combination of settings'
complete -c besactl -n $none -a gc -d 'forget ended jobs by the daemon\'s rules'
complete -c besactl -n $none -a audit -d 'who has changed what, the newest first'
complete -c besactl -n $none -a drain -d 'have the daemon begin no job'
complete -c besactl -n $none -a undrain -d 'have it begin jobs again'
complete -c besactl -n $none -a models -d 'models, and why some cannot be pruned'
complete -c besactl -n $none -a data -d 'data files, and why some cannot be read'
complete -c besactl -n $none -a info -d 'the daemon'

complete -c besactl -n '__fish_seen_subcommand_from watch show report log artifacts compare cancel pause resume retry rm; and not __fish_seen_subcommand_from study' -a '(__besactl_jobs)'

set -l submit '__fish_seen_subcommand_from submit'
complete -c besactl -n $submit -F
# made by `make generate` of the rows in engine/spec/
complete -c besactl -n $submit -s m -l model -x -a '(besactl models --names 2>/dev/null)' -d 'the model, below the daemon\'s model roots'
complete -c besactl -n $submit -s n -l name -x -d 'a name for people'
complete -c besactl -n $submit -s o -l output -x -d 'the result, below the daemon\'s output root'
complete -c besactl -n $submit -l overwrite -d 'replace an output that is there, once the new one is whole'
complete -c besactl -n $submit -l archive -d 'make an archive of the output too, in which zeros take no room'
complete -c besactl -n $submit -l archive-coded -d 'code the exponents of the archive\'s values'
complete -c besactl -n $submit -l preset -x -a 'fast balanced best paper' -d 'a method and what goes with it, by what it costs'
complete -c besactl -n $submit -l method -x -a 'besa wanda magnitude one_shot sparsegpt admm none' -d 'how weights are chosen, in place of a preset'
complete -c besactl -n $submit -s s -l sparsity -x -d 'what part of the weights becomes zero'
complete -c besactl -n $submit -l pattern -x -d 'unstructured, or N and M with a colon between'
complete -c besactl -n $submit -l bits -x -d 'quantize the weights to so many bits'
complete -c besactl -n $submit -s c -l calibration -x -a '(besactl data --names 2>/dev/null)' -d 'text or tokens, below the daemon\'s data roots'
complete -c besactl -n $submit -l samples -x -d 'how many sequences of it'
complete -c besactl -n $submit -l seed -x -d 'chooses the sequences'
complete -c besactl -n $submit -l simulate -d 'simulate what the zeros save on an accelerator'
complete -c besactl -n $submit -l measure -d 'time what the zeros save on this machine\'s processor'
complete -c besactl -n $submit -l precision -x -a 'auto f32 bf16' -d 'of the matrix products'
complete -c besactl -n $submit -l priority -x -d 'higher ones run first'
complete -c besactl -n $submit -l timeout -x -d 'fail after so long'
set -l keys \
    name= model= output= overwrite= archive= archive_coded= export= preset= method= sparsity= pattern= allocation.method= \
    allocation.deviation= allocation.threshold= besa.granularity= besa.rows_per_group= besa.reconstruct= besa.importance= \
    besa.candidates= besa.lambda= besa.epochs= besa.batch_size= besa.optimizer= besa.d_coef= besa.learning_rate= besa.target= \
    besa.parameterization= besa.safeguards= one_shot.importance= sparsegpt.dampening= admm.rates= admm.iterations= admm.ramp= \
    admm.damping= admm.rho= admm.cg_steps= admm.cg_damping= refit.method= refit.epochs= refit.batch_size= refit.learning_rate= \
    refit.norms= refit.cg_steps= refit.cg_damping= refit.global_epochs= refit.global_learning_rate= quantization.bits= \
    quantization.group_size= quantization.symmetric= quantization.order= quantization.rounding= quantization.format= \
    calibration.path= calibration.sources.0.path= calibration.sources.0.weight= calibration.sources.0.field= calibration.field= \
    calibration.samples= calibration.sequence_length= calibration.seed= evaluation.perplexity.0.name= \
    evaluation.perplexity.0.path= evaluation.perplexity.0.sequence_length= evaluation.perplexity.0.join= \
    evaluation.perplexity.0.field= evaluation.tasks.0.name= evaluation.tasks.0.path= evaluation.tasks.0.format= \
    evaluation.tasks.0.limit= hardware.simulate= hardware.measure= progress.perplexity_every= notify.url= precision= priority= \
    timeout_seconds=
# to here
complete -c besactl -n $submit -l sequence-length -x -d 'tokens in each'
complete -c besactl -n $submit -s e -l eval -x -a '(besactl data --names 2>/dev/null)' -d 'measure perplexity on it'
complete -c besactl -n $submit -l set -x -a "$keys" -d 'any other field'
complete -c besactl -n $submit -l metadata -x -d 'a note on the job'
complete -c besactl -n $submit -l after -x -a '(__besactl_jobs)' -d 'run once that job has succeeded'
complete -c besactl -n $submit -l dry-run -d 'print the job file that would be sent'
complete -c besactl -n $submit -l estimate -d 'say what the job would take; queue nothing'
complete -c besactl -n $submit -s k -l idempotency-key -x -d 'sent twice, queues one job'
complete -c besactl -n $submit -s w -l watch -d 'then follow the job'
complete -c besactl -n $submit -l wait -d 'then wait for its end'

complete -c besactl -n '__fish_seen_subcommand_from submit watch' -l reconnect -x -d 'how long a silent daemon is tried again'
set -l study '__fish_seen_subcommand_from study'
complete -c besactl -n "$study; and not __fish_seen_subcommand_from submit list show watch cancel rm" -a 'submit list show watch cancel rm'
complete -c besactl -n "$study; and __fish_seen_subcommand_from submit" -F
complete -c besactl -n "$study; and __fish_seen_subcommand_from show watch cancel rm" -a '(besactl study list --limit 50 2>/dev/null | awk "NR > 1 { print \$1 }")'
complete -c besactl -n $study -l csv -d 'show the study as CSV'
complete -c besactl -n $study -l limit -x -d 'list at most so many'
complete -c besactl -n '__fish_seen_subcommand_from gc' -l dry-run -d 'list what would go'
complete -c besactl -n '__fish_seen_subcommand_from drain' -l now -d 'the running job stops, too'
complete -c besactl -n '__fish_seen_subcommand_from models data' -l names -d 'only the names of what can be used'
complete -c besactl -n '__fish_seen_subcommand_from list' -l metadata -x -d 'only jobs that have this note'
complete -c besactl -n '__fish_seen_subcommand_from list audit' -l limit -x -d 'at most so many'
complete -c besactl -n '__fish_seen_subcommand_from list' -l state -x \
    -a 'queued running cancelling pausing paused succeeded failed cancelled' -d 'only these'
