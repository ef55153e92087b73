/* Calibration and evaluation data: every kind of file, sampling by seed, and what is too little, too large or broken. */
#include <zlib.h>

#include "tests/unit/scratch.h"

#include "engine/text/corpus.h"

static const char demo[] = "demo/tiny-llama";
enum { VOCAB = 2048 };

static const atomic_bool running = false, stopping = true;

static enum status calibrate(struct scratch *s, const char *path, int64_t samples, int64_t length, int64_t seed,
			     struct sequences *ret)
{
	return corpus_calibration(&PLACE(path), &PLACE(demo), VOCAB, samples, length, seed, &running, NULL, ret, &s->err);
}

static enum status evaluate(struct scratch *s, const char *path, int64_t length, struct sequences *ret)
{
	return corpus_evaluation(&PLACE(path), &PLACE(demo), VOCAB, length, "\n\n", &running, NULL, ret, &s->err);
}

static uint64_t fnv(const int32_t *ids, int64_t count)
{
	uint64_t hash = 0xcbf29ce484222325u;
	for (int64_t i = 0; i < count; i++)
		for (int byte = 0; byte < 4; byte++)
			hash = (hash ^ ((uint32_t)ids[i] >> (8 * byte) & 0xff)) * 0x100000001b3u;
	return hash;
}

static void gzip(struct scratch *s, const char *name, const char *text, size_t bytes)
{
	gzFile file = gzopen(scratch_path(s, name), "ab"); /* a second call appends a second member */
	assert_non_null(file);
	assert_int_equal(gzwrite(file, text, (unsigned)bytes), bytes);
	assert_int_equal(gzclose(file), Z_OK);
}

static void assert_same(const struct sequences *a, const struct sequences *b)
{
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->length, b->length);
	assert_memory_equal(a->ids, b->ids, (size_t)(a->count * a->length) * sizeof *a->ids);
	assert_true(a->hash == b->hash);
}

/* The hashes are those of the ids that the sentencepiece package gives for the demo's text in one piece, BOS in front. */
static void test_evaluation_text(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences, gzipped;
	char *text;
	size_t bytes;
	SUCCEEDS(evaluate(s, "demo/wikitext2.test.txt", 256, &sequences));
	assert_int_equal(sequences.count, 480232 / 256);
	assert_int_equal(sequences.length, 256);
	assert_int_equal(sequences.ids[0], 1);
	assert_true(fnv(sequences.ids, 65536) == 0x0fe339e2a12c70adu);
	assert_true(sequences.hash == fnv(sequences.ids, sequences.count * 256));
	SUCCEEDS(file_slurp("demo/wikitext2.test.txt", 1 << 24, &text, &bytes, &s->err));
	gzip(s, "text.gz", text, bytes / 3);
	gzip(s, "text.gz", text + bytes / 3, bytes - bytes / 3);
	SUCCEEDS(evaluate(s, scratch_path(s, "text.gz"), 256, &gzipped));
	assert_same(&sequences, &gzipped);
	free(text);
	sequences_free(&gzipped);
	sequences_free(&sequences);
	sequences_free(&sequences);
}

static void test_evaluation_joins(void **state)
{
	struct scratch *s = *state;
	struct sequences lines, text;
	scratch_text(s, "a.jsonl",
		     "{\"text\":\"one two\"}\n\n{\"id\":7,\"text\":\"three \\\"four\\\"\"}\r\n{\"text\":\"five\\nsix\"}");
	scratch_text(s, "a.txt", "one two + three \"four\" + five\nsix");
	SUCCEEDS(corpus_evaluation(&PLACE(scratch_path(s, "a.txt")), &PLACE(demo), VOCAB, 4, "\n\n", &running, NULL, &text,
				   &s->err));
	SUCCEEDS(corpus_evaluation(&PLACE(scratch_path(s, "a.jsonl")), &PLACE(demo), VOCAB, 4, " + ", &running, NULL, &lines,
				   &s->err));
	assert_same(&lines, &text);
	sequences_free(&lines);
	SUCCEEDS(corpus_evaluation(&PLACE(scratch_path(s, "a.jsonl")), &PLACE(demo), VOCAB, 4, "\n\n", &running, NULL, &lines,
				   &s->err));
	assert_false(lines.hash == text.hash);
	sequences_free(&lines);
	sequences_free(&text);
}

static void test_tokens(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	SUCCEEDS(calibrate(s, "demo/calibration.safetensors", 128, 256, 0, &sequences));
	assert_true(sequences.hash == 0x80957af2507a9926u);
	sequences_free(&sequences);
	SUCCEEDS(calibrate(s, "demo/calibration.safetensors", 2, 256, 99, &sequences)); /* the first rows, whatever the seed */
	assert_int_equal(sequences.ids[0], 279);
	sequences_free(&sequences);
	FAILS(STATUS_INVALID, "has 128 sequences of 256 tokens; 129 are needed",
	      calibrate(s, "demo/calibration.safetensors", 129, 256, 0, &sequences));
	FAILS(STATUS_INVALID, "has rows of 256 tokens, but sequence_length is 128",
	      calibrate(s, "demo/calibration.safetensors", 1, 128, 0, &sequences));
	FAILS(STATUS_INVALID, "but the vocabulary has 300 ids",
	      corpus_calibration(&PLACE("demo/calibration.safetensors"), &PLACE(demo), 300, 1, 256, 0, &running, NULL, &sequences,
				 &s->err));

	/* 40 bytes 0, 1, 2 …: as I64 the ids are beyond any vocabulary; rewritten below as small ones. */
	scratch_safetensors(s, "l.safetensors", "{\"input_ids\":{\"dtype\":\"I64\",\"shape\":[5],\"data_offsets\":[0,40]}}", 40);
	FAILS(STATUS_INVALID, "input_ids[0] is 506097522914230528", evaluate(s, scratch_path(s, "l.safetensors"), 2, &sequences));
	struct file file;
	int64_t ids[5] = {9, 8, 7, 6, 5};
	SUCCEEDS(file_open_write(scratch_path(s, "l.safetensors"), &file, &s->err));
	SUCCEEDS(file_write(&file, ids, sizeof ids, file.size - (int64_t)sizeof ids, &s->err));
	SUCCEEDS(evaluate(s, s->path, 2, &sequences));
	assert_int_equal(sequences.count, 2);
	static const int32_t expected[] = {9, 8, 7, 6};
	assert_memory_equal(sequences.ids, expected, sizeof expected);
	sequences_free(&sequences);
	ids[2] = -1;
	SUCCEEDS(file_write(&file, ids, sizeof ids, file.size - (int64_t)sizeof ids, &s->err));
	FAILS(STATUS_INVALID, "input_ids[2] is -1", evaluate(s, scratch_path(s, "l.safetensors"), 2, &sequences));
	file_close(&file);
	FAILS(STATUS_INVALID, "has 0 sequences of 6 tokens; 1 are needed",
	      evaluate(s, scratch_path(s, "l.safetensors"), 6, &sequences));

	static const struct {
		const char *header, *part;
		enum status status;
		size_t data;
	} broken[] = {
		{"{\"ids\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "no tensor 'input_ids'", STATUS_INVALID, 4},
		{"{\"input_ids\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "must be I32 or I64",
		 STATUS_UNSUPPORTED, 4},
		{"{\"input_ids\":{\"dtype\":\"U32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "must be I32 or I64",
		 STATUS_UNSUPPORTED, 4},
		{"{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[1,1,1],\"data_offsets\":[0,4]}}", "one or two dimensions",
		 STATUS_INVALID, 4},
		{"{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "out of range", STATUS_INVALID, 4},
	};
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		scratch_safetensors(s, "b.safetensors", broken[i].header, broken[i].data);
		FAILS(broken[i].status, broken[i].part, evaluate(s, scratch_path(s, "b.safetensors"), 1, &sequences));
	}
}

/* Whether `window` is somewhere in `ids`. */
static bool is_within(const int32_t *ids, int64_t count, const int32_t *window, int64_t length)
{
	for (int64_t i = 0; i + length <= count; i++)
		if (memcmp(ids + i, window, (size_t)length * sizeof *ids) == 0) return true;
	return false;
}

static void test_single_document(void **state)
{
	struct scratch *s = *state;
	struct sequences whole, first, again, other, fewer;
	char *text;
	size_t bytes;
	SUCCEEDS(file_slurp("demo/wikitext2.test.txt", 1 << 24, &text, &bytes, &s->err));
	scratch_write(s, "a.txt", text, 20000);
	free(text);
	SUCCEEDS(evaluate(s, scratch_path(s, "a.txt"), 1, &whole));
	SUCCEEDS(calibrate(s, scratch_path(s, "a.txt"), 20, 64, 7, &first));
	SUCCEEDS(calibrate(s, scratch_path(s, "a.txt"), 20, 64, 7, &again));
	SUCCEEDS(calibrate(s, scratch_path(s, "a.txt"), 20, 64, 8, &other));
	SUCCEEDS(calibrate(s, scratch_path(s, "a.txt"), 5, 64, 7, &fewer));
	assert_same(&first, &again);
	assert_false(first.hash == other.hash);
	assert_memory_equal(first.ids, fewer.ids, 5 * 64 * sizeof *first.ids);
	for (int i = 0; i < 20; i++)
		assert_true(is_within(whole.ids, whole.count, first.ids + i * 64, 64));
	assert_false(memcmp(first.ids, first.ids + 64, 64 * sizeof *first.ids) == 0);
	sequences_free(&whole);
	sequences_free(&first);
	sequences_free(&again);
	sequences_free(&other);
	sequences_free(&fewer);
	scratch_text(s, "short.txt", "a few words");
	FAILS(STATUS_INVALID, "too few for 128 different windows of 256 tokens",
	      calibrate(s, scratch_path(s, "short.txt"), 128, 256, 0, &first));
}

/* 200 documents: number i has i words, all of them "w", then the number. Each record has another field of `padding` bytes. */
static void write_documents(struct scratch *s, const char *name, bool compressed, int padding)
{
	char *text = calloc(200, 700 + (size_t)padding), *end = text;
	assert_non_null(text);
	for (int i = 0; i < 200; i++) {
		end += sprintf(end, "{\"padding\":\"%0*d\",\"text\":\"", padding, 0);
		for (int j = 0; j < i; j++)
			end += sprintf(end, "w ");
		end += sprintf(end, "%d\"}\n", i);
	}
	if (compressed)
		gzip(s, name, text, (size_t)(end - text));
	else
		scratch_write(s, name, text, (size_t)(end - text));
	free(text);
}

static void test_documents(void **state)
{
	struct scratch *s = *state;
	struct sequences first, gzipped, other, fewer;
	write_documents(s, "docs.jsonl", false, 1);
	write_documents(s, "docs.json.gz", true, 1);
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 40, 100, 3, &first));
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.json.gz"), 40, 100, 3, &gzipped));
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 40, 100, 4, &other));
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 8, 100, 3, &fewer));
	assert_same(&first, &gzipped);
	assert_false(first.hash == other.hash);
	assert_memory_equal(first.ids, fewer.ids, 8 * 100 * sizeof *first.ids);
	assert_true(first.hash == 0x7d1279096bc484e1u); /* worked out in Python from the rule of corpus.c */
	/* Windows start at the document's BOS or within it, never beyond. */
	bool starts = false, within = false;
	for (int i = 0; i < 40; i++) {
		starts |= first.ids[i * 100] == 1;
		within |= first.ids[i * 100] != 1;
		for (int j = 1; j < 100; j++)
			assert_int_not_equal(first.ids[i * 100 + j], 1);
	}
	assert_true(within && starts);
	sequences_free(&first);
	sequences_free(&gzipped);
	sequences_free(&other);
	sequences_free(&fewer);
	FAILS(STATUS_INVALID, "of 200 documents have more than 190 tokens; 40 samples were asked for",
	      calibrate(s, scratch_path(s, "docs.jsonl"), 40, 190, 3, &first));
	/* A single record is a single document. */
	scratch_text(s, "one.json", "\n{\"text\":\"one two three four five six seven eight nine ten eleven twelve\"}\n");
	SUCCEEDS(calibrate(s, scratch_path(s, "one.json"), 3, 8, 0, &first));
	sequences_free(&first);
}

/* More text than is held at once: several passes give the same sample as one. */
static void test_large_documents(void **state)
{
	struct scratch *s = *state;
	struct sequences small, large;
	write_documents(s, "small.jsonl", false, 1);
	write_documents(s, "large.jsonl.gz", true, 1 << 20);
	SUCCEEDS(calibrate(s, scratch_path(s, "small.jsonl"), 90, 100, 5, &small));
	SUCCEEDS(calibrate(s, scratch_path(s, "large.jsonl.gz"), 90, 100, 5, &large));
	assert_same(&small, &large);
	sequences_free(&small);
	sequences_free(&large);
}

static void test_broken_text(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	static const struct {
		const char *name, *text, *part;
	} cases[] = {
		{"empty.txt", "", "empty.txt: is empty"},
		{"empty.safetensors", "", "is empty"},
		{"blank.jsonl", "\n \n", "has no text"},
		{"bad.jsonl", "{\"text\":\"a\"}\n{\"text\":\n", "bad.jsonl: line 2: not valid JSON"},
		{"nul.jsonl", "{\"text\":\"a\\u0000b\"}", "line 1: not valid JSON: a NUL character"},
		{"utf8.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"\xff\"}\n", "line 3: not valid UTF-8"},
		{"other.jsonl", "{\"text\":\"a\"}\n{\"content\":\"a\"}\n", "line 2: must be a JSON object with a string 'text'"},
		{"list.json", "[\n{\"text\":\"a\"}\n]", "list.json: line 1: not valid JSON"},
		{"number.jsonl", "{\"text\":1}\n", "line 1: must be"},
		{"no.safetensors", "text that is long enough", "is not a safetensors file"},
		{"short.txt", "word", "tokens, fewer than one window of 64"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, cases[i].name, cases[i].text);
		FAILS(STATUS_INVALID, cases[i].part, evaluate(s, scratch_path(s, cases[i].name), 64, &sequences));
	}
	scratch_text(s, "empty.jsonl", "");
	FAILS(STATUS_INVALID, "is empty", calibrate(s, scratch_path(s, "empty.jsonl"), 1, 8, 0, &sequences));
	scratch_text(s, "bad.jsonl", "{\"text\":\"a long enough line\"}\n{\"text\":\"another one\n");
	FAILS(STATUS_INVALID, "bad.jsonl: line 2", calibrate(s, scratch_path(s, "bad.jsonl"), 2, 4, 0, &sequences));
	FAILS(STATUS_NOT_FOUND, "/none.txt", evaluate(s, scratch_path(s, "none.txt"), 64, &sequences));
	FAILS(STATUS_NOT_FOUND, "tokenizer",
	      corpus_evaluation(&PLACE("demo/wikitext2.test.txt"), &PLACE(s->directory), VOCAB, 64, "", &running, NULL, &sequences,
				&s->err));
	FAILS(STATUS_INVALID, "the tokenizer has 2048 ids, but the model's embedding only 2000 rows",
	      corpus_evaluation(&PLACE("demo/wikitext2.test.txt"), &PLACE(demo), 2000, 64, "", &running, NULL, &sequences,
				&s->err));
}

static void test_broken_gzip(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	char *bytes;
	size_t size;
	gzip(s, "a.txt.gz", "the same words again and again and again", 40);
	SUCCEEDS(file_slurp(scratch_path(s, "a.txt.gz"), 1000, &bytes, &size, &s->err));
	for (size_t cut = 2; cut < size; cut++) {
		scratch_write(s, "cut.txt.gz", bytes, cut);
		FAILS(STATUS_INVALID, "the gzip data is cut short", evaluate(s, scratch_path(s, "cut.txt.gz"), 4, &sequences));
	}
	bytes[size - 6] ^= 1; /* the checksum */
	scratch_write(s, "bad.txt.gz", bytes, size);
	FAILS(STATUS_INVALID, "bad gzip data", evaluate(s, scratch_path(s, "bad.txt.gz"), 4, &sequences));
	free(bytes);
	gzip(s, "none.txt.gz", "", 0);
	FAILS(STATUS_INVALID, "has no text", evaluate(s, scratch_path(s, "none.txt.gz"), 4, &sequences));
}

static void test_stop(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	write_documents(s, "docs.jsonl", false, 1);
	FAILS(STATUS_CANCELLED, "stopped",
	      corpus_calibration(&PLACE(scratch_path(s, "docs.jsonl")), &PLACE(demo), VOCAB, 4, 10, 0, &stopping, NULL, &sequences,
				 &s->err));
	FAILS(STATUS_CANCELLED, "stopped",
	      corpus_evaluation(&PLACE("demo/wikitext2.test.txt"), &PLACE(demo), VOCAB, 64, "", &stopping, NULL, &sequences,
				&s->err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_evaluation_text), SCRATCH_TEST(test_evaluation_joins), SCRATCH_TEST(test_tokens),
		SCRATCH_TEST(test_single_document), SCRATCH_TEST(test_documents),        SCRATCH_TEST(test_large_documents),
		SCRATCH_TEST(test_broken_text),     SCRATCH_TEST(test_broken_gzip),      SCRATCH_TEST(test_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
