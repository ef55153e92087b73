/* What a data file is, by its bytes and, where they leave it open, by its name. */
#include <zlib.h>
#include <zstd.h>

#include "tests/unit/scratch.h"

#include "engine/text/kind.h"

static enum status find(struct scratch *s, const char *name, enum data_kind *ret, enum compression *ret_compression)
{
	struct file file;
	SUCCEEDS(file_open_read(scratch_path(s, "file"), &file, &s->err));
	enum status status = data_kind_find(&file, name, ret, ret_compression, &s->err);
	file_close(&file);
	return status;
}

static void expect(struct scratch *s, const char *name, const void *bytes, size_t size, enum data_kind expected)
{
	enum data_kind kind;
	scratch_write(s, "file", bytes, size);
	if (find(s, name, &kind, NULL) != STATUS_OK) fail_msg("%s, \"%.40s\": %s", name, (const char *)bytes, s->err.message);
	if (kind != expected)
		fail_msg("%s, \"%.60s\": %s, not %s", name, (const char *)bytes, data_kind_name(kind), data_kind_name(expected));
}

static void refuse(struct scratch *s, const char *name, const void *bytes, size_t size, const char *part)
{
	enum data_kind kind;
	scratch_write(s, "file", bytes, size);
	enum status status = find(s, name, &kind, NULL);
	if (status == STATUS_OK) fail_msg("%s, \"%.40s\": is %s", name, (const char *)bytes, data_kind_name(kind));
	if (!strstr(s->err.message, part)) fail_msg("'%s' is not in '%s'", part, s->err.message);
	assert_non_null(strstr(s->err.message, "/file: ")); /* which file */
}

static void test_text_and_json(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *name, *text;
		enum data_kind kind;
	} cases[] = {
		/* Rows are rows whatever the name. */
		{"a", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n", DATA_JSON_LINES},
		{"a.txt", "{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}", DATA_JSON_LINES},
		{"a.txt", "\xef\xbb\xbf{\"text\":\"a\"}\n", DATA_JSON_LINES},
		{"a.txt", "{\"text\":\"a\", \"x\": NaN, \"y\": -Infinity}", DATA_JSON_LINES},
		{"897ee768", "\n\n  {\"text\":\"a\"}\n{\"text\":\n", DATA_JSON_LINES}, /* one broken row of two */
		{"a", "{\n \"text\": \"a\"\n}\n{\n \"text\": \"b\"\n}\n", DATA_JSON_OBJECTS},
		{"a", "{\"text\": \"a\",\n \"n\": 1}", DATA_JSON_OBJECTS},
		{"a", "{}\n{\n \"text\": \"a\"\n}\n", DATA_JSON_OBJECTS},
		{"a", "[{\"text\":\"a\"},{\"text\":\"b\"}]", DATA_JSON_ARRAY},
		{"a", " [\n  {\n    \"text\": \"a\"\n  }\n]\n", DATA_JSON_ARRAY},
		{"a", "[{\"text\":\"a\"},\n{\"text\":\"b\"}\n", DATA_JSON_ARRAY},
		{"a", "[]", DATA_JSON_ARRAY},
		{"a", "[\"one\", \"two\"]\n", DATA_JSON_ARRAY},
		{"a", "[{\"text\":\"a\"},\n{\"text\":\"b\"", DATA_JSON_ARRAY}, /* cut short */
		/* Text that begins so. */
		{"a", "[ edit ]\nWords of a page .\n", DATA_TEXT},
		{"a", "[1] Smith, J. 2003.\n[2] Jones\n", DATA_TEXT},
		{"a", "[0, 1] is an interval", DATA_TEXT},
		{"a", "[\"Well\", he said", DATA_TEXT},
		{"a", "[", DATA_TEXT},
		{"a", "{", DATA_TEXT},
		{"a", "{}\n", DATA_TEXT},
		{"a", "{\\em slanted} words\n", DATA_TEXT},
		{"a.c", "{\n\tint x = 1;\n}\n", DATA_TEXT},
		{"a", "{\"a\": 1} is how JSON looks.\nA second line.\nA third.\n", DATA_TEXT},
		{"a", "{\"a\": 1}\nis how JSON looks.\nA third line.\nA fourth.\n", DATA_TEXT},
		{"a", "{\"a\":\n 1}\nis how JSON looks.\n", DATA_TEXT},
		{"a", "plain words", DATA_TEXT},
		{"a.txt", " \n\n", DATA_TEXT},
		{"a.md", "GGUF, PAR1, BZh and PK are magic words", DATA_TEXT},
		{"a", "DUCK DUCKDUCKDUCK", DATA_TEXT},
		{"a", "grün \xff and more grün", DATA_TEXT}, /* one wrong byte in UTF-8 */
		/* The name makes JSON of what is none, so that the error is about that. */
		{"a.jsonl", "plain words", DATA_JSON_LINES},
		{"A.JSON", "{\"text\": \"a\"} x\n", DATA_JSON_LINES},
		{"a.ndjson.gz", "{\n", DATA_JSON_LINES},
		{"a.json.zst", "[ edit ]\n", DATA_JSON_ARRAY},
		{"json", "[ edit ]\n", DATA_TEXT},
		{"a.json/part-0", "[ edit ]\n", DATA_TEXT},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect(s, cases[i].name, cases[i].text, strlen(cases[i].text), cases[i].kind);
}

/* Rows that are longer than what is read of the file. */
static void test_long_rows(void **state)
{
	struct scratch *s = *state;
	enum { LONG = 300000 };
	static const char *const begins[] = {"{\"text\":\"", "[{\"text\":\"", "{\n \"text\":\"", "words "};
	static const enum data_kind kinds[] = {DATA_JSON_LINES, DATA_JSON_ARRAY, DATA_JSON_OBJECTS, DATA_TEXT};
	char *text = malloc(LONG);
	for (int i = 0; i < 4; i++) {
		memset(text, 'a', LONG);
		memcpy(text, begins[i], strlen(begins[i]));
		expect(s, "a", text, LONG, kinds[i]);
	}
	/* A character that the head's end cuts is not wrong. */
	for (int i = 0; i + 2 < LONG; i += 3)
		memcpy(text + i, "\xe2\x82\xac", 3);
	for (int i = 1; i < 4; i++)
		expect(s, "a", text, (size_t)(LONG / 3 * 3), DATA_TEXT);
	free(text);
}

static void test_refused(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *bytes;
		size_t size;
		const char *part;
	} cases[] = {
#define BYTES(text) text, sizeof text - 1
		{"", 0, "is empty"},
		{BYTES("PAR1\x15\x04\x15\x00"), "Parquet file, which besad does not read; write its rows as JSON Lines"},
		{BYTES("ARROW1\0\0\xff\xff\xff\xff"), "an Arrow file"},
		{BYTES("\xff\xff\xff\xff\x70\0\0\0"), "an Arrow stream"},
		{BYTES("FEA1\0\0\0\0"), "a Feather file"},
		{BYTES("BZh91AY&SY\x5f\x83\x2f\x7b\0"), "bunzip2"},
		{BYTES("\xfd"
		       "7zXZ\0\0\4"),
		 "unxz"},
		{BYTES("\x04\x22\x4d\x18\x64\x40"), "lz4"},
		{BYTES("PK\3\4\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0wiki.raw"), "a zip archive"},
		{BYTES("PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0c\0\x16\0cal/data.pkl"), "PyTorch"},
		{BYTES("PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\x16\0a.npy"), "NumPy arrays"},
		{BYTES("\x93NUMPY\1\0v\0{'descr': '<i8'"), "a NumPy array"},
		{BYTES("\x80\x02\x8a\x0a"), "pickle"},
		{BYTES("\x80\x04\x95\x0a\0\0\0"), "pickle"},
		{BYTES("\x89HDF\r\n\x1a\n"), "HDF5"},
		{BYTES("SQLite format 3\0"), "SQLite"},
		{BYTES("GGUF\3\0\0\0"), "GGUF"},
		{BYTES("%PDF-1.7\n"), "PDF"},
		{BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), "git lfs pull"},
		{BYTES("# xet version 0\nfilesize = 1\n"), "git-xet pointer"},
		{BYTES("<!DOCTYPE html>\n<html><body>404</body></html>"), "a web page"},
		{BYTES("\n<HTML>\n<body>404</body></html>"), "a web page"},
		{BYTES("<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>"), "a web page"},
		{BYTES("../../blobs/fb627abb805fa5ea"), "a link that became a text file"},
		{BYTES("\xff\xfe"
		       "a\0b\0"),
		 "UTF-16 text, which besad does not read; write it as UTF-8"},
		{BYTES("\xfe\xff\0a\0b"), "UTF-16"},
		{BYTES("w\0o\0r\0d\0s\0"), "UTF-16"},
		{BYTES("\0w\0o\0r\0d\0s"), "UTF-16"},
		{BYTES("\xff\xfe\0\0a\0\0\0"), "UTF-32"},
		{BYTES("w\0\0\0o\0\0\0r\0\0\0d\0\0\0"), "UTF-32"},
		{BYTES("\0\0\0w\0\0\0o\0\0\0r\0\0\0d"), "UTF-32"},
		{BYTES("\0\0\1\0\2\0\3\0\4\0\5\0"), "binary data"},
		{BYTES("words and \0 a zero"), "binary data"},
		{BYTES("\1\2\3\4\5\6\7\1\2\3\4\5"), "binary data"},
		{BYTES("Gr\xfc\xdf"
		       "e aus Z\xfcrich"),
		 "is not UTF-8 (the first wrong byte is at 2)"},
		{BYTES("{\"text\":\"Gr\xfc\xdf"
		       "e\"}\n"),
		 "iconv -f"},
#undef BYTES
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refuse(s, "file.jsonl", cases[i].bytes, cases[i].size, cases[i].part);
	char tar[600] = "words.txt";
	memcpy(tar + 257, "ustar", 5);
	refuse(s, "words.txt", tar, sizeof tar, "a tar archive");
	refuse(s, "a.safetensors", "some words", 10, "is not a safetensors file, though its name says so");
	refuse(s, "a.CSV.gz", "id,text\n1,words\n", 16, "is a table by its name");
}

static void test_tokens(void **state)
{
	struct scratch *s = *state;
	scratch_safetensors(s, "file", "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	enum data_kind kind;
	SUCCEEDS(find(s, "no-suffix", &kind, NULL));
	assert_int_equal(kind, DATA_TOKENS);
}

static size_t gzip(const void *bytes, size_t size, void *to, size_t room)
{
	z_stream zlib = {
		.next_in = (unsigned char *)bytes, .avail_in = (unsigned)size, .next_out = to, .avail_out = (unsigned)room};
	assert_int_equal(deflateInit2(&zlib, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&zlib, Z_FINISH), Z_STREAM_END);
	assert_int_equal(deflateEnd(&zlib), Z_OK);
	return room - zlib.avail_out;
}

/* What is packed is judged by what is in it. */
static void test_packed(void **state)
{
	struct scratch *s = *state;
	static const char rows[] = "{\"text\":\"a\"}\n", parquet[] = "PAR1\x15\x04\x15", safetensors[] = "\x40\0\0\0\0\0\0\0{}";
	unsigned char packed[1000], twice[1000];
	enum data_kind kind;
	enum compression compression;
	size_t size = gzip(rows, sizeof rows - 1, packed, sizeof packed), size_twice = gzip(packed, size, twice, sizeof twice);
	scratch_write(s, "file", packed, size);
	SUCCEEDS(find(s, "897ee768", &kind, &compression));
	assert_int_equal(kind, DATA_JSON_LINES);
	assert_int_equal(compression, COMPRESSION_GZIP);
	refuse(s, "a.jsonl.gz", twice, size_twice, "within its gzip is packed with gzip");
	refuse(s, "a.gz", packed, gzip(parquet, sizeof parquet - 1, packed, sizeof packed), "within its gzip is a Parquet file");
	refuse(s, "a.gz", packed, gzip(safetensors, sizeof safetensors - 1, packed, sizeof packed), "is a packed safetensors file");
	size = ZSTD_compress(packed, sizeof packed, rows, sizeof rows - 1, 3);
	scratch_write(s, "file", packed, size);
	SUCCEEDS(find(s, "897ee768", &kind, &compression));
	assert_int_equal(kind, DATA_JSON_LINES);
	assert_int_equal(compression, COMPRESSION_ZSTD);
	refuse(s, "a.zst", packed, ZSTD_compress(packed, sizeof packed, parquet, sizeof parquet - 1, 3),
	       "within its zstd is a Parquet file");
	refuse(s, "a.zst", packed, size / 2, "the zstd data is cut short");
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_text_and_json), SCRATCH_TEST(test_long_rows),
					   SCRATCH_TEST(test_refused), SCRATCH_TEST(test_tokens), SCRATCH_TEST(test_packed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
