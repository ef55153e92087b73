/* The "added_tokens" of a tokenizer.json: strings that are found in the text before BPE sees it. Those that are not `normalized`
 * are looked for in the text as it is, the others, in their normalized form, in the normalized text. */
#ifndef BESAD_ENGINE_ADDED_TOKENS_H
#define BESAD_ENGINE_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/text/model.h"
#include "engine/text/normalize.h"

struct added_tokens;

/* `json`: the file's array; `more`: those that other files add to them, or NULL; `what` is the file's path. A token that the
 * model has keeps its id there; the others get the ids behind the vocabulary, in the arrays' order, whatever the file says
 * their ids are: so does the tokenizers package. A token that comes again gets the later flags. `split_special`: special
 * tokens are not looked for. */
enum status added_tokens_parse(const cJSON *json, const cJSON *more, const char *what, const struct model *,
			       const struct normalizer *, bool split_special, struct added_tokens **ret, struct error *err);
void added_tokens_free(struct added_tokens *);
int32_t added_tokens_largest_id(const struct added_tokens *);                                              /* -1: none */
int32_t added_tokens_id(const struct added_tokens *, const char *text);                                    /* -1: not there */
bool added_tokens_name(const struct added_tokens *, int32_t id, const char **ret_text, size_t *ret_bytes); /* false: not there */
/* The text of an added token, and whether it is special; false: not there. */
bool added_tokens_text(const struct added_tokens *, int32_t id, struct string_view *ret, bool *ret_special);

/* Who gets the text between the tokens (`first`: it starts where the text starts), and the tokens' ids. */
struct added_sink {
	enum status (*text)(void *arg, const char *text, size_t bytes, bool first, struct error *err);
	enum status (*id)(void *arg, int32_t id, struct error *err);
	void *arg;
};

/* Finds the leftmost, longest tokens of valid UTF-8. */
enum status added_tokens_split(const struct added_tokens *, bool normalized, const char *text, size_t bytes,
			       const struct added_sink *sink, struct error *err);

#endif
