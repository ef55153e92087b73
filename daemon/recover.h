/* Makes the queue that an earlier process left sound (db_recover), and says so in the log. */
#ifndef BESAD_DAEMON_RECOVER_H
#define BESAD_DAEMON_RECOVER_H

#include "daemon/options.h"
#include "db/db.h"

enum status recover_queue(struct db *, const struct options *, bool died, struct error *err);

/* May it, or anything else that the database failed at so, succeed later? */
bool recover_is_worth_waiting(enum status status);

#endif
