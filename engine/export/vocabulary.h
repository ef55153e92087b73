/* A model's vocabulary and special tokens, as llama.cpp's converter reads them out of the files beside a model, in the pairs of
 * a GGUF. */
#ifndef BESAD_ENGINE_EXPORT_VOCABULARY_H
#define BESAD_ENGINE_EXPORT_VOCABULARY_H

#include "base/json.h"
#include "base/warnings.h"
#include "engine/export/gguf.h"
#include "engine/text/tokenizer.h"

/* The kinds of tokens in "tokenizer.ggml.token_type". */
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE };

struct token {
	char *text; /* NULL: no token has the id */
	float score;
	enum token_type type;
};

struct vocabulary {
	struct token *tokens;
	int64_t size;   /* rows of the embeddings */
	int64_t beyond; /* tokens of ids that have no row, which are left out */
};

/* The files that say what a tokenizer is, each NULL where it is not there. */
struct tokenizer_files {
	cJSON *json, *config, *added, *model_config; /* tokenizer.json, tokenizer_config.json, added_tokens.json, config.json */
	char *model;                                 /* tokenizer.model */
	size_t model_bytes;
	char *template; /* chat_template.jinja */
};
enum status tokenizer_files_read(const struct place *model, struct tokenizer_files *ret, struct error *err);
void tokenizer_files_free(struct tokenizer_files *); /* also after a failure */

/* Adds all pairs of "tokenizer.…": of a tokenizer.model where there is one, else of a tokenizer.json whose model is byte-level
 * BPE. `vocab`: rows of the embeddings. STATUS_UNSUPPORTED for a tokenizer of another kind. */
enum status vocabulary_add(struct gguf *, const struct place *model, const struct tokenizer_files *, int64_t vocab,
			   struct warnings *, struct error *err);

/* ---- for vocabulary.c ------------------------------------------------------------------------------------------------------ */

/* Fill tokens that are empty. */
enum status vocabulary_from_json(struct vocabulary *, const struct tokenizer_files *, const struct place *model, struct error *err);
enum status vocabulary_from_model(struct vocabulary *, const struct tokenizer_files *, struct error *err);

/* Gives an id its token; the text is copied. */
enum status vocabulary_set(struct vocabulary *, int64_t id, const char *text, enum token_type, float score, struct error *err);

/* The same of one that is added to the vocabulary: control where it is `special` or looks so, else user-defined, with "▁" as the
 * space that it stands for. */
enum status vocabulary_set_added(struct vocabulary *, int64_t id, const char *text, bool special, float score, struct error *err);

/* Whether a token stands before or behind a text. */
enum placed { PLACED_UNKNOWN, PLACED_NOT, PLACED };

/* special_tokens.c: ids of special tokens, whether they stand around a text, and the chat template. `bos`: what is known where
 * the files do not say. */
void special_tokens_add(struct gguf *, const struct tokenizer_files *, int64_t vocab, enum placed bos);

#endif
