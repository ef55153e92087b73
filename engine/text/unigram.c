/* Unigram: of all ways to cut a piece into tokens, the one whose scores add up highest, found by Viterbi's algorithm. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/component.h"
#include "engine/text/model.h"

static const double UNK_PENALTY = 10; /* below the lowest score of the vocabulary */

/* A node of the trie: its children are [children, children + count), in the order of their bytes. */
struct node {
	uint32_t children;
	uint16_t count;
	uint8_t byte;
	int32_t id; /* of the token that ends here, or -1 */
};

struct unigram {
	struct model base;
	struct node *nodes;  /* nodes[0] is the root */
	uint32_t first[256]; /* the root's child for a byte, or 0 */
	double *scores;      /* by id */
	double unk_score;
	int32_t unk; /* -1: none */
	bool byte_fallback;
	int32_t byte_tokens[256];
};

/* The best way to the place behind a byte: its score, and where its last token starts (-1: no way yet) and which it is. */
struct way {
	double score;
	int32_t start, id;
};

struct scratch {
	const struct unigram *model;
	struct way *ways;
	int32_t *ends; /* of the best way's tokens, the last first */
	size_t capacity;
};

/* ---- the trie ------------------------------------------------------------------------------------------------------------- */
struct entry {
	const char *text;
	size_t bytes;
	int32_t id;
};

static int compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	size_t shared = x->bytes < y->bytes ? x->bytes : y->bytes;
	int order = memcmp(x->text, y->text, shared);
	if (order) return order;
	if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* The entries that share a node's path. */
struct range {
	size_t low, high, depth;
};

/* Lays the trie of the sorted entries out level by level, so that a node's children are neighbours. `nodes` and `ranges` have
 * room for one node per byte and the root. */
static void lay_out(struct unigram *model, const struct entry *entries, size_t count, struct range *ranges)
{
	size_t made = 1;
	ranges[0] = (struct range){0, count, 0};
	model->nodes[0] = (struct node){.id = -1};
	for (size_t at = 0; at < made; at++) {
		struct range range = ranges[at];
		struct node *node = &model->nodes[at];
		while (range.low < range.high && entries[range.low].bytes == range.depth)
			node->id = entries[range.low++].id; /* the last of equals, as in the package */
		node->children = (uint32_t)made;
		for (size_t i = range.low; i < range.high;) {
			size_t start = i;
			uint8_t byte = (uint8_t)entries[i].text[range.depth];
			while (i < range.high && (uint8_t)entries[i].text[range.depth] == byte)
				i++;
			ranges[made] = (struct range){start, i, range.depth + 1};
			model->nodes[made++] = (struct node){.byte = byte, .id = -1};
			node->count++;
		}
	}
	model->nodes[0].id = -1; /* the empty string is no token */
	for (uint32_t i = 0; i < model->nodes[0].count; i++)
		model->first[model->nodes[model->nodes[0].children + i].byte] = model->nodes[0].children + i;
}

static enum status build_trie(struct unigram *model, const struct entry *entries, size_t count, size_t bytes, const char *what,
			      struct error *err)
{
	if (bytes >= INT32_MAX)
		return error_set(err, STATUS_UNSUPPORTED, "%s: a vocabulary of %zu bytes is too large", what, bytes);
	model->nodes = malloc((bytes + 1) * sizeof *model->nodes);
	struct range *ranges = malloc((bytes + 1) * sizeof *ranges);
	if (!model->nodes || !ranges) {
		free(ranges);
		return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	}
	lay_out(model, entries, count, ranges);
	free(ranges);
	return STATUS_OK;
}

static inline uint32_t child(const struct unigram *model, uint32_t at, uint8_t byte)
{
	const struct node *node = &model->nodes[at];
	uint32_t low = node->children, high = low + node->count;
	while (high - low > 8) {
		uint32_t middle = (low + high) / 2;
		if (model->nodes[middle].byte <= byte)
			low = middle;
		else
			high = middle;
	}
	for (; low < high; low++)
		if (model->nodes[low].byte == byte) return low;
	return 0;
}

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
/* The score as serde_json reads its shortest decimal form: the digits as an integer, divided or multiplied by a power of ten,
 * which may miss the nearest double by one bit. Ways of equal score are told apart by such a bit, so theirs is taken. */
static double as_package_reads(double score)
{
	char text[40];
	int precision = 15;
	do
		snprintf(text, sizeof text, "%.*e", precision - 1, score);
	while (strtod(text, NULL) != score && ++precision <= 17);
	uint64_t digits = 0;
	char *exponent = strchr(text, 'e'), *last = exponent - 1;
	int scale = atoi(exponent + 1);
	while (last > text && *last == '0' && last[-1] != '.')
		last--;
	bool behind_point = false;
	for (const char *c = text; c <= last; c++) {
		if (*c == '.') behind_point = true;
		if (*c < '0' || *c > '9') continue;
		digits = digits * 10 + (uint64_t)(*c - '0');
		scale -= behind_point;
	}
	double value = scale < 0 ? (double)digits / pow(10, -scale) : (double)digits * pow(10, scale);
	return score < 0 ? -value : value;
}

/* Reads "vocab", [[token, score], …], into `entries` and the model. */
static enum status parse_vocabulary(struct unigram *model, const cJSON *array, const char *what, struct entry *entries,
				    size_t *ret_bytes, struct error *err)
{
	const cJSON *pair;
	int32_t id = 0;
	double lowest = INFINITY;
	*ret_bytes = 0;
	cJSON_ArrayForEach(pair, array)
	{
		const cJSON *token = cJSON_IsArray(pair) ? pair->child : NULL, *score = token ? token->next : NULL;
		if (!cJSON_IsString(token) || !cJSON_IsNumber(score) || score->next || !isfinite(score->valuedouble))
			return error_set(err, STATUS_INVALID, "%s: vocab[%d] must be a token and its score", what, id);
		struct entry *entry = &entries[id];
		*entry = (struct entry){token->valuestring, strlen(token->valuestring), id};
		TRY(string_map_put(&model->base.vocabulary, entry->text, entry->bytes, id, err));
		if (entry->bytes > model->base.longest) model->base.longest = entry->bytes;
		*ret_bytes += entry->bytes;
		model->scores[id] = as_package_reads(score->valuedouble);
		if (model->scores[id] < lowest) lowest = model->scores[id];
		id++;
	}
	model->base.size = id;
	model->base.largest_id = id - 1;
	model->unk_score = lowest - UNK_PENALTY;
	return STATUS_OK;
}

static enum status parse(struct unigram *model, const cJSON *json, const char *what, struct error *err)
{
	static const char *const keys[] = {"unk_id", "vocab", "byte_fallback", NULL};
	const cJSON *array;
	int64_t unk = -1;
	TRY(component_only(json, what, keys, err));
	TRY(component_array(json, what, "vocab", &array, err));
	size_t count = (size_t)cJSON_GetArraySize(array), bytes;
	TRY(json_get_int(json, what, "unk_id", 0, INT32_MAX, &unk, err));
	if (unk >= (int64_t)count)
		return error_set(err, STATUS_INVALID, "%s: unk_id %d, but the vocabulary has %zu tokens", what, (int)unk, count);
	model->unk = (int32_t)unk;
	TRY(json_get_bool(json, what, "byte_fallback", &model->byte_fallback, err));
	model->scores = calloc(count + 1, sizeof *model->scores);
	struct entry *entries = calloc(count + 1, sizeof *entries);
	enum status status = STATUS_OK;
	if (!model->scores || !entries) status = error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	if (status == STATUS_OK) status = parse_vocabulary(model, array, what, entries, &bytes, err);
	if (status == STATUS_OK) {
		qsort(entries, count, sizeof *entries, compare);
		status = build_trie(model, entries, count, bytes, what, err);
	}
	free(entries);
	TRY(status);
	model_byte_tokens(&model->base, model->byte_tokens);
	return STATUS_OK;
}

static void free_model(struct model *base)
{
	struct unigram *model = (struct unigram *)base;
	string_map_free(&base->vocabulary);
	free(model->nodes);
	free(model->scores);
	free(model);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------- */
static enum status scratch_new(const struct model *model, void **ret, struct error *err)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);
	if (!scratch) return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	scratch->model = (const struct unigram *)model;
	*ret = scratch;
	return STATUS_OK;
}

static void scratch_free(void *arg)
{
	struct scratch *scratch = arg;
	if (!scratch) return;
	free(scratch->ways);
	free(scratch->ends);
	free(scratch);
}

static inline int character_bytes(unsigned char lead)
{
	return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static inline bool is_better(const struct way *way, double score)
{
	return way->start < 0 || score > way->score;
}

/* Fills the ways to every place of the piece. */
static enum status find_ways(struct scratch *scratch, const char *text, size_t bytes, struct error *err)
{
	const struct unigram *model = scratch->model;
	struct way *ways = scratch->ways;
	for (size_t i = 0; i <= bytes; i++)
		ways[i].start = -1;
	ways[0].score = 0;
	for (size_t at = 0, next; at < bytes; at = next) {
		double so_far = ways[at].score;
		bool alone = false; /* the character itself is a token */
		next = at + (size_t)character_bytes((unsigned char)text[at]);
		uint32_t node = model->first[(unsigned char)text[at]];
		for (size_t end = at + 1; node; end++) {
			int32_t id = model->nodes[node].id;
			if (id >= 0) {
				double score = model->scores[id] + so_far;
				if (is_better(&ways[end], score)) ways[end] = (struct way){score, (int32_t)at, id};
				alone = alone || end == next;
			}
			if (end == bytes) break;
			node = child(model, node, (uint8_t)text[end]);
		}
		if (alone) continue;
		double score = model->unk_score + so_far;
		if (!is_better(&ways[next], score)) continue;
		if (model->unk < 0)
			return error_set(err, STATUS_INVALID, "the tokenizer has no unk_id, which the text needs at '%.*s'",
					 (int)(next - at), text + at);
		ways[next] = (struct way){score, (int32_t)at, model->unk};
	}
	return STATUS_OK;
}

/* A run of unknown characters: a token after all, or its bytes' tokens if all are there, or one unknown token. */
static enum status add_unknown(const struct unigram *model, struct words *words, const char *text, size_t bytes, struct error *err)
{
	int32_t id = string_map_get(&model->base.vocabulary, text, bytes);
	bool fallback = id < 0 && model->byte_fallback;
	for (size_t i = 0; i < bytes && fallback; i++)
		fallback = model->byte_tokens[(unsigned char)text[i]] >= 0;
	if (!fallback) return words_id(words, id < 0 ? model->unk : id, err);
	TRY(words_reserve(words, bytes, err));
	for (size_t i = 0; i < bytes; i++)
		words->ids[words->count++] = model->byte_tokens[(unsigned char)text[i]];
	return STATUS_OK;
}

static enum status encode_piece(void *arg, struct words *words, const char *text, size_t bytes, struct error *err)
{
	struct scratch *scratch = arg;
	const struct unigram *model = scratch->model;
	if (bytes >= INT32_MAX) return error_set(err, STATUS_UNSUPPORTED, "a piece of text of %zu bytes is too long", bytes);
	if (bytes >= scratch->capacity) {
		size_t capacity = bytes + 1 < 64 ? 64 : bytes + 1;
		scratch->capacity = 0;
		TRY(words_grow(&scratch->ways, capacity, sizeof *scratch->ways, err));
		TRY(words_grow(&scratch->ends, capacity, sizeof *scratch->ends, err));
		scratch->capacity = capacity;
	}
	TRY(find_ways(scratch, text, bytes, err));
	size_t count = 0;
	for (int32_t end = (int32_t)bytes; end > 0; end = scratch->ways[end].start)
		scratch->ends[count++] = end;
	TRY(words_reserve(words, count, err));
	for (int32_t start = 0; count;) {
		int32_t end = scratch->ends[--count], id = scratch->ways[end].id;
		if (id != model->unk) {
			TRY(words_id(words, id, err));
		} else {
			while (count && scratch->ways[scratch->ends[count - 1]].id == model->unk)
				end = scratch->ends[--count];
			TRY(add_unknown(model, words, text + start, (size_t)(end - start), err));
		}
		start = end;
	}
	return STATUS_OK;
}

static enum status encode(void *scratch, struct words *words, const char *text, size_t bytes, struct error *err)
{
	return words_encode(words, text, bytes, encode_piece, scratch, err);
}

enum status unigram_parse(const cJSON *json, const char *what, struct model **ret, struct error *err)
{
	static const struct model_kind kind = {free_model, scratch_new, scratch_free, encode};
	struct unigram *model = calloc(1, sizeof *model);
	if (!model) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	model->base.kind = &kind;
	enum status status = parse(model, json, what, err);
	if (status != STATUS_OK) {
		free_model(&model->base);
		return status;
	}
	*ret = &model->base;
	return STATUS_OK;
}
