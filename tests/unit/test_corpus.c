/* Calibration and evaluation data: every kind of file, sampling by seed, and what is too little, too large or broken. */
#include <zlib.h>
#include <zstd.h>

#include "tests/unit/scratch.h"

#include "engine/text/corpus.h"

static const char demo[] = "demo/tiny-llama";
enum { VOCAB = 2048 };

static const atomic_bool running = false, stopping = true;

/* A file under its own name. */
#define SOURCE(file) ((struct data_source){&PLACE(file), file, "text"})

static enum status calibrate(struct scratch *s, const char *path, int64_t samples, int64_t length, int64_t seed,
			     struct sequences *ret)
{
	const struct data_source source = SOURCE(path);
	return corpus_calibration(&source, &PLACE(demo), VOCAB, samples, length, seed, &running, NULL, ret, &s->err);
}

static enum status evaluate_joined(struct scratch *s, const char *path, int64_t length, const char *join, struct sequences *ret)
{
	const struct data_source source = SOURCE(path);
	return corpus_evaluation(&source, &PLACE(demo), VOCAB, length, join, &running, NULL, ret, &s->err);
}

static enum status evaluate(struct scratch *s, const char *path, int64_t length, struct sequences *ret)
{
	return evaluate_joined(s, path, length, "\n\n", ret);
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

/* The hash is that of the ids that transformers gives for the demo's text in one piece, BOS in front; "<unk>" in it is one
 * token. */
static void test_evaluation_text(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences, gzipped;
	char *text;
	size_t bytes;
	SUCCEEDS(evaluate(s, "demo/wikitext2.test.txt", 256, &sequences));
	assert_int_equal(sequences.count, 434578 / 256);
	assert_int_equal(sequences.length, 256);
	assert_int_equal(sequences.ids[0], 1);
	assert_true(fnv(sequences.ids, 65536) == 0x0409a4699b77ae86u);
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
	SUCCEEDS(evaluate_joined(s, scratch_path(s, "a.txt"), 4, "\n\n", &text));
	SUCCEEDS(evaluate_joined(s, scratch_path(s, "a.jsonl"), 4, " + ", &lines));
	assert_same(&lines, &text);
	sequences_free(&lines);
	SUCCEEDS(evaluate_joined(s, scratch_path(s, "a.jsonl"), 4, "\n\n", &lines));
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
	      corpus_calibration(&SOURCE("demo/calibration.safetensors"), &PLACE(demo), 300, 1, 256, 0, &running, NULL, &sequences,
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

/* 200 documents: number i has i words, all of them "w", then the number. */
static void write_documents(struct scratch *s, const char *name, bool compressed)
{
	char *text = calloc(200, 700), *end = text;
	assert_non_null(text);
	for (int i = 0; i < 200; i++) {
		end += sprintf(end, "{\"other\":0,\"text\":\"");
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
	write_documents(s, "docs.jsonl", false);
	write_documents(s, "docs.json.gz", true);
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
	struct sequences one, several;
	size_t held = corpus_max_held;
	write_documents(s, "docs.jsonl", false);
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 90, 100, 5, &one));
	corpus_max_held = 3000;
	SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 90, 100, 5, &several));
	corpus_max_held = held;
	assert_same(&one, &several);
	sequences_free(&one);
	sequences_free(&several);
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
		{"utf8.jsonl", "{\"text\":\"é\"}\n\n{\"text\":\"\xff\"}\n", "utf8.jsonl: line 3: not valid UTF-8"},
		{"other.jsonl", "{\"content\":\"a\", \"id\": 1}\n{\"content\":\"a\"}\n",
		 "no row has text in 'text' (line 1: it has 'content', 'id'); set 'field'"},
		{"number.jsonl", "{\"text\":1}\n", "(line 1: 'text' is a number)"},
		{"columns.json", "{\"text\":[\"a\",\"b\",\"c\"]}", "(line 1: 'text' is a list of 3 without text)"},
		{"strings.json", "[\"a\",\n\"b\"]", "row 1 (line 1): must be an object, and is a string"},
		{"numbers.json", "[1, 2]", "row 1 (line 1): must be an object, and is a number"},
		{"null.json", "[{\"text\":\"a\"},\n\n null]", "row 2 (line 3): must be an object, and is null"},
		{"cut.json", "[{\"text\":\"a\"},\n{\"text\":\"b",
		 "row 2 (line 2): not valid JSON: it ends before the row is complete"},
		{"open.json", "[{\"text\":\"a\"},\n{\"text\":\"b\"}\n",
		 "row 3 (line 3): not valid JSON: the array ends without its ]"},
		{"comma.json", "[{\"text\":\"a\"}\n{\"text\":\"b\"}]", "row 2 (line 2): not valid JSON: no comma"},
		{"tail.json", "[{\"text\":\"a\"},]", "row 2 (line 1): not valid JSON"},
		{"behind.json", "[{\"text\":\"a\"}]\n]", "row 2 (line 2): not valid JSON: something stands behind the array"},
		{"none.json", "[ ]", "has no text: there are no rows"},
		{"objects.json", "{\"text\":\n\"a\"}\n{\"text\"\n\"b\"}\n", "row 2 (line 3): not valid JSON"},
		{"two.jsonl", "{\"text\":\"a\"}\n{\"text\":\"a\"}{\"text\":\"b\"}\n",
		 "line 2: not valid JSON: something stands behind the row"},
		{"no.safetensors", "text that is long enough", "is not a safetensors file"},
		{"short.txt", "word", "tokens, fewer than one window of 64"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, cases[i].name, cases[i].text);
		FAILS(STATUS_INVALID, cases[i].part, evaluate(s, scratch_path(s, cases[i].name), 64, &sequences));
	}
	scratch_text(s, "table", "PAR1\x15\x04\x15");
	FAILS(STATUS_UNSUPPORTED, "table: is a Parquet file", evaluate(s, scratch_path(s, "table"), 64, &sequences));
	scratch_text(s, "empty.jsonl", "");
	FAILS(STATUS_INVALID, "is empty", calibrate(s, scratch_path(s, "empty.jsonl"), 1, 8, 0, &sequences));
	scratch_text(s, "bad.jsonl", "{\"text\":\"a long enough line\"}\n{\"text\":\"another one\n");
	FAILS(STATUS_INVALID, "bad.jsonl: line 2", calibrate(s, scratch_path(s, "bad.jsonl"), 2, 4, 0, &sequences));
	FAILS(STATUS_NOT_FOUND, "/none.txt", evaluate(s, scratch_path(s, "none.txt"), 64, &sequences));
	const struct data_source demo_text = SOURCE("demo/wikitext2.test.txt");
	FAILS(STATUS_NOT_FOUND, "tokenizer",
	      corpus_evaluation(&demo_text, &PLACE(s->directory), VOCAB, 64, "", &running, NULL, &sequences, &s->err));
	FAILS(STATUS_INVALID, "of id 2003, but the model's embedding has 2000 rows",
	      corpus_evaluation(&demo_text, &PLACE(demo), 2000, 64, "", &running, NULL, &sequences, &s->err));
}

/* What the rows of a file give as one text: the same tokens as `expected` has. */
static void expect_text(struct scratch *s, const char *name, const char *field, const char *rows, const char *expected,
			size_t bytes, const char *warning)
{
	struct sequences got, wanted;
	struct warnings warnings = {0};
	scratch_text(s, name, rows);
	const struct data_source source = {&PLACE(scratch_path(s, name)), name, field};
	if (corpus_evaluation(&source, &PLACE(demo), VOCAB, 1, "|", &running, &warnings, &got, &s->err) != STATUS_OK)
		fail_msg("%s: %s", rows, s->err.message);
	struct tokenizer *tokenizer;
	int32_t *ids;
	size_t count;
	SUCCEEDS(tokenizer_load(&PLACE(demo), VOCAB, NULL, &tokenizer, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, expected, bytes, &ids, &count, &s->err));
	wanted = (struct sequences){ids, (int64_t)count, 1, 0};
	if (got.count != wanted.count + 1) fail_msg("%s: other tokens than of %s", rows, expected); /* BOS */
	assert_memory_equal(got.ids + 1, ids, count * sizeof *ids);
	assert_int_equal(warnings.count, warning != NULL);
	if (warning && !strstr(warnings.messages[0], warning)) fail_msg("'%s' is not in '%s'", warning, warnings.messages[0]);
	warnings_free(&warnings);
	sequences_free(&got);
	sequences_free(&wanted);
	tokenizer_free(tokenizer);
}

static void test_rows(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *name, *field, *rows, *expected, *warning;
	} cases[] = {
		{"a.json", "text", "[{\"text\":\"a b\"},{\"text\":\"c\"}]", "a b|c", NULL},
		{"a", "text", "[\n  {\n    \"text\": \"a [b], {c}\"\n  },\n  {\"text\": \"\\\"]\"}\n]\n", "a [b], {c}|\"]", NULL},
		{"a", "text", "{\n \"text\": \"a\"\n}\n{\n \"text\": \"b\"\n}\n", "a|b", NULL},
		{"a.txt", "text", "\xef\xbb\xbf{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}", "a|b", NULL},
		{"a.txt", "text", "\xef\xbb\xbfplain words", "plain words", NULL},
		/* As Python's json reads it. */
		{"a", "text", "{\"text\":\"a\",\"x\":NaN,\"y\":[Infinity,-Infinity]}", "a", NULL},
		{"a", "text", "{\"text\":\"a\",\"text\":\"b\"}", "b", NULL},
		{"a", "text", "{\"text\":\"\\ud83d. \\ude00 \\ud83d\\ude00\"}", "\xef\xbf\xbd. \xef\xbf\xbd \xf0\x9f\x98\x80",
		 NULL},
		/* Rows without text. */
		{"a", "text", "{\"text\":null}\n{\"text\":\"a\"}\n{\"id\":1}\n{\"text\":\"\"}\n{\"text\":\"b\"}", "a||b",
		 "2 of 5 rows have no text in 'text' and are left out (line 1: 'text' is null)"},
		/* Fields. */
		{"a", "content", "{\"content\":\"a\",\"text\":\"b\"}", "a", NULL},
		{"a", "data.text", "{\"data\":{\"text\":\"a\"}}\n{\"data.text\":\"b\"}", "a|b", NULL},
		{"a", "a.b.c", "{\"a\":{\"b.c\":\"x\"}}\n{\"a.b\":{\"c\":\"y\"}}\n{\"a\":1,\"a.b\":2,\"a.b.c\":\"z\"}", "x|y|z",
		 NULL},
		{"a", "list.1.text", "{\"list\":[0,{\"text\":\"a\"}]}\n{\"list\":[]}", "a", "1 of 2 rows"},
		{"a", "messages",
		 "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},"
		 "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"image\",\"url\":\"u\"},{\"type\":"
		 "\"text\","
		 "\"text\":\"c\"}]}]}",
		 "a\nbc", NULL},
		{"a", "conversations",
		 "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", "a\nb", NULL},
		{"a", "messages", "{\"messages\":[]}\n{\"messages\":[{\"content\":\"\"},{\"content\":\"a\"}]}", "\na",
		 "1 of 2 rows"},
		{"a", "messages.0.content", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "a", NULL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_text(s, cases[i].name, cases[i].field, cases[i].rows, cases[i].expected, strlen(cases[i].expected),
			    cases[i].warning);
	expect_text(s, "a", "text", "{\"text\":\"a\\u0000b\"}", "a\0b", 3, NULL);
	expect_text(s, "a", "text", "gr\xc3\xbcn \xff words", "gr\xc3\xbcn \xef\xbf\xbd words", 15,
		    "1 byte sequences are not UTF-8, the first at byte 6");
}

/* Whatever the seed draws, a file gives the same error or the same warning; a row without text is as if it were not there. */
static void test_same_verdict(void **state)
{
	struct scratch *s = *state;
	struct sequences with, without;
	char *text;
	size_t bytes;
	write_documents(s, "docs.jsonl", false);
	SUCCEEDS(file_slurp(scratch_path(s, "docs.jsonl"), 1 << 20, &text, &bytes, &s->err));
	char *more = malloc(bytes + 100), *middle = strchr(text + bytes / 2, '\n') + 1;
	assert_non_null(more);
	for (int64_t seed = 0; seed < 5; seed++) {
		struct warnings warnings = {0};
		sprintf(more, "%.*s{\"text\":null}\n%s", (int)(middle - text), text, middle);
		scratch_text(s, "more.jsonl", more);
		SUCCEEDS(calibrate(s, scratch_path(s, "docs.jsonl"), 5, 100, seed, &without));
		const struct data_source source = SOURCE(scratch_path(s, "more.jsonl"));
		SUCCEEDS(corpus_calibration(&source, &PLACE(demo), VOCAB, 5, 100, seed, &running, &warnings, &with, &s->err));
		assert_same(&with, &without);
		assert_int_equal(warnings.count, 1);
		assert_non_null(strstr(warnings.messages[0], "1 of 201 rows have no text"));
		warnings_free(&warnings);
		sequences_free(&with);
		sequences_free(&without);
		sprintf(more, "%s{\"text\":", text);
		scratch_text(s, "more.jsonl", more);
		FAILS(STATUS_INVALID, "line 201: not valid JSON: it ends before",
		      calibrate(s, scratch_path(s, "more.jsonl"), 5, 100, seed, &with));
	}
	free(more);
	free(text);
}

static void test_deep_and_long_rows(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	enum { LONG = (64 << 20) + 100 };
	char *text = malloc(LONG);
	assert_non_null(text);
	for (int depth = 900; depth <= 1100; depth += 200) {
		char *end = text + sprintf(text, "{\"text\":\"a\",\"deep\":");
		memset(end, '[', (size_t)depth);
		memset(end + depth, ']', (size_t)depth);
		strcpy(end + 2 * depth, "}\n");
		scratch_text(s, "deep.jsonl", text);
		enum status status = evaluate(s, scratch_path(s, "deep.jsonl"), 1, &sequences);
		assert_int_equal(status, depth < 1000 ? STATUS_OK : STATUS_INVALID);
		if (status == STATUS_OK) sequences_free(&sequences);
	}
	memset(text, 'a', LONG);
	memcpy(text, "[{\"text\":\"", 10);
	scratch_write(s, "long", text, LONG);
	FAILS(STATUS_INVALID, "row 1 is longer than 67108864 bytes", evaluate(s, scratch_path(s, "long"), 1, &sequences));
	scratch_write(s, "long", text + 1, LONG - 1);
	FAILS(STATUS_INVALID, "line 1 is longer than 67108864 bytes", evaluate(s, scratch_path(s, "long"), 1, &sequences));
	free(text);
}

static void test_zstd(void **state)
{
	struct scratch *s = *state;
	struct sequences plain, packed;
	char *text, *to;
	size_t bytes, size;
	SUCCEEDS(file_slurp("demo/wikitext2.test.txt", 1 << 24, &text, &bytes, &s->err));
	SUCCEEDS(evaluate(s, "demo/wikitext2.test.txt", 64, &plain));
	/* Two frames with a skippable one before and between. */
	static const unsigned char skippable[] = {0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'};
	to = malloc(ZSTD_compressBound(bytes) + 1000);
	assert_non_null(to);
	memcpy(to, skippable, sizeof skippable);
	size = sizeof skippable;
	size += ZSTD_compress(to + size, ZSTD_compressBound(bytes), text, bytes / 3, 3);
	memcpy(to + size, skippable, sizeof skippable);
	size += sizeof skippable;
	size += ZSTD_compress(to + size, ZSTD_compressBound(bytes), text + bytes / 3, bytes - bytes / 3, 3);
	scratch_write(s, "blob", to, size);
	SUCCEEDS(evaluate(s, scratch_path(s, "blob"), 64, &packed));
	assert_same(&plain, &packed);
	sequences_free(&packed);
	for (size_t cut = 1; cut < 3000; cut += 97) {
		scratch_write(s, "cut", to, size - cut);
		FAILS(STATUS_INVALID, "the zstd data is cut short", evaluate(s, scratch_path(s, "cut"), 64, &packed));
	}
	memset(to + size / 2, 0x55, 50);
	scratch_write(s, "bad", to, size);
	FAILS(STATUS_INVALID, "bad zstd data near byte", evaluate(s, scratch_path(s, "bad"), 64, &packed));
	static const unsigned char wide[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90, 0, 0, 0}; /* a frame with a window of 2^28 bytes */
	scratch_write(s, "wide", wide, sizeof wide);
	FAILS(STATUS_UNSUPPORTED, "a window of more than 128 MiB", evaluate(s, scratch_path(s, "wide"), 64, &packed));
	sequences_free(&plain);
	free(text);
	free(to);
}

/* gzip's own rule: zeros behind a member are padding. */
static void test_padded_gzip(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	char *bytes, zeros[300] = {0};
	size_t size;
	gzip(s, "a.txt.gz", "the same words again and again and again", 40);
	FILE *file = fopen(scratch_path(s, "a.txt.gz"), "ab");
	assert_non_null(file);
	assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
	assert_int_equal(fclose(file), 0);
	SUCCEEDS(evaluate(s, scratch_path(s, "a.txt.gz"), 4, &sequences));
	sequences_free(&sequences);
	SUCCEEDS(file_slurp(scratch_path(s, "a.txt.gz"), 1000, &bytes, &size, &s->err));
	bytes[size - 1] = 'x';
	scratch_write(s, "b.txt.gz", bytes, size);
	FAILS(STATUS_INVALID, "gzip data", evaluate(s, scratch_path(s, "b.txt.gz"), 4, &sequences));
	free(bytes);
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
	write_documents(s, "docs.jsonl", false);
	const struct data_source documents = SOURCE(scratch_path(s, "docs.jsonl")), demo_text = SOURCE("demo/wikitext2.test.txt");
	FAILS(STATUS_CANCELLED, "stopped",
	      corpus_calibration(&documents, &PLACE(demo), VOCAB, 4, 10, 0, &stopping, NULL, &sequences, &s->err));
	FAILS(STATUS_CANCELLED, "stopped",
	      corpus_evaluation(&demo_text, &PLACE(demo), VOCAB, 64, "", &stopping, NULL, &sequences, &s->err));
}

static void test_only_a_mark(void **state)
{
	struct scratch *s = *state;
	struct sequences sequences;
	for (const char **text = (const char *[]){"\xef\xbb\xbf", " ", "\n\n", NULL}; *text; text++) {
		scratch_text(s, "mark.txt", *text);
		const struct data_source source = {&PLACE(scratch_path(s, "mark.txt")), "mark.txt", "text"};
		enum status status = corpus_evaluation(&source, &PLACE(demo), VOCAB, 64, "", &running, NULL, &sequences, &s->err);
		assert_int_equal(status, STATUS_INVALID);
		assert_non_null(strstr(s->err.message, "mark.txt"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_only_a_mark),     SCRATCH_TEST(test_evaluation_text),    SCRATCH_TEST(test_evaluation_joins),
		SCRATCH_TEST(test_tokens),          SCRATCH_TEST(test_single_document),    SCRATCH_TEST(test_documents),
		SCRATCH_TEST(test_large_documents), SCRATCH_TEST(test_broken_text),        SCRATCH_TEST(test_rows),
		SCRATCH_TEST(test_same_verdict),    SCRATCH_TEST(test_deep_and_long_rows), SCRATCH_TEST(test_zstd),
		SCRATCH_TEST(test_padded_gzip),     SCRATCH_TEST(test_broken_gzip),        SCRATCH_TEST(test_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
