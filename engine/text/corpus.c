/* Sampling. Every document i of a file has a key, a bijective hash of (seed, i); documents are taken in the order of their keys,
 * and the window of each comes from a further hash of its key. So the sample depends on the seed and the file alone, not on the
 * machine, on how the file was read, or on how many samples are asked for: fewer are a prefix of more. */
#include "engine/text/corpus.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "engine/model/checkpoint.h"
#include "engine/text/census.h"
#include "engine/text/documents.h"
#include "engine/text/kind.h"
#include "engine/text/reader.h"
#include "engine/text/text_buffer.h"

enum {
	MAX_TEXT = 256 << 20,     /* bytes that are tokenized in one piece */
	MAX_TOKENS = 1 << 30,     /* of one result */
	TOKENS_BESIDES_BYTES = 2, /* no token stands for less than a byte, but for BOS and a space put in front */
};

size_t corpus_max_held = 128 << 20;

/* An open data file that has text. */
struct data {
	struct file file;
	enum data_kind kind;
	const char *field;
	const atomic_bool *stop;
	struct warnings *warnings;
};

static bool is_stopped(const atomic_bool *stop)
{
	return stop && atomic_load(stop);
}

static enum status stopped(struct error *err)
{
	return error_set(err, STATUS_CANCELLED, "stopped");
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

/* ---- text -------------------------------------------------------------------------------------------------------------- */

static enum status open_data(const struct data_source *source, struct data *ret, struct error *err)
{
	TRY(place_open(source->place, NULL, &ret->file, err));
	ret->field = source->field;
	enum status status = data_kind_find(&ret->file, source->name, &ret->kind, NULL, err);
	if (status != STATUS_OK) file_close(&ret->file);
	return status;
}

static enum status open_documents(const struct data *data, struct documents **ret, struct error *err)
{
	return documents_open(&data->file, data->kind, data->field, data->warnings, ret, err);
}

static enum status append(struct text_buffer *text, const char *bytes, size_t count, const struct data *data, struct error *err)
{
	if (text->size + count > MAX_TEXT)
		return error_set(err, STATUS_INVALID, "%s: more than %d bytes of text cannot be tokenized in one piece",
				 data->file.path, MAX_TEXT);
	return text_append(text, bytes, count, err);
}

static enum status join_documents(const struct data *data, const char *join, struct text_buffer *text, struct error *err)
{
	struct documents *documents;
	const char *document;
	size_t bytes;
	bool first = true;
	TRY(open_documents(data, &documents, err));
	enum status status = STATUS_OK;
	for (; status == STATUS_OK; first = false) {
		status = is_stopped(data->stop) ? stopped(err) : documents_next(documents, &document, &bytes, err);
		if (status != STATUS_OK || !document) break;
		if (!first) status = append(text, join, strlen(join), data, err);
		if (status == STATUS_OK) status = append(text, document, bytes, data, err);
	}
	documents_close(documents);
	return status;
}

static enum status read_verbatim(const struct data *data, struct text_buffer *text, struct error *err)
{
	struct reader *reader;
	const char *bytes;
	size_t count = 1;
	TRY(reader_open(&data->file, &reader, err));
	enum status status = STATUS_OK;
	while (status == STATUS_OK && count > 0) {
		status = is_stopped(data->stop) ? stopped(err) : reader_next(reader, &bytes, &count, err);
		if (status == STATUS_OK) status = append(text, bytes, count, data, err);
	}
	reader_close(reader);
	TRY(status);
	struct census census = census_take(text->data, text->size, false);
	TRY(census_judge(&census, text->size, data->file.path, err));
	if (census.invalid)
		warnings_add(data->warnings, "%s: %zu byte sequences are not UTF-8, the first at byte %zu, and are read as U+FFFD",
			     data->file.path, census.invalid, census.first_bad);
	return STATUS_OK;
}

/* The whole file as one text: verbatim, or its documents with `join` between them. */
static enum status read_text(const struct data *data, const char *join, struct text_buffer *ret, struct error *err)
{
	struct text_buffer text = {0};
	enum status status = data->kind == DATA_TEXT ? read_verbatim(data, &text, err) : join_documents(data, join, &text, err);
	if (status == STATUS_OK && text.size == 0) status = error_set(err, STATUS_INVALID, "%s: has no text", data->file.path);
	if (status != STATUS_OK) {
		text_buffer_free(&text);
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

static enum status sample_windows(const struct tokenizer *tokenizer, const struct text_buffer *text, const char *path, int64_t seed,
				  struct sequences *sequences, struct error *err)
{
	int32_t *ids;
	int64_t count, length = sequences->length, places;
	TRY(encode(tokenizer, text->data, text->size, &ids, &count, err));
	places = count - length + 1;
	if (places < sequences->count) {
		free(ids);
		return error_set(err, STATUS_INVALID,
				 "%s: has %" PRId64 " tokens, too few for %" PRId64 " different windows of %" PRId64 " tokens",
				 path, count, sequences->count, length);
	}
	for (int64_t i = 0; i < sequences->count; i++) {
		int64_t start = random_below(random_at((uint64_t)seed, (uint64_t)i), places);
		memcpy(sequences->ids + i * length, ids + start, (size_t)length * sizeof *ids);
	}
	free(ids);
	return STATUS_OK;
}

/* ---- calibration: a window of each of many documents ------------------------------------------------------------------- */

struct candidate {
	uint64_t key;
	char *text;
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
		free(candidates->items[i].text);
	candidates->count = candidates->bytes = 0;
}

/* Sorts, and drops from the end until no more than half of what may be held is left, but one. */
static void cut_candidates(struct candidates *candidates)
{
	qsort(candidates->items, candidates->count, sizeof *candidates->items, by_key);
	while (candidates->count > 1 && candidates->bytes > corpus_max_held / 2) {
		struct candidate *last = &candidates->items[--candidates->count];
		candidates->limit = last->key;
		candidates->cut = true;
		candidates->bytes -= last->bytes;
		free(last->text);
	}
}

static enum status add_candidate(struct candidates *candidates, uint64_t key, const char *text, size_t bytes, struct error *err)
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
	memcpy(copy, text, bytes);
	candidates->items[candidates->count++] = (struct candidate){key, copy, bytes};
	candidates->bytes += bytes;
	if (candidates->bytes > corpus_max_held) cut_candidates(candidates);
	return STATUS_OK;
}

/* One pass over the file: fills `candidates`, sorted, with documents that may have more than `length` tokens. */
static enum status collect(const struct data *data, int64_t seed, int64_t length, struct candidates *candidates, struct error *err)
{
	struct documents *documents;
	const char *text;
	size_t bytes;
	TRY(open_documents(data, &documents, err));
	enum status status = STATUS_OK;
	candidates->documents = 0;
	candidates->cut = false;
	while (status == STATUS_OK) {
		status = is_stopped(data->stop) ? stopped(err) : documents_next(documents, &text, &bytes, err);
		if (status != STATUS_OK || !text) break;
		uint64_t key = random_at((uint64_t)seed, (uint64_t)candidates->documents++);
		bool out = key < candidates->from || (candidates->cut && key >= candidates->limit);
		if (out || (int64_t)bytes + TOKENS_BESIDES_BYTES <= length) continue;
		status = add_candidate(candidates, key, text, bytes, err);
	}
	documents_close(documents);
	if (status == STATUS_OK && candidates->count)
		qsort(candidates->items, candidates->count, sizeof *candidates->items, by_key);
	return status;
}

/* Appends a window of the document to the *taken sequences that are there, if it has more than `length` tokens. */
static enum status take_window(const struct tokenizer *tokenizer, const struct candidate *candidate, struct sequences *sequences,
			       int64_t *taken, struct error *err)
{
	int32_t *ids;
	int64_t count, length = sequences->length;
	TRY(encode(tokenizer, candidate->text, candidate->bytes, &ids, &count, err));
	if (count > length) {
		int64_t start = random_below(random_mix(candidate->key + RANDOM_GOLDEN), count - length + 1);
		memcpy(sequences->ids + *taken * length, ids + start, (size_t)length * sizeof *ids);
		++*taken;
	}
	free(ids);
	return STATUS_OK;
}

static enum status sample_documents(const struct tokenizer *tokenizer, const struct data *data, int64_t seed,
				    struct sequences *sequences, struct error *err)
{
	struct candidates candidates = {0};
	enum status status;
	int64_t taken = 0;
	do {
		status = collect(data, seed, sequences->length, &candidates, err);
		for (size_t i = 0; i < candidates.count && taken < sequences->count && status == STATUS_OK; i++)
			status = is_stopped(data->stop) ? stopped(err)
							: take_window(tokenizer, &candidates.items[i], sequences, &taken, err);
		clear_candidates(&candidates);
		candidates.from = candidates.limit;
	} while (status == STATUS_OK && candidates.cut && taken < sequences->count);
	free(candidates.items);
	if (status == STATUS_OK && taken < sequences->count)
		status = error_set(err, STATUS_INVALID,
				   "%s: %" PRId64 " of %" PRId64 " documents have more than %" PRId64 " tokens; %" PRId64
				   " samples were asked for",
				   data->file.path, taken, candidates.documents, sequences->length, sequences->count);
	return status;
}

/* Whether the file's rows have exactly one text. */
static enum status is_single(const struct data *data, bool *ret, struct error *err)
{
	struct documents *documents;
	const char *text = "";
	size_t bytes;
	int count = 0;
	TRY(open_documents(data, &documents, err));
	enum status status = STATUS_OK;
	for (; status == STATUS_OK && text && count < 2; count += text != NULL)
		status = is_stopped(data->stop) ? stopped(err) : documents_next(documents, &text, &bytes, err);
	documents_close(documents);
	if (status == STATUS_OK) *ret = count == 1;
	return status;
}

/* ---- the two uses ------------------------------------------------------------------------------------------------------ */

static enum status sample_text(const struct data *data, const struct tokenizer *tokenizer, int64_t seed,
			       struct sequences *sequences, struct error *err)
{
	bool single = data->kind == DATA_TEXT;
	struct text_buffer text;
	if (!single) TRY(is_single(data, &single, err));
	if (!single) return sample_documents(tokenizer, data, seed, sequences, err);
	TRY(read_text(data, "", &text, err));
	enum status status =
		is_stopped(data->stop) ? stopped(err) : sample_windows(tokenizer, &text, data->file.path, seed, sequences, err);
	text_buffer_free(&text);
	return status;
}

static enum status calibrate(const struct data_source *source, const struct data *data, const struct place *model, int64_t vocab,
			     int64_t samples, int64_t length, int64_t seed, struct sequences *sequences, struct error *err)
{
	struct tokenizer *tokenizer;
	if (data->kind == DATA_TOKENS) return token_windows(source->place, data->file.path, vocab, samples, length, sequences, err);
	TRY(tokenizer_load(model, vocab, data->warnings, &tokenizer, err));
	enum status status = allocate(samples, length, data->file.path, sequences, err);
	if (status == STATUS_OK) status = sample_text(data, tokenizer, seed, sequences, err);
	tokenizer_free(tokenizer);
	return status;
}

enum status corpus_calibration(const struct data_source *source, const struct place *model, int64_t vocab, int64_t samples,
			       int64_t length, int64_t seed, const atomic_bool *stop, struct warnings *warnings,
			       struct sequences *ret, struct error *err)
{
	struct data data = {.stop = stop, .warnings = warnings};
	struct sequences sequences = {0};
	if (samples < 1 || length < 1) return error_set(err, STATUS_INVALID, "samples and sequence length must be positive");
	TRY(open_data(source, &data, err));
	enum status status = calibrate(source, &data, model, vocab, samples, length, seed, &sequences, err);
	file_close(&data.file);
	if (status != STATUS_OK) {
		sequences_free(&sequences);
		return status;
	}
	sequences_hash(&sequences);
	*ret = sequences;
	return STATUS_OK;
}

static enum status text_windows(const struct data *data, const struct tokenizer *tokenizer, int64_t length, const char *join,
				struct sequences *ret, struct error *err)
{
	struct text_buffer text;
	int32_t *ids = NULL;
	int64_t count = 0;
	const char *path = data->file.path;
	TRY(read_text(data, join, &text, err));
	enum status status = is_stopped(data->stop) ? stopped(err) : encode(tokenizer, text.data, text.size, &ids, &count, err);
	text_buffer_free(&text);
	if (status == STATUS_OK && count < length)
		status = error_set(err, STATUS_INVALID, "%s: has %" PRId64 " tokens, fewer than one window of %" PRId64, path,
				   count, length);
	if (status == STATUS_OK) status = allocate(count / length, length, path, ret, err);
	if (status == STATUS_OK) memcpy(ret->ids, ids, (size_t)(ret->count * length) * sizeof *ids);
	free(ids);
	return status;
}

static enum status evaluate(const struct data_source *source, const struct data *data, const struct place *model, int64_t vocab,
			    int64_t length, const char *join, struct sequences *ret, struct error *err)
{
	struct tokenizer *tokenizer;
	if (data->kind == DATA_TOKENS) return token_windows(source->place, data->file.path, vocab, 0, length, ret, err);
	TRY(tokenizer_load(model, vocab, data->warnings, &tokenizer, err));
	enum status status = text_windows(data, tokenizer, length, join, ret, err);
	tokenizer_free(tokenizer);
	return status;
}

enum status corpus_evaluation(const struct data_source *source, const struct place *model, int64_t vocab, int64_t length,
			      const char *join, const atomic_bool *stop, struct warnings *warnings, struct sequences *ret,
			      struct error *err)
{
	struct data data = {.stop = stop, .warnings = warnings};
	struct sequences sequences = {0};
	if (length < 1) return error_set(err, STATUS_INVALID, "the sequence length must be positive");
	TRY(open_data(source, &data, err));
	enum status status = evaluate(source, &data, model, vocab, length, join, &sequences, err);
	file_close(&data.file);
	TRY(status);
	sequences_hash(&sequences);
	*ret = sequences;
	return STATUS_OK;
}
