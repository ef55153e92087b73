/* The sentencepiece library (C++) for C. */
#ifndef BESAD_ENGINE_SENTENCEPIECE_H
#define BESAD_ENGINE_SENTENCEPIECE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "engine/error.h"

struct piece_model;

/* From the content of a tokenizer.model. `path` names it in errors. */
enum status sentencepiece_load(const char *bytes, size_t size, const char *path, struct piece_model **ret, struct error *err);
void sentencepiece_free(struct piece_model *);

int64_t sentencepiece_count(const struct piece_model *); /* ids are below it */
int32_t sentencepiece_bos(const struct piece_model *);   /* -1 for none */

/* The id of a piece, or -1 when the model does not have it. */
int32_t sentencepiece_id(const struct piece_model *, const char *piece);

/* *ret_ids is freed by the caller. Invalid UTF-8 is encoded as U+FFFD. */
enum status sentencepiece_encode(const struct piece_model *, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count,
				 struct error *err);

#ifdef __cplusplus
}
#endif

#endif
