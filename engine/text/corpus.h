/* Data files and what is cut from them: calibration sequences and evaluation windows of token ids.
 *
 * Kinds, told apart by content (gzip and safetensors by their first bytes) and name: plain text (one document, verbatim), JSON
 * Lines with a `text` field (.jsonl, .json, .ndjson), either gzipped, and safetensors with `input_ids` (I32 or I64), [N,T] or
 * [L]. */
#ifndef BESAD_ENGINE_CORPUS_H
#define BESAD_ENGINE_CORPUS_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/place.h"
#include "engine/text/tokenizer.h"
#include "engine/warnings.h"

/* `count` sequences of `length` ids, row after row. */
struct sequences {
	int32_t *ids;
	int64_t count, length;
	uint64_t hash; /* FNV-1a over ids, for the report */
};

/* `samples` sequences of `length` tokens. safetensors [N,T]: the first `samples` rows, T must be `length`, no seed; [L]:
 * consecutive windows. Text: by `seed`, documents longer than `length` tokens are chosen and a random window in each; a single
 * document gives random windows. BOS (by the tokenizer's rule) stands before a whole document, then the window is cut.
 * STATUS_INVALID, with both numbers, when the file has too little; when an id is not below `vocab`, with its place. The tokenizer
 * is loaded from `model` when the file is text. */
enum status corpus_calibration(const struct place *data, const struct place *model, int64_t vocab, int64_t samples, int64_t length,
			       int64_t seed, const atomic_bool *stop, struct warnings *warnings, struct sequences *ret,
			       struct error *err);

/* All whole windows of `length` of the file's tokens: text is tokenized once in one piece (documents joined by `join`), BOS once
 * in front. */
enum status corpus_evaluation(const struct place *data, const struct place *model, int64_t vocab, int64_t length, const char *join,
			      const atomic_bool *stop, struct warnings *warnings, struct sequences *ret, struct error *err);

/* Fills `hash` from the ids. */
void sequences_hash(struct sequences *);
void sequences_free(struct sequences *);

#endif
