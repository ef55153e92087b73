/* Encoding of pieces: a piece becomes its characters' ids, and neighbours are merged until no merge applies. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe.h"
#include "engine/text/unicode.h"

enum { SHORT = 48 }; /* symbols up to which scanning for the next merge beats a heap */

static const char SPACE[] = "\xe2\x96\x81"; /* ▁ */
static const uint32_t GONE = UINT32_MAX;    /* a symbol that was merged into the one before it */

struct scratch {
	const struct bpe_model *model;

	/* The symbols of a piece: ids, the neighbours' places, and the merges that wait, rank << 32 | place. */
	uint32_t *symbols, *previous, *next;
	uint64_t *heap;
	size_t symbol_count, symbol_capacity, long_capacity, heap_size;

	struct text_buffer spelled; /* a piece or character as the vocabulary spells it */
};

enum status bpe_scratch_new(const struct model *model, void **ret, struct error *err)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);
	if (!scratch) return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	scratch->model = (const struct bpe_model *)model;
	*ret = scratch;
	return STATUS_OK;
}

void bpe_scratch_free(void *arg)
{
	struct scratch *scratch = arg;
	if (!scratch) return;
	free(scratch->symbols);
	free(scratch->previous);
	free(scratch->next);
	free(scratch->heap);
	text_buffer_free(&scratch->spelled);
	free(scratch);
}

/* ---- characters to symbols ------------------------------------------------------------------------------------------------ */
static enum status reserve_symbols(struct scratch *scratch, size_t count, struct error *err)
{
	if (count <= scratch->symbol_capacity) return STATUS_OK;
	if (count < 2 * scratch->symbol_capacity) count = 2 * scratch->symbol_capacity;
	TRY(words_grow(&scratch->symbols, count, sizeof *scratch->symbols, err));
	scratch->symbol_capacity = count;
	return STATUS_OK;
}

static void add_symbol(struct scratch *scratch, int32_t id)
{
	scratch->symbols[scratch->symbol_count++] = (uint32_t)id;
}

/* A character that the vocabulary lacks: its bytes' tokens if all are there, else the unknown token, which waits in *unk until a
 * known character comes (the package's order, which lets bytes overtake it). */
static enum status add_unknown(struct scratch *scratch, const char *character, size_t bytes, bool *unk, struct error *err)
{
	const struct bpe_model *model = scratch->model;
	bool fallback = model->byte_fallback;
	for (size_t i = 0; i < bytes && fallback; i++)
		fallback = model->byte_tokens[(unsigned char)character[i]] >= 0;
	if (fallback) {
		for (size_t i = 0; i < bytes; i++)
			add_symbol(scratch, model->byte_tokens[(unsigned char)character[i]]);
		return STATUS_OK;
	}
	if (model->unk == BPE_UNK_NONE) return STATUS_OK;
	if (model->unk == BPE_UNK_MISSING)
		return error_set(err, STATUS_INVALID, "the tokenizer's unk_token, which the text needs, is not in its vocabulary");
	if (*unk && !model->fuse_unk) add_symbol(scratch, model->unk);
	*unk = true;
	return STATUS_OK;
}

/* The characters of a word in a model with a prefix or suffix: the vocabulary has those but the first with the prefix, and the
 * last with the suffix. */
static enum status add_affixed_symbols(struct scratch *scratch, const char *text, size_t bytes, struct error *err)
{
	const struct bpe_model *model = scratch->model;
	bool unk = false;
	struct text_buffer *spelled = &scratch->spelled;
	scratch->symbol_count = 0;
	for (const char *at = text, *end = text + bytes; at < end;) {
		const char *character = at;
		utf8_next(&at);
		spelled->size = 0;
		if (character > text) TRY(text_append(spelled, model->prefix, strlen(model->prefix), err));
		TRY(text_append(spelled, character, (size_t)(at - character), err));
		if (at == end) TRY(text_append(spelled, model->suffix, strlen(model->suffix), err));
		TRY(reserve_symbols(scratch, scratch->symbol_count + spelled->size + 2, err));
		int32_t id = string_map_get(&model->base.vocabulary, spelled->data, spelled->size);
		if (id < 0) {
			TRY(add_unknown(scratch, spelled->data, spelled->size, &unk, err));
			continue;
		}
		if (unk) add_symbol(scratch, model->unk);
		unk = false;
		add_symbol(scratch, id);
	}
	if (unk) add_symbol(scratch, model->unk);
	return STATUS_OK;
}

static enum status add_symbols(struct scratch *scratch, const char *text, size_t bytes, struct error *err)
{
	const struct bpe_model *model = scratch->model;
	bool unk = false;
	scratch->symbol_count = 0;
	for (const char *end = text + bytes; text < end;) {
		const char *character = text;
		size_t length;
		int32_t id;
		if (model->byte_level) {
			unsigned char byte = (unsigned char)*text++;
			id = model->byte_ids[byte];
			character = model->byte_characters[byte];
			length = strlen(character);
		} else {
			const struct bpe_character *known = bpe_model_character(model, utf8_next(&text));
			id = known ? known->id : -1;
			length = (size_t)(text - character);
		}
		if (id < 0) {
			TRY(add_unknown(scratch, character, length, &unk, err));
			continue;
		}
		if (unk) add_symbol(scratch, model->unk);
		unk = false;
		add_symbol(scratch, id);
	}
	if (unk) add_symbol(scratch, model->unk);
	return STATUS_OK;
}

/* ---- merging -------------------------------------------------------------------------------------------------------------- */
static uint64_t ranked(const struct bpe_model *model, uint32_t left, uint32_t right)
{
	const struct bpe_merge *merge = bpe_model_merge(model, left, right);
	return merge ? (uint64_t)merge->rank << 32 | (uint32_t)merge->result : UINT64_MAX;
}

/* Merges up to SHORT symbols by looking through all pairs each time. */
static void merge_short(struct scratch *scratch)
{
	const struct bpe_model *model = scratch->model;
	uint32_t *symbols = scratch->symbols;
	uint64_t pairs[SHORT];
	size_t n = scratch->symbol_count;
	for (size_t i = 0; i + 1 < n; i++)
		pairs[i] = ranked(model, symbols[i], symbols[i + 1]);
	while (n > 1) {
		size_t at = 0;
		for (size_t i = 1; i + 1 < n; i++)
			if (pairs[i] < pairs[at]) at = i;
		if (pairs[at] == UINT64_MAX) break;
		symbols[at] = (uint32_t)pairs[at];
		n--;
		memmove(symbols + at + 1, symbols + at + 2, (n - at - 1) * sizeof *symbols);
		if (at + 1 < n) {
			memmove(pairs + at + 1, pairs + at + 2, (n - at - 2) * sizeof *pairs);
			pairs[at] = ranked(model, symbols[at], symbols[at + 1]);
		}
		if (at > 0) pairs[at - 1] = ranked(model, symbols[at - 1], symbols[at]);
	}
	scratch->symbol_count = n;
}

static void heap_down(uint64_t *heap, size_t size, size_t at)
{
	uint64_t value = heap[at];
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= size) break;
		if (child + 1 < size && heap[child + 1] < heap[child]) child++;
		if (heap[child] >= value) break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = value;
}

static void heap_push(struct scratch *scratch, uint64_t value)
{
	uint64_t *heap = scratch->heap;
	size_t at = scratch->heap_size++;
	while (at > 0 && heap[(at - 1) / 2] > value) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = value;
}

static uint64_t heap_pop(struct scratch *scratch)
{
	uint64_t top = scratch->heap[0];
	scratch->heap[0] = scratch->heap[--scratch->heap_size];
	if (scratch->heap_size) heap_down(scratch->heap, scratch->heap_size, 0);
	return top;
}

static void push_pair(struct scratch *scratch, uint32_t left, uint32_t right)
{
	const struct bpe_merge *merge = bpe_model_merge(scratch->model, scratch->symbols[left], scratch->symbols[right]);
	if (merge) heap_push(scratch, (uint64_t)merge->rank << 32 | left);
}

/* Merges any number of symbols in O(n log n). An entry of the heap whose pair has changed since is passed over. */
static enum status merge_long(struct scratch *scratch, struct error *err)
{
	uint32_t n = (uint32_t)scratch->symbol_count;
	if (n > scratch->long_capacity) {
		scratch->long_capacity = 0;
		TRY(words_grow(&scratch->previous, n, sizeof *scratch->previous, err));
		TRY(words_grow(&scratch->next, n, sizeof *scratch->next, err));
		/* Each merge takes one entry out and puts at most two in. */
		TRY(words_grow(&scratch->heap, (size_t)n * 2, sizeof *scratch->heap, err));
		scratch->long_capacity = n;
	}
	uint32_t *symbols = scratch->symbols, *previous = scratch->previous, *next = scratch->next;
	scratch->heap_size = 0;
	for (uint32_t i = 0; i < n; i++) {
		previous[i] = i ? i - 1 : GONE;
		next[i] = i + 1 < n ? i + 1 : GONE;
		const struct bpe_merge *merge = i + 1 < n ? bpe_model_merge(scratch->model, symbols[i], symbols[i + 1]) : NULL;
		if (merge) scratch->heap[scratch->heap_size++] = (uint64_t)merge->rank << 32 | i;
	}
	for (size_t i = scratch->heap_size / 2; i-- > 0;)
		heap_down(scratch->heap, scratch->heap_size, i);

	while (scratch->heap_size) {
		uint64_t top = heap_pop(scratch);
		uint32_t at = (uint32_t)top, right = next[at];
		if (symbols[at] == GONE || right == GONE) continue;
		const struct bpe_merge *merge = bpe_model_merge(scratch->model, symbols[at], symbols[right]);
		if (!merge || merge->rank != top >> 32) continue;
		symbols[at] = (uint32_t)merge->result;
		symbols[right] = GONE;
		next[at] = next[right];
		if (next[at] != GONE) previous[next[at]] = at;
		if (previous[at] != GONE) push_pair(scratch, previous[at], at);
		if (next[at] != GONE) push_pair(scratch, at, next[at]);
	}
	size_t kept = 0;
	for (uint32_t i = 0; i < n; i++)
		if (symbols[i] != GONE) symbols[kept++] = symbols[i];
	scratch->symbol_count = kept;
	return STATUS_OK;
}

/* ---- words ---------------------------------------------------------------------------------------------------------------- */
static enum status encode_word(void *arg, struct words *words, const char *text, size_t bytes, struct error *err)
{
	struct scratch *scratch = arg;
	const struct bpe_model *model = scratch->model;
	if (bytes > UINT32_MAX / 2 - 1)
		return error_set(err, STATUS_UNSUPPORTED, "a piece of text of %zu bytes is too long", bytes);
	if (*model->prefix || *model->suffix) {
		TRY(add_affixed_symbols(scratch, text, bytes, err));
	} else {
		/* A byte's character may fall back to two bytes. */
		TRY(reserve_symbols(scratch, model->byte_level ? 2 * bytes : bytes, err));
		TRY(add_symbols(scratch, text, bytes, err));
	}
	if (scratch->symbol_count <= SHORT)
		merge_short(scratch);
	else
		TRY(merge_long(scratch, err));
	TRY(words_reserve(words, scratch->symbol_count, err));
	if (scratch->symbol_count) memcpy(words->ids + words->count, scratch->symbols, scratch->symbol_count * sizeof *words->ids);
	words->count += scratch->symbol_count;
	return STATUS_OK;
}

/* The id of the whole piece in the vocabulary, or -1. */
static enum status find_whole(struct scratch *scratch, const char *text, size_t bytes, int32_t *ret, struct error *err)
{
	const struct bpe_model *model = scratch->model;
	*ret = -1;
	if (bytes > model->base.longest) return STATUS_OK;
	if (model->byte_level) {
		scratch->spelled.size = 0;
		for (size_t i = 0; i < bytes; i++) {
			const char *character = model->byte_characters[(unsigned char)text[i]];
			TRY(text_append(&scratch->spelled, character, strlen(character), err));
		}
		text = scratch->spelled.data;
		bytes = scratch->spelled.size;
	}
	*ret = string_map_get(&model->base.vocabulary, text, bytes);
	return STATUS_OK;
}

enum status bpe_encode(void *arg, struct words *words, const char *text, size_t bytes, struct error *err)
{
	struct scratch *scratch = arg;
	const struct bpe_model *model = scratch->model;
	if (model->ignore_merges) {
		int32_t id;
		TRY(find_whole(scratch, text, bytes, &id, err));
		if (id >= 0) return words_id(words, id, err);
	}
	if (!model->splits_at_space) return words_encode(words, text, bytes, encode_word, scratch, err);
	/* A "▁" which no merge can join to what is before it starts a word of its own. This keeps the pieces of models that do
	 * not split text short, and lets their words be remembered. */
	const char *end = text + bytes;
	for (const char *at = text; (at = memmem(at, (size_t)(end - at), SPACE, 3)); at += 3) {
		if (at == text) continue;
		const char *before = utf8_previous(at);
		const struct bpe_character *character = bpe_model_character(model, utf8_next(&before));
		if (character && character->joins_space) continue;
		TRY(words_encode(words, text, (size_t)(at - text), encode_word, scratch, err));
		text = at;
	}
	return words_encode(words, text, (size_t)(end - text), encode_word, scratch, err);
}
