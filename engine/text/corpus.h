/* Data files and what is cut from them: calibration sequences and evaluation windows of token ids.
 *
 * kind.h tells what a file is: plain text (one document, verbatim, without a byte-order mark), rows of JSON with a field for
 * their text, or safetensors with `input_ids` (I32 or I64), [N,T] or [L]. */
#ifndef BESAD_ENGINE_CORPUS_H
#define BESAD_ENGINE_CORPUS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/place.h"
#include "base/warnings.h"
#include "engine/text/tokenizer.h"

struct data_source {
	const struct place *place;
	const char *name;  /* as the client wrote it: a hint where the bytes leave the kind open */
	const char *field; /* where the text of a row is (field.h) */
};

/* `count` sequences of `length` ids, row after row. */
struct sequences {
	int32_t *ids;
	int64_t count, length;
	uint64_t hash; /* FNV-1a over ids, for the report */
};

/* `samples` sequences of `length` tokens. safetensors [N,T]: the first `samples` rows, T must be `length`, no seed; [L]:
 * consecutive windows. Text: by `seed`, documents longer than `length` tokens are chosen and a random window in each; a single
 * document gives random windows. BOS (by the tokenizer's rule) stands before a whole document, then the window is cut.
 * STATUS_INVALID, with both numbers, when the file has too little; when an id is not below `vocab`, with its place. The
 * tokenizer is loaded from `model` when the file is text. Rows without text are left out with a warning (documents.h), and so
 * is told that a plain text has bytes that are not UTF-8; errors and warnings are the file's, whatever the seed draws. */
enum status corpus_calibration(const struct data_source *, const struct place *model, int64_t vocab, int64_t samples,
			       int64_t length, int64_t seed, const atomic_bool *stop, struct warnings *, struct sequences *ret,
			       struct error *err);

/* All whole windows of `length` of the file's tokens: text is tokenized once in one piece (documents joined by `join`), BOS once
 * in front. */
enum status corpus_evaluation(const struct data_source *, const struct place *model, int64_t vocab, int64_t length,
			      const char *join, const atomic_bool *stop, struct warnings *, struct sequences *ret,
			      struct error *err);

/* Fills `hash` from the ids. */
void sequences_hash(struct sequences *);
void sequences_free(struct sequences *);

/* Bytes of candidate documents held at once; more take further passes over the file. A test makes it small. */
extern size_t corpus_max_held;

#endif
