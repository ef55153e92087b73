/* Encoding of pieces: a piece becomes its characters' ids, and neighbours are merged until no merge applies. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe_model.h"
#include "engine/text/unicode.h"

enum {
	SHORT = 48,         /* symbols up to which scanning for the next merge beats a heap */
	CACHED_BYTES = 22,  /* of the words that are remembered */
	MAX_CACHED = 65536, /* words remembered */
};

static const char SPACE[] = "\xe2\x96\x81"; /* ▁ */
static const uint32_t GONE = UINT32_MAX;    /* a symbol that was merged into the one before it */

/* A word seen: its ids are at ids[at], among those of its last appearance. */
struct seen {
	uint64_t at;
	uint8_t bytes, count; /* bytes 0: free */
	char word[CACHED_BYTES];
};

struct bpe_words {
	const struct bpe_model *model;

	int32_t *ids;
	size_t count, capacity;

	struct seen *seen;
	size_t seen_mask;

	/* The symbols of a piece: ids, the neighbours' places, and the merges that wait, rank << 32 | place. */
	uint32_t *symbols, *previous, *next;
	uint64_t *heap;
	size_t symbol_count, symbol_capacity, long_capacity, heap_size;

	struct text_buffer spelled; /* a piece of bytes as the vocabulary spells it */
};

enum status bpe_words_new(const struct bpe_model *model, size_t text_bytes, struct bpe_words **ret, struct error *err)
{
	struct bpe_words *words = calloc(1, sizeof *words);
	size_t places = 256;
	while (places < MAX_CACHED && places < text_bytes / 16)
		places *= 2;
	struct seen *seen = calloc(places, sizeof *seen);
	size_t capacity = text_bytes / 4 + 16;
	int32_t *ids = malloc(capacity * sizeof *ids);
	if (!words || !seen || !ids) {
		free(words);
		free(seen);
		free(ids);
		return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	}
	*words = (struct bpe_words){.model = model, .ids = ids, .capacity = capacity, .seen = seen, .seen_mask = places - 1};
	*ret = words;
	return STATUS_OK;
}

void bpe_words_free(struct bpe_words *words)
{
	if (!words) return;
	free(words->ids);
	free(words->seen);
	free(words->symbols);
	free(words->previous);
	free(words->next);
	free(words->heap);
	text_buffer_free(&words->spelled);
	free(words);
}

void bpe_words_take(struct bpe_words *words, int32_t **ret_ids, size_t *ret_count)
{
	*ret_ids = words->ids;
	*ret_count = words->count;
	words->ids = NULL;
}

/* Replaces *array by one of at least `count` elements; what it held is kept. */
static enum status reserve(void *array, size_t count, size_t size, struct error *err)
{
	void *old, *grown = NULL;
	memcpy(&old, array, sizeof old);
	if (count <= SIZE_MAX / size) grown = realloc(old, count * size);
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	memcpy(array, &grown, sizeof grown);
	return STATUS_OK;
}

/* Makes room for `more` ids. */
static enum status reserve_ids(struct bpe_words *words, size_t more, struct error *err)
{
	if (more <= words->capacity - words->count) return STATUS_OK;
	size_t capacity = words->capacity * 2;
	if (capacity < words->count + more) capacity = words->count + more;
	TRY(reserve(&words->ids, capacity, sizeof *words->ids, err));
	words->capacity = capacity;
	return STATUS_OK;
}

enum status bpe_words_id(struct bpe_words *words, int32_t id, struct error *err)
{
	TRY(reserve_ids(words, 1, err));
	words->ids[words->count++] = id;
	return STATUS_OK;
}

/* ---- characters to symbols ------------------------------------------------------------------------------------------------ */
static void add_symbol(struct bpe_words *words, int32_t id)
{
	words->symbols[words->symbol_count++] = (uint32_t)id;
}

/* A character that the vocabulary lacks: its bytes' tokens if all are there, else the unknown token, which waits in *unk until a
 * known character comes (the package's order, which lets bytes overtake it). */
static enum status add_unknown(struct bpe_words *words, const char *character, size_t bytes, bool *unk, struct error *err)
{
	const struct bpe_model *model = words->model;
	bool fallback = model->byte_fallback;
	for (size_t i = 0; i < bytes && fallback; i++)
		fallback = model->byte_tokens[(unsigned char)character[i]] >= 0;
	if (fallback) {
		for (size_t i = 0; i < bytes; i++)
			add_symbol(words, model->byte_tokens[(unsigned char)character[i]]);
		return STATUS_OK;
	}
	if (model->unk == BPE_UNK_NONE) return STATUS_OK;
	if (model->unk == BPE_UNK_MISSING)
		return error_set(err, STATUS_INVALID, "the tokenizer's unk_token, which the text needs, is not in its vocabulary");
	if (*unk && !model->fuse_unk) add_symbol(words, model->unk);
	*unk = true;
	return STATUS_OK;
}

static enum status add_symbols(struct bpe_words *words, const char *text, size_t bytes, struct error *err)
{
	const struct bpe_model *model = words->model;
	bool unk = false;
	words->symbol_count = 0;
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
			TRY(add_unknown(words, character, length, &unk, err));
			continue;
		}
		if (unk) add_symbol(words, model->unk);
		unk = false;
		add_symbol(words, id);
	}
	if (unk) add_symbol(words, model->unk);
	return STATUS_OK;
}

/* ---- merging -------------------------------------------------------------------------------------------------------------- */
static uint64_t ranked(const struct bpe_model *model, uint32_t left, uint32_t right)
{
	const struct bpe_merge *merge = bpe_model_merge(model, left, right);
	return merge ? (uint64_t)merge->rank << 32 | (uint32_t)merge->result : UINT64_MAX;
}

/* Merges up to SHORT symbols by looking through all pairs each time. */
static void merge_short(struct bpe_words *words)
{
	const struct bpe_model *model = words->model;
	uint32_t *symbols = words->symbols;
	uint64_t pairs[SHORT];
	size_t n = words->symbol_count;
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
	words->symbol_count = n;
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

static void heap_push(struct bpe_words *words, uint64_t value)
{
	uint64_t *heap = words->heap;
	size_t at = words->heap_size++;
	while (at > 0 && heap[(at - 1) / 2] > value) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = value;
}

static uint64_t heap_pop(struct bpe_words *words)
{
	uint64_t top = words->heap[0];
	words->heap[0] = words->heap[--words->heap_size];
	if (words->heap_size) heap_down(words->heap, words->heap_size, 0);
	return top;
}

static void push_pair(struct bpe_words *words, uint32_t left, uint32_t right)
{
	const struct bpe_merge *merge = bpe_model_merge(words->model, words->symbols[left], words->symbols[right]);
	if (merge) heap_push(words, (uint64_t)merge->rank << 32 | left);
}

/* Merges any number of symbols in O(n log n). An entry of the heap whose pair has changed since is passed over. */
static enum status merge_long(struct bpe_words *words, struct error *err)
{
	uint32_t n = (uint32_t)words->symbol_count;
	if (n > words->long_capacity) {
		words->long_capacity = 0;
		TRY(reserve(&words->previous, n, sizeof *words->previous, err));
		TRY(reserve(&words->next, n, sizeof *words->next, err));
		/* Each merge takes one entry out and puts at most two in. */
		TRY(reserve(&words->heap, (size_t)n * 2, sizeof *words->heap, err));
		words->long_capacity = n;
	}
	uint32_t *symbols = words->symbols, *previous = words->previous, *next = words->next;
	words->heap_size = 0;
	for (uint32_t i = 0; i < n; i++) {
		previous[i] = i ? i - 1 : GONE;
		next[i] = i + 1 < n ? i + 1 : GONE;
		const struct bpe_merge *merge = i + 1 < n ? bpe_model_merge(words->model, symbols[i], symbols[i + 1]) : NULL;
		if (merge) words->heap[words->heap_size++] = (uint64_t)merge->rank << 32 | i;
	}
	for (size_t i = words->heap_size / 2; i-- > 0;)
		heap_down(words->heap, words->heap_size, i);

	while (words->heap_size) {
		uint64_t top = heap_pop(words);
		uint32_t at = (uint32_t)top, right = next[at];
		if (symbols[at] == GONE || right == GONE) continue;
		const struct bpe_merge *merge = bpe_model_merge(words->model, symbols[at], symbols[right]);
		if (!merge || merge->rank != top >> 32) continue;
		symbols[at] = (uint32_t)merge->result;
		symbols[right] = GONE;
		next[at] = next[right];
		if (next[at] != GONE) previous[next[at]] = at;
		if (previous[at] != GONE) push_pair(words, previous[at], at);
		if (next[at] != GONE) push_pair(words, at, next[at]);
	}
	size_t kept = 0;
	for (uint32_t i = 0; i < n; i++)
		if (symbols[i] != GONE) symbols[kept++] = symbols[i];
	words->symbol_count = kept;
	return STATUS_OK;
}

/* ---- words ---------------------------------------------------------------------------------------------------------------- */
static enum status encode(struct bpe_words *words, const char *text, size_t bytes, struct error *err)
{
	/* A byte's character may fall back to two bytes. */
	size_t need = words->model->byte_level ? 2 * bytes : bytes;
	if (bytes > UINT32_MAX / 2 - 1)
		return error_set(err, STATUS_UNSUPPORTED, "a piece of text of %zu bytes is too long", bytes);
	if (need > words->symbol_capacity) {
		TRY(reserve(&words->symbols, need, sizeof *words->symbols, err));
		words->symbol_capacity = need;
	}
	TRY(add_symbols(words, text, bytes, err));
	if (words->symbol_count <= SHORT)
		merge_short(words);
	else
		TRY(merge_long(words, err));
	TRY(reserve_ids(words, words->symbol_count, err));
	memcpy(words->ids + words->count, words->symbols, words->symbol_count * sizeof *words->ids);
	words->count += words->symbol_count;
	return STATUS_OK;
}

static enum status encode_word(struct bpe_words *words, const char *text, size_t bytes, struct error *err)
{
	if (bytes > CACHED_BYTES) return encode(words, text, bytes, err);
	char word[24] = {0};
	uint64_t parts[3];
	memcpy(word, text, bytes);
	memcpy(parts, word, sizeof parts);
	uint64_t hash =
		(parts[0] * 0x9e3779b97f4a7c15u) ^ (parts[1] * 0xc2b2ae3d27d4eb4fu) ^ ((parts[2] + bytes) * 0x165667b19e3779f9u);
	struct seen *seen = &words->seen[(hash >> 29 ^ hash >> 47) & words->seen_mask];
	if (seen->bytes == bytes && memcmp(seen->word, word, CACHED_BYTES) == 0) {
		TRY(reserve_ids(words, seen->count, err));
		memcpy(words->ids + words->count, words->ids + seen->at, seen->count * sizeof *words->ids);
		words->count += seen->count;
		return STATUS_OK;
	}
	size_t at = words->count;
	TRY(encode(words, text, bytes, err));
	seen->at = at;
	seen->bytes = (uint8_t)bytes;
	seen->count = (uint8_t)(words->count - at);
	memcpy(seen->word, word, CACHED_BYTES);
	return STATUS_OK;
}

/* The id of the whole piece in the vocabulary, or -1. */
static enum status find_whole(struct bpe_words *words, const char *text, size_t bytes, int32_t *ret, struct error *err)
{
	const struct bpe_model *model = words->model;
	*ret = -1;
	if (bytes > model->longest) return STATUS_OK;
	if (model->byte_level) {
		words->spelled.size = 0;
		for (size_t i = 0; i < bytes; i++) {
			const char *character = model->byte_characters[(unsigned char)text[i]];
			TRY(text_append(&words->spelled, character, strlen(character), err));
		}
		text = words->spelled.data;
		bytes = words->spelled.size;
	}
	*ret = string_map_get(&model->vocabulary, text, bytes);
	return STATUS_OK;
}

enum status bpe_words_piece(struct bpe_words *words, const char *text, size_t bytes, struct error *err)
{
	const struct bpe_model *model = words->model;
	if (model->ignore_merges) {
		int32_t id;
		TRY(find_whole(words, text, bytes, &id, err));
		if (id >= 0) return bpe_words_id(words, id, err);
	}
	if (!model->splits_at_space) return encode_word(words, text, bytes, err);
	/* A "▁" which no merge can join to what is before it starts a word of its own. This keeps the pieces of models that do
	 * not split text short, and lets their words be remembered. */
	const char *end = text + bytes;
	for (const char *at = text; (at = memmem(at, (size_t)(end - at), SPACE, 3)); at += 3) {
		if (at == text) continue;
		const char *before = utf8_previous(at);
		const struct bpe_character *character = bpe_model_character(model, utf8_next(&before));
		if (character && character->joins_space) continue;
		TRY(encode_word(words, text, (size_t)(at - text), err));
		text = at;
	}
	return encode_word(words, text, (size_t)(end - text), err);
}
