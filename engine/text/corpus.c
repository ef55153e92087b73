/* Sampling. Every document i of a file has a key, a bijective hash of (seed, i); documents are taken in the order of their keys,
 * and the window of each comes from a further hash of its key. So the sample depends on the seed and the file alone, not on the
 * machine, on how the file was read, or on how many samples are asked for: fewer are a prefix of more. */
#include "engine/text/corpus.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/model/checkpoint.h"
#include "engine/text/reader.h"

enum {
	MAX_TEXT = 256 << 20,     /* bytes that are tokenized in one piece */
	MAX_HELD = 128 << 20,     /* bytes of candidate documents held at once */
	MAX_TOKENS = 1 << 30,     /* of one result */
	TOKENS_BESIDES_BYTES = 2, /* no token stands for less than a byte, but for BOS and a space put in front */
};

enum kind { KIND_TEXT, KIND_LINES, KIND_TOKENS };

static bool is_stopped(const atomic_bool *stop)
{
	return stop && atomic_load(stop);
}

static enum status stopped(struct error *err)
{
	return error_set(err, STATUS_CANCELLED, "stopped");
}

/* ---- random numbers: splitmix64 (Steele, Lea, Flood 2014) -------------------------------------------------------------- */

static const uint64_t golden = 0x9e3779b97f4a7c15u;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Number `index` of the sequence that `seed` gives; no two are equal. */
static uint64_t random_at(uint64_t seed, uint64_t index)
{
	return mix(mix(seed) + (index + 1) * golden);
}

/* `random` scaled to 0 … bound - 1. */
static int64_t below(uint64_t random, int64_t bound)
{
	return (int64_t)(((unsigned __int128)random * (uint64_t)bound) >> 64);
}

/* ---- results ----------------------------------------------------------------------------------------------------------- */

static enum status allocate(int64_t count, int64_t length, const char *path, struct sequences *ret, struct error *err)
{
	if (count > MAX_TOKENS / length)
		return error_set(err, STATUS_INVALID, "%s: %" PRId64 " windows of %" PRId64 " tokens are more than can be used",
				 path, count, length);
	struct sequences sequences = {.count = count, .length = length};
	sequences.ids = malloc((size_t)(count * length) * sizeof *sequences.ids);
	if (!sequences.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for %" PRId64 " windows of %s", count, path);
	*ret = sequences;
	return STATUS_OK;
}

void sequences_hash(struct sequences *sequences)
{
	uint64_t hash = 0xcbf29ce484222325u;
	for (int64_t i = 0; i < sequences->count * sequences->length; i++)
		for (int byte = 0; byte < 4; byte++)
			hash = (hash ^ ((uint32_t)sequences->ids[i] >> (8 * byte) & 0xff)) * 0x100000001b3u;
	sequences->hash = hash;
}

void sequences_free(struct sequences *sequences)
{
	free(sequences->ids);
	*sequences = (struct sequences){0};
}

/* ---- safetensors with input_ids ---------------------------------------------------------------------------------------- */

/* Reads the first `count` ids; checks them. */
static enum status read_ids(const struct checkpoint *file, const struct tensor_info *info, int64_t vocab, int64_t count,
			    int32_t *to, struct error *err)
{
	enum { CHUNK = 65536 };
	const struct file *shard = &file->shards[info->shard];
	bool wide = info->dtype == DTYPE_I64;
	int64_t *chunk = malloc(CHUNK * sizeof *chunk), columns = info->rank == 2 ? info->shape[1] : 0;
	if (!chunk) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", shard->path);
	enum status status = STATUS_OK;
	for (int64_t first = 0; first < count && status == STATUS_OK; first += CHUNK) {
		int64_t n = count - first < CHUNK ? count - first : CHUNK, size = wide ? 8 : 4;
		status = file_read(shard, chunk, (size_t)(n * size), info->offset + first * size, err);
		for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
			int64_t id = wide ? chunk[i] : ((const int32_t *)chunk)[i], at = first + i;
			char place[64];
			if (id >= 0 && id < vocab) {
				to[at] = (int32_t)id;
				continue;
			}
			if (columns)
				snprintf(place, sizeof place, "%" PRId64 ", %" PRId64, at / columns, at % columns);
			else
				snprintf(place, sizeof place, "%" PRId64, at);
			status = error_set(err, STATUS_INVALID,
					   "%s: input_ids[%s] is %" PRId64 ", but the vocabulary has %" PRId64 " ids", shard->path,
					   place, id, vocab);
		}
	}
	free(chunk);
	return status;
}

/* `samples` rows or windows; all there are where it is 0. */
static enum status token_windows(const struct place *data, const char *path, int64_t vocab, int64_t samples, int64_t length,
				 struct sequences *ret, struct error *err)
{
	struct checkpoint file;
	struct sequences sequences = {0};
	TRY(checkpoint_open_file(data, &file, err));
	const struct tensor_info *info = checkpoint_find(&file, "input_ids");
	int64_t have = 0;
	enum status status = STATUS_OK;
	if (!info)
		status = error_set(err, STATUS_INVALID, "%s: has no tensor 'input_ids'", path);
	else if (info->dtype != DTYPE_I32 && info->dtype != DTYPE_I64)
		status = error_set(err, STATUS_UNSUPPORTED, "%s: 'input_ids' must be I32 or I64", path);
	else if (info->rank != 1 && info->rank != 2)
		status =
			error_set(err, STATUS_INVALID, "%s: 'input_ids' must have one or two dimensions, not %d", path, info->rank);
	else if (info->rank == 2 && info->shape[1] != length)
		status = error_set(err, STATUS_INVALID,
				   "%s: 'input_ids' has rows of %" PRId64 " tokens, but sequence_length is %" PRId64, path,
				   info->shape[1], length);
	else
		have = info->rank == 2 ? info->shape[0] : info->shape[0] / length;
	if (status == STATUS_OK && (have < samples || have == 0))
		status = error_set(err, STATUS_INVALID,
				   "%s: has %" PRId64 " sequences of %" PRId64 " tokens; %" PRId64 " are needed", path, have,
				   length, samples ? samples : 1);
	int64_t count = samples ? samples : have;
	if (status == STATUS_OK) status = allocate(count, length, path, &sequences, err);
	if (status == STATUS_OK) status = read_ids(&file, info, vocab, count * length, sequences.ids, err);
	checkpoint_close(&file);
	if (status != STATUS_OK) {
		sequences_free(&sequences);
		return status;
	}
	*ret = sequences;
	return STATUS_OK;
}

/* ---- kinds ------------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, size_t length, const char *end)
{
	size_t tail = strlen(end);
	return length >= tail && strncmp(name + length - tail, end, tail) == 0;
}

/* A safetensors file begins with the length of its header, which a text would not, and then the header's brace. */
static enum status find_kind(const struct file *file, enum kind *ret, struct error *err)
{
	const char *path = file->path;
	unsigned char head[9] = {0};
	if (file->size >= (int64_t)sizeof head) TRY(file_read(file, head, sizeof head, 0, err));
	if (file->size == 0) return error_set(err, STATUS_INVALID, "%s: is empty", path);
	size_t length = strlen(path);
	if (head[8] == '{' && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] == 0) {
		*ret = KIND_TOKENS;
		return STATUS_OK;
	}
	if (ends_with(path, length, ".safetensors")) return error_set(err, STATUS_INVALID, "%s: is not a safetensors file", path);
	if (ends_with(path, length, ".gz")) length -= 3;
	bool lines = ends_with(path, length, ".jsonl") || ends_with(path, length, ".json") || ends_with(path, length, ".ndjson");
	*ret = lines ? KIND_LINES : KIND_TEXT;
	return STATUS_OK;
}

/* ---- documents --------------------------------------------------------------------------------------------------------- */

static bool is_blank(const char *line, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
	return true;
}

/* The `text` of a JSON Lines record. *ret_record owns *ret_text. */
static enum status parse_record(const char *line, size_t bytes, const char *path, int64_t line_number, cJSON **ret_record,
				const char **ret_text, struct error *err)
{
	char what[4200];
	cJSON *record = NULL;
	snprintf(what, sizeof what, "%s: line %" PRId64, path, line_number);
	TRY(json_parse(line, bytes, what, &record, err));
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "text"));
	if (!text) {
		cJSON_Delete(record);
		return error_set(err, STATUS_INVALID, "%s: must be a JSON object with a string 'text'", what);
	}
	*ret_record = record;
	*ret_text = text;
	return STATUS_OK;
}

struct text {
	char *bytes;
	size_t used, capacity;
};

static enum status text_append(struct text *text, const char *bytes, size_t count, const char *path, struct error *err)
{
	if (text->used + count > MAX_TEXT)
		return error_set(err, STATUS_INVALID, "%s: more than %d bytes of text cannot be tokenized in one piece", path,
				 MAX_TEXT);
	if (text->used + count > text->capacity) {
		size_t capacity = 2 * (text->used + count);
		char *grown = realloc(text->bytes, capacity);
		if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for the text of %s", path);
		text->bytes = grown;
		text->capacity = capacity;
	}
	if (count > 0) memcpy(text->bytes + text->used, bytes, count);
	text->used += count;
	return STATUS_OK;
}

static enum status join_records(struct reader *reader, const char *path, const char *join, const atomic_bool *stop,
				struct text *text, struct error *err)
{
	bool first = true;
	for (;;) {
		const char *line, *document;
		size_t bytes;
		cJSON *record;
		if (is_stopped(stop)) return stopped(err);
		TRY(reader_line(reader, &line, &bytes, err));
		if (!line) return STATUS_OK;
		if (is_blank(line, bytes)) continue;
		TRY(parse_record(line, bytes, path, reader_line_number(reader), &record, &document, err));
		enum status status = first ? STATUS_OK : text_append(text, join, strlen(join), path, err);
		if (status == STATUS_OK) status = text_append(text, document, strlen(document), path, err);
		cJSON_Delete(record);
		TRY(status);
		first = false;
	}
}

/* The whole file as one text: verbatim, or its documents with `join` between them. */
static enum status read_text(const struct file *file, enum kind kind, const char *join, const atomic_bool *stop, struct text *ret,
			     struct error *err)
{
	struct reader *reader;
	struct text text = {0};
	TRY(reader_open(file, &reader, err));
	enum status status = STATUS_OK;
	if (kind == KIND_LINES) {
		status = join_records(reader, file->path, join, stop, &text, err);
	} else {
		const char *bytes;
		size_t count = 1;
		while (status == STATUS_OK && count > 0) {
			status = is_stopped(stop) ? stopped(err) : reader_next(reader, &bytes, &count, err);
			if (status == STATUS_OK) status = text_append(&text, bytes, count, file->path, err);
		}
	}
	reader_close(reader);
	if (status == STATUS_OK && text.used == 0) status = error_set(err, STATUS_INVALID, "%s: has no text", file->path);
	if (status != STATUS_OK) {
		free(text.bytes);
		return status;
	}
	*ret = text;
	return STATUS_OK;
}

/* A document's ids with BOS in front, by the tokenizer's rule. The caller frees *ret. */
static enum status encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int32_t **ret, int64_t *ret_count,
			  struct error *err)
{
	int32_t *ids = NULL, bos = tokenizer_bos(tokenizer);
	size_t count = 0;
	TRY(tokenizer_encode(tokenizer, text, bytes, &ids, &count, err));
	if (bos >= 0) {
		int32_t *grown = realloc(ids, (count + 1) * sizeof *grown);
		if (!grown) {
			free(ids);
			return error_set(err, STATUS_NO_MEMORY, "no memory for %zu ids", count);
		}
		memmove(grown + 1, grown, count * sizeof *grown);
		grown[0] = bos;
		ids = grown;
		count++;
	}
	*ret = ids;
	*ret_count = (int64_t)count;
	return STATUS_OK;
}

/* ---- calibration: windows of one document ------------------------------------------------------------------------------ */

static enum status sample_windows(const struct tokenizer *tokenizer, const struct text *text, const char *path, int64_t seed,
				  struct sequences *sequences, struct error *err)
{
	int32_t *ids;
	int64_t count, length = sequences->length, places;
	TRY(encode(tokenizer, text->bytes, text->used, &ids, &count, err));
	places = count - length + 1;
	if (places < sequences->count) {
		free(ids);
		return error_set(err, STATUS_INVALID,
				 "%s: has %" PRId64 " tokens, too few for %" PRId64 " different windows of %" PRId64 " tokens",
				 path, count, sequences->count, length);
	}
	for (int64_t i = 0; i < sequences->count; i++) {
		int64_t start = below(random_at((uint64_t)seed, (uint64_t)i), places);
		memcpy(sequences->ids + i * length, ids + start, (size_t)length * sizeof *ids);
	}
	free(ids);
	return STATUS_OK;
}

/* ---- calibration: a window of each of many documents ------------------------------------------------------------------- */

struct candidate {
	uint64_t key;
	int64_t line_number;
	char *line;
	size_t bytes;
};

/* Candidates with the lowest keys that are not below `from`. */
struct candidates {
	struct candidate *items;
	size_t count, capacity, bytes;
	uint64_t from, limit; /* keys in [from, limit) were kept, where `cut`; all from `from` on else */
	bool cut;
	int64_t documents; /* seen, long enough or not */
};

static int by_key(const void *a, const void *b)
{
	uint64_t x = ((const struct candidate *)a)->key, y = ((const struct candidate *)b)->key;
	return x < y ? -1 : x > y;
}

static void clear_candidates(struct candidates *candidates)
{
	for (size_t i = 0; i < candidates->count; i++)
		free(candidates->items[i].line);
	candidates->count = candidates->bytes = 0;
}

/* Sorts, and drops from the end until no more than half of what may be held is left, but one. */
static void cut_candidates(struct candidates *candidates)
{
	qsort(candidates->items, candidates->count, sizeof *candidates->items, by_key);
	while (candidates->count > 1 && candidates->bytes > MAX_HELD / 2) {
		struct candidate *last = &candidates->items[--candidates->count];
		candidates->limit = last->key;
		candidates->cut = true;
		candidates->bytes -= last->bytes;
		free(last->line);
	}
}

static enum status add_candidate(struct candidates *candidates, uint64_t key, int64_t line_number, const char *line, size_t bytes,
				 struct error *err)
{
	if (candidates->count == candidates->capacity) {
		size_t capacity = 2 * candidates->capacity + 64;
		struct candidate *grown = realloc(candidates->items, capacity * sizeof *grown);
		if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu documents", capacity);
		candidates->items = grown;
		candidates->capacity = capacity;
	}
	char *copy = malloc(bytes + 1);
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for a document of %zu bytes", bytes);
	memcpy(copy, line, bytes);
	candidates->items[candidates->count++] = (struct candidate){key, line_number, copy, bytes};
	candidates->bytes += bytes;
	if (candidates->bytes > MAX_HELD) cut_candidates(candidates);
	return STATUS_OK;
}

/* One pass over the file: fills `candidates`, sorted, with documents that may have more than `length` tokens. */
static enum status collect(const struct file *file, int64_t seed, int64_t length, const atomic_bool *stop,
			   struct candidates *candidates, struct error *err)
{
	struct reader *reader;
	TRY(reader_open(file, &reader, err));
	enum status status = STATUS_OK;
	candidates->documents = 0;
	candidates->cut = false;
	for (;;) {
		const char *line;
		size_t bytes;
		status = is_stopped(stop) ? stopped(err) : reader_line(reader, &line, &bytes, err);
		if (status != STATUS_OK || !line) break;
		if (is_blank(line, bytes)) continue;
		uint64_t key = random_at((uint64_t)seed, (uint64_t)candidates->documents++);
		bool out = key < candidates->from || (candidates->cut && key >= candidates->limit);
		if (out || (int64_t)bytes + TOKENS_BESIDES_BYTES <= length) continue;
		status = add_candidate(candidates, key, reader_line_number(reader), line, bytes, err);
		if (status != STATUS_OK) break;
	}
	reader_close(reader);
	if (status == STATUS_OK && candidates->count)
		qsort(candidates->items, candidates->count, sizeof *candidates->items, by_key);
	return status;
}

/* Appends a window of the document to the *taken sequences that are there, if it has more than `length` tokens. */
static enum status take_window(const struct tokenizer *tokenizer, const char *path, const struct candidate *candidate,
			       struct sequences *sequences, int64_t *taken, struct error *err)
{
	cJSON *record;
	const char *text;
	int32_t *ids;
	int64_t count, length = sequences->length;
	TRY(parse_record(candidate->line, candidate->bytes, path, candidate->line_number, &record, &text, err));
	enum status status = encode(tokenizer, text, strlen(text), &ids, &count, err);
	cJSON_Delete(record);
	TRY(status);
	if (count > length) {
		int64_t start = below(mix(candidate->key + golden), count - length + 1);
		memcpy(sequences->ids + *taken * length, ids + start, (size_t)length * sizeof *ids);
		++*taken;
	}
	free(ids);
	return STATUS_OK;
}

static enum status sample_documents(const struct tokenizer *tokenizer, const struct file *file, int64_t seed,
				    const atomic_bool *stop, struct sequences *sequences, struct error *err)
{
	struct candidates candidates = {0};
	enum status status;
	int64_t taken = 0;
	do {
		status = collect(file, seed, sequences->length, stop, &candidates, err);
		for (size_t i = 0; i < candidates.count && taken < sequences->count && status == STATUS_OK; i++)
			status = is_stopped(stop)
					 ? stopped(err)
					 : take_window(tokenizer, file->path, &candidates.items[i], sequences, &taken, err);
		clear_candidates(&candidates);
		candidates.from = candidates.limit;
	} while (status == STATUS_OK && candidates.cut && taken < sequences->count);
	free(candidates.items);
	if (status == STATUS_OK && taken < sequences->count)
		status = error_set(err, STATUS_INVALID,
				   "%s: %" PRId64 " of %" PRId64 " documents have more than %" PRId64 " tokens; %" PRId64
				   " samples were asked for",
				   file->path, taken, candidates.documents, sequences->length, sequences->count);
	return status;
}

/* Whether a JSON Lines file has exactly one record. */
static enum status is_single(const struct file *file, bool *ret, struct error *err)
{
	struct reader *reader;
	int documents = 0;
	TRY(reader_open(file, &reader, err));
	enum status status = STATUS_OK;
	while (status == STATUS_OK && documents < 2) {
		const char *line;
		size_t bytes;
		status = reader_line(reader, &line, &bytes, err);
		if (status == STATUS_OK && !line) break;
		if (status == STATUS_OK && !is_blank(line, bytes)) documents++;
	}
	reader_close(reader);
	if (status == STATUS_OK) *ret = documents == 1;
	return status;
}

/* ---- the two uses ------------------------------------------------------------------------------------------------------ */

static enum status sample_text(const struct file *file, enum kind kind, const struct tokenizer *tokenizer, int64_t seed,
			       const atomic_bool *stop, struct sequences *sequences, struct error *err)
{
	bool single = kind == KIND_TEXT;
	struct text text;
	if (!single) TRY(is_single(file, &single, err));
	if (!single) return sample_documents(tokenizer, file, seed, stop, sequences, err);
	TRY(read_text(file, kind, "", stop, &text, err));
	enum status status = is_stopped(stop) ? stopped(err) : sample_windows(tokenizer, &text, file->path, seed, sequences, err);
	free(text.bytes);
	return status;
}

static enum status calibration_of(const struct place *data, const struct file *file, const struct place *model, int64_t vocab,
				  int64_t seed, const atomic_bool *stop, struct warnings *warnings, struct sequences *sequences,
				  struct error *err)
{
	enum kind kind;
	struct tokenizer *tokenizer;
	int64_t samples = sequences->count, length = sequences->length;
	TRY(find_kind(file, &kind, err));
	if (kind == KIND_TOKENS) return token_windows(data, file->path, vocab, samples, length, sequences, err);
	TRY(tokenizer_load(model, vocab, warnings, &tokenizer, err));
	enum status status = allocate(samples, length, file->path, sequences, err);
	if (status == STATUS_OK) status = sample_text(file, kind, tokenizer, seed, stop, sequences, err);
	tokenizer_free(tokenizer);
	return status;
}

/* What both uses end with. */
static enum status deliver(enum status status, struct file *file, struct sequences *sequences, struct sequences *ret)
{
	file_close(file);
	if (status != STATUS_OK) {
		sequences_free(sequences);
		return status;
	}
	sequences_hash(sequences);
	*ret = *sequences;
	return STATUS_OK;
}

enum status corpus_calibration(const struct place *data, const struct place *model, int64_t vocab, int64_t samples, int64_t length,
			       int64_t seed, const atomic_bool *stop, struct warnings *warnings, struct sequences *ret,
			       struct error *err)
{
	struct file file;
	struct sequences sequences = {.count = samples, .length = length};
	if (samples < 1 || length < 1) return error_set(err, STATUS_INVALID, "samples and sequence length must be positive");
	TRY(place_open(data, NULL, &file, err));
	enum status status = calibration_of(data, &file, model, vocab, seed, stop, warnings, &sequences, err);
	return deliver(status, &file, &sequences, ret);
}

static enum status text_windows(const struct file *file, enum kind kind, const struct tokenizer *tokenizer, int64_t length,
				const char *join, const atomic_bool *stop, struct sequences *ret, struct error *err)
{
	struct text text;
	int32_t *ids = NULL;
	int64_t count = 0;
	TRY(read_text(file, kind, join, stop, &text, err));
	enum status status = is_stopped(stop) ? stopped(err) : encode(tokenizer, text.bytes, text.used, &ids, &count, err);
	free(text.bytes);
	if (status == STATUS_OK && count < length)
		status = error_set(err, STATUS_INVALID, "%s: has %" PRId64 " tokens, fewer than one window of %" PRId64, file->path,
				   count, length);
	if (status == STATUS_OK) status = allocate(count / length, length, file->path, ret, err);
	if (status == STATUS_OK) memcpy(ret->ids, ids, (size_t)(ret->count * length) * sizeof *ids);
	free(ids);
	return status;
}

static enum status evaluation_of(const struct place *data, const struct file *file, const struct place *model, int64_t vocab,
				 const char *join, const atomic_bool *stop, struct warnings *warnings, struct sequences *sequences,
				 struct error *err)
{
	enum kind kind;
	struct tokenizer *tokenizer;
	int64_t length = sequences->length;
	TRY(find_kind(file, &kind, err));
	if (kind == KIND_TOKENS) return token_windows(data, file->path, vocab, 0, length, sequences, err);
	TRY(tokenizer_load(model, vocab, warnings, &tokenizer, err));
	enum status status = text_windows(file, kind, tokenizer, length, join, stop, sequences, err);
	tokenizer_free(tokenizer);
	return status;
}

enum status corpus_evaluation(const struct place *data, const struct place *model, int64_t vocab, int64_t length, const char *join,
			      const atomic_bool *stop, struct warnings *warnings, struct sequences *ret, struct error *err)
{
	struct file file;
	struct sequences sequences = {.length = length};
	if (length < 1) return error_set(err, STATUS_INVALID, "the sequence length must be positive");
	TRY(place_open(data, NULL, &file, err));
	enum status status = evaluation_of(data, &file, model, vocab, join, stop, warnings, &sequences, err);
	return deliver(status, &file, &sequences, ret);
}
