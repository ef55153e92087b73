/* What clients hold on the disks, and what a job will: for the quotas of bytes. */
#ifndef BESAD_DAEMON_HOLDINGS_H
#define BESAD_DAEMON_HOLDINGS_H

#include "daemon/options.h"
#include "db/db.h"

/* Of the jobs of `who` that have ended, as files take it on the disk now: outputs, and what failed and cancelled ones left; but not
 * the job `but`, or NULL. Outputs that are gone are forgotten. */
enum status holdings_measure(const struct options *, struct db *, const char *checkpoints, const char *who, const char *but,
			     int64_t *ret, struct error *err);

/* About what a job's output will take: its model's tensors, whatever links lead to them. */
int64_t holdings_expect(const struct spec *);

#endif
