/* The regular expressions of a tokenizer.json, which are written for Oniguruma, run by PCRE2.
 *
 * The pattern is read construct by construct: what means the same in both is kept, what differs is rewritten (\s, \w and
 * scripts), and what cannot be had is refused by name. Unicode classes are those of the PCRE2 library's Unicode version (14 in
 * Debian 12): a character assigned later is in none of them. */
#ifndef BESAD_ENGINE_REGEX_H
#define BESAD_ENGINE_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct regex;
struct regex_matcher; /* what one thread needs to match any number of expressions */

/* STATUS_UNSUPPORTED, naming `what` and the construct, for a pattern that cannot be translated. As in Ruby, ^ and $ match at
 * every line's start and end. */
enum status regex_compile(const char *pattern, const char *what, struct regex **ret, struct error *err);
void regex_free(struct regex *);

struct regex_matcher *regex_matcher_new(void); /* NULL: no memory */
void regex_matcher_free(struct regex_matcher *);

/* How far a search for all matches has come; zeroed to begin with. */
struct regex_position {
	size_t from, end; /* where the next search starts, where the last match ends */
	bool matched;
};

/* The next match in text[0..bytes), leftmost first, text being valid UTF-8; lookbehind sees what is before. A match may be
 * empty, but not right behind another. No more matches: *ret_found is false. */
enum status regex_next(const struct regex *, struct regex_matcher *, const char *text, size_t bytes, struct regex_position *at,
		       bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err);

#endif
