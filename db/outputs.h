/* Who holds what on the disks: outputs, also of jobs that are forgotten, and what jobs left that did not succeed. Of a job whose
 * submission nobody was asked for a name there is no note. */
#ifndef BESAD_DB_OUTPUTS_H
#define BESAD_DB_OUTPUTS_H

#include "db/db.h"

struct holding {
	char job_id[JOB_ID_BYTES];
	char *output; /* relative to the output root; NULL: what the job, which failed or was cancelled, has left elsewhere */
};

/* All of `who`, as far as the database knows. Freed with holdings_free. */
enum status db_holdings(struct db *, const char *who, struct holding **ret, size_t *ret_count, struct error *err);
void holdings_free(struct holding *, size_t count);

/* The output is not there any more. */
enum status db_output_gone(struct db *, const struct holding *, struct error *err);

#endif
