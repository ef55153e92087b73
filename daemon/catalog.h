/* A list of what lies below the operator's roots, kept from one time to the next: what a file or directory holds is read again
 * only when it is another one, or has changed. */
#ifndef BESAD_DAEMON_CATALOG_H
#define BESAD_DAEMON_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "daemon/tree.h"

struct catalog;

struct catalog_kind {
	struct tree_limits limits; /* of each listing, all roots together */
	size_t most;               /* entries of the list, */
	size_t most_bytes;         /* and bytes of it as JSON */
	tree_visit *visit;         /* its context is the catalog: for each thing to list it calls catalog_offer */
};

/* `kind` and the NULL-terminated `roots` are kept. */
enum status catalog_create(const struct catalog_kind *kind, char *const *roots, struct catalog **ret, struct error *err);
void catalog_free(struct catalog *); /* takes NULL */

/* What tells files from their earlier selves: device, inode, size, and times of change in nanoseconds, of each with its name. */
struct identity {
	unsigned char digest[32];
};
void identity_of(const struct tree_entry *const *files, size_t count, struct identity *ret);

/* Fills an object of the list, which has its `name` already. False: it says so only for now, and is read again next time. */
typedef bool catalog_read(struct catalog *, const void *context, cJSON *object);

/* From `visit`: there is something called `name`. It is read unless it was before, with the same identity. The first root that
 * has a name wins. */
void catalog_offer(struct catalog *, const char *name, const struct identity *, catalog_read *, const void *context);

/* The text, or null. */
void catalog_add_text(cJSON *object, const char *key, const char *text);

/* From `visit`: something could not be looked at for want of memory. The listing fails. */
void catalog_ran_out(struct catalog *);

/* How many bytes of files may still be read in this listing; for catalog_read, which takes what it has read off. */
size_t *catalog_budget(struct catalog *);

/* The list as it is now, in an array that the caller frees; *ret_truncated where a limit has left something out. The first time
 * takes long. One at a time: others wait. */
enum status catalog_list(struct catalog *, cJSON **ret, bool *ret_truncated, struct error *err);

#endif
