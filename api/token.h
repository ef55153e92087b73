/* The bearer tokens that requests must bring: whose each is, and what it allows. They may be replaced while requests are
 * answered. */
#ifndef BESAD_API_TOKEN_H
#define BESAD_API_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum role { ROLE_NONE, ROLE_READ, ROLE_SUBMIT, ROLE_ADMIN }; /* each may do what those before it may */

const char *role_name(enum role);

enum { TOKEN_NAME_BYTES = 65, TOKENS_MAX_BYTES = 64 << 10 /* of their file */ };

/* Who holds a token. */
struct holder {
	char name[TOKEN_NAME_BYTES]; /* "": nobody was asked for a token */
	enum role role;
	int64_t max_queued, max_per_day; /* jobs of theirs; 0: as many as there may be */
	int64_t max_bytes;               /* that these hold on the disks; 0: no bound */
	uint64_t serial;                 /* of the token: no other one gets it, as long as the process lives */
};

/* The serial of those who need no line (user_is_operator): it is always among them. */
#define TOKEN_OPERATOR UINT64_MAX

struct tokens;
struct user;

/* From the text of a file: either its first line is a token, which may do everything and is called "token", or each line is
 * `NAME ROLE TOKEN [max-queued=N] [max-per-day=N] [max-bytes=SIZE]`, blank, or a comment behind '#'. In place of the token
 * `user:WHO` or `group:WHO`, by name or number, stands for those who come through a Unix socket; names are looked up here.
 * STATUS_INVALID says which line of `path` is wrong, and never quotes a token. */
enum status tokens_parse(const char *text, const char *path, struct tokens **ret, struct error *err);
void tokens_free(struct tokens *); /* takes NULL */

/* From here on the tokens are those of `by`, which is taken. One that is in both, with its name, keeps its serial. */
void tokens_replace(struct tokens *, struct tokens *by);

/* Whose is it? Compares with every token, and gives away by its time neither where two differ nor which one fits. */
bool tokens_find(struct tokens *, const char *given, struct holder *ret);

/* The first line for this user, or for a group of theirs. */
bool tokens_find_user(struct tokens *, const struct user *, struct holder *ret);

/* Is it still among them? */
bool tokens_hold(struct tokens *, uint64_t serial);

/* Another number as soon as tokens_replace was called. */
unsigned tokens_version(struct tokens *);

#endif
