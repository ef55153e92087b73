/* The list of a backup's files: manifest.json has the size and the SHA-256 of each. */
#ifndef BESAD_DAEMON_INVENTORY_H
#define BESAD_DAEMON_INVENTORY_H

#include <stdint.h>

#include "base/place.h"

#define MANIFEST_NAME "manifest.json"

struct inventory_totals {
	int files;
	double bytes;
};

/* Lists the files below a directory, each of which it reads. `version` is of the database. */
enum status inventory_write(const struct place *directory, int64_t version, struct inventory_totals *ret, struct error *err);

/* Calls `take` with each file that is listed, and *ret has what they come to. Names lie below the directory. */
typedef enum status inventory_take(void *context, const char *name, struct error *err);
enum status inventory_each(const struct place *directory, inventory_take *take, void *context, struct inventory_totals *ret,
			   struct error *err);

/* Calls `tell` with each thing that is not as the list says. */
typedef void inventory_tell(void *context, const char *problem);
enum status inventory_check(const struct place *directory, inventory_tell *tell, void *context, struct error *err);

#endif
