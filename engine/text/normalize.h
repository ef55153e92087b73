/* The "normalizer" of a tokenizer.json: text to text, before anything is looked up. */
#ifndef BESAD_ENGINE_NORMALIZE_H
#define BESAD_ENGINE_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "engine/text/text_buffer.h"

struct normalizer;

/* Known: NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Prepend, Replace, Nmt, Precompiled, BertNormalizer, ByteLevel,
 * Sequence, and null. `what` is the file's path. */
enum status normalizer_parse(const cJSON *json, const char *what, struct normalizer **ret, struct error *err);
void normalizer_free(struct normalizer *);

/* What one thread needs to normalize; all zero at first. */
struct normalize_run {
	struct text_buffer buffers[2];
	struct text_buffer code_points;
	struct regex_matcher *matcher;
};
void normalize_run_free(struct normalize_run *);

/* Normalizes valid UTF-8. The result is `text` itself or lives in `run` until the next call. Where characters at the start are
 * taken away, *first becomes false: the result does not start where the text did. */
enum status normalize(const struct normalizer *, struct normalize_run *run, const char *text, size_t bytes, const char **ret_text,
		      size_t *ret_bytes, bool *first, struct error *err);

#endif
