/* tokenizer.model, a SentencePiece model: read, and turned into what a tokenizer.json would hold, as transformers turns it. */
#ifndef BESAD_ENGINE_SENTENCEPIECE_H
#define BESAD_ENGINE_SENTENCEPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED, PIECE_BYTE };

struct piece {
	char *text; /* valid UTF-8 */
	double score;
	enum piece_type type;
};

struct sentencepiece {
	struct piece *pieces;
	size_t count, capacity;
	bool unigram; /* else BPE */
	bool byte_fallback;
	int64_t unk_id, bos_id, eos_id;          /* negative: none */
	char *unk_piece, *bos_piece, *eos_piece; /* never NULL */
	char *charsmap;                          /* raw, or NULL */
	size_t charsmap_bytes;
	bool dummy_prefix, remove_extra_spaces, escape_spaces;
};

/* From the content of a tokenizer.model; `path` names it in errors. Freed with sentencepiece_free, whatever the status. */
enum status sentencepiece_read(const char *bytes, size_t size, const char *path, struct sentencepiece *ret, struct error *err);
void sentencepiece_free(struct sentencepiece *);

/* A tokenizer.json's tree for BPE by the pieces' order, as transformers' classes make it, which then set the rest themselves. */
enum status sentencepiece_to_class(const struct sentencepiece *, cJSON **ret, struct error *err);

/* One that follows the model's own settings, as transformers' TokenizersBackend makes it. `legacy`: text behind an added token
 * gets a dummy prefix, too. Pieces whose ids are keys of `names`, an added_tokens_decoder or NULL, get the names there. */
enum status sentencepiece_to_tree(const struct sentencepiece *, bool legacy, const cJSON *names, cJSON **ret, struct error *err);

#endif
