#include "daemon/recover.h"

#include "daemon/log.h"

enum status recover_queue(struct db *db, const struct options *options, bool died, struct error *err)
{
	struct recovery recovery;
	TRY(db_recover(db, died, options->max_attempts, &recovery, err));
	if (recovery.requeued) log_info("%d interrupted job%s found", recovery.requeued, recovery.requeued == 1 ? "" : "s");
	if (recovery.failed)
		log_error("job=%s failed code=crashed: besad died %lld times in a row while it ran it", recovery.id,
			  (long long)options->max_attempts);
	return STATUS_OK;
}

bool recover_is_worth_waiting(enum status status)
{
	return status == STATUS_NO_SPACE || status == STATUS_BUSY;
}
