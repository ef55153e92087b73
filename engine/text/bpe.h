/* Byte-pair encoding: a vocabulary and merges, and the encoding of pieces with them. */
#ifndef BESAD_ENGINE_BPE_H
#define BESAD_ENGINE_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/text/model.h"

/* Two neighbours and what they become. The lowest rank is merged first, the leftmost of equals. */
struct bpe_merge {
	uint32_t left, right;
	uint32_t rank; /* UINT32_MAX: a free place in the table */
	int32_t result;
};

/* A character of the vocabulary. */
struct bpe_character {
	int32_t id;       /* -1: none */
	bool joins_space; /* some merge may join a word that ends with it to a "▁" behind it */
};

enum { BPE_UNK_NONE = -1, BPE_UNK_MISSING = -2 };
enum { BPE_PAGES = 0x1100 };

struct bpe_model {
	struct model base;
	struct bpe_merge *merges;               /* a hash table */
	size_t merge_capacity;                  /* a power of two */
	struct bpe_character *pages[BPE_PAGES]; /* by code point / 256; NULL: none of them */
	bool byte_level;                        /* pieces are bytes, each standing for a character of its own */
	bool byte_fallback, fuse_unk, ignore_merges;
	char *prefix, *suffix;    /* of every character but a word's first, of its last; "" for none */
	bool splits_at_space;     /* no merge crosses from a character without joins_space to "▁" */
	int32_t unk;              /* BPE_UNK_NONE: unknown characters vanish; BPE_UNK_MISSING: they are an error */
	int32_t byte_tokens[256]; /* <0x00> … <0xFF>, or -1 */
	int32_t byte_ids[256];    /* the ids of `byte_characters`, or -1 */
	char byte_characters[256][3];
};

static inline const struct bpe_merge *bpe_model_merge(const struct bpe_model *model, uint32_t left, uint32_t right)
{
	uint64_t key = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
	for (size_t i = (size_t)(key >> 32 ^ key >> 17);; i++) {
		const struct bpe_merge *merge = &model->merges[i & (model->merge_capacity - 1)];
		if (merge->rank == UINT32_MAX) return NULL;
		if (merge->left == left && merge->right == right) return merge;
	}
}

static inline const struct bpe_character *bpe_model_character(const struct bpe_model *model, uint32_t code_point)
{
	const struct bpe_character *page = model->pages[code_point >> 8];
	return page && page[code_point & 0xff].id >= 0 ? &page[code_point & 0xff] : NULL;
}

/* The ways of encoding, for bpe_parse: one encoding in one thread. */
enum status bpe_scratch_new(const struct model *, void **ret, struct error *err);
void bpe_scratch_free(void *scratch);
enum status bpe_encode(void *scratch, struct words *, const char *text, size_t bytes, struct error *err);

#endif
