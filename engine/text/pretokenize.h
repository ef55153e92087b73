/* The "pre_tokenizer" of a tokenizer.json: cuts text into the pieces that BPE then works on, each for itself. */
#ifndef BESAD_ENGINE_PRETOKENIZE_H
#define BESAD_ENGINE_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"

struct pretokenizer;

/* Known: ByteLevel, Split, Metaspace, Digits, Punctuation, CharDelimiterSplit, FixedLength, Whitespace, WhitespaceSplit,
 * BertPreTokenizer, UnicodeScripts, Sequence, and null. `what` is the file's path. `keep_bytes`: where ByteLevel is the last
 * of all, the pieces may stay bytes, each to be looked up as the character that ByteLevel gives it; pretokenizer_gives_bytes
 * tells if so. */
enum status pretokenizer_parse(const cJSON *json, const char *what, bool keep_bytes, struct pretokenizer **ret, struct error *err);
void pretokenizer_free(struct pretokenizer *);
bool pretokenizer_gives_bytes(const struct pretokenizer *);

/* One encoding: buffers and a regular expression matcher, for one thread. `piece` is called for each piece in order; its text
 * lives until it returns. */
typedef enum status (*pretokenize_piece)(void *arg, const char *text, size_t bytes, struct error *err);
struct pretokenize_run;
enum status pretokenize_run_new(const struct pretokenizer *, pretokenize_piece piece, void *arg, struct pretokenize_run **ret,
				struct error *err);
void pretokenize_run_free(struct pretokenize_run *);

/* Cuts valid UTF-8. `first`: it starts where the whole text starts. */
enum status pretokenize(struct pretokenize_run *, const char *text, size_t bytes, bool first, struct error *err);

#endif
