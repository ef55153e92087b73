/* A model's index and the headers of its files, cut at every byte and with every byte another: what is refused names the file, and
 * nothing is taken that is not whole. */
#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/model/checkpoint.h"
#include "engine/model/shard_index.h"

#define INDEX "model.safetensors.index.json"

static const char index_text[] = "{\"metadata\":{\"total_size\":16,\"by\":[1,\"x\",null]},\"weight_map\":{\"a\":\"1.safetensors\","
				 "\"b\":\"2.safetensors\"},\"more\":true}";
static const char header[] =
	"{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
	"\"b\":{\"shape\":[2],\"data_offsets\":[8,12],\"dtype\":\"BF16\"}}";

static enum status open_it(struct scratch *s)
{
	struct checkpoint c;
	struct warnings warnings = {0};
	s->err = (struct error){0};
	enum status status = checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err);
	if (status == STATUS_OK) checkpoint_close(&c);
	warnings_free(&warnings);
	return status;
}

/* What must not be taken, or may be. */
static void expect_told(struct scratch *s, const char *file, const char *text, bool may)
{
	enum status status = open_it(s);
	if (status == STATUS_OK && may) return;
	bool told = status == STATUS_INVALID || status == STATUS_UNSUPPORTED || (may && status == STATUS_NOT_FOUND);
	if (!told || s->err.status != status || !strstr(s->err.message, file))
		fail_msg("%s: %s, \"%s\"", text, status_name(status), s->err.message);
}

static void write_shards(struct scratch *s)
{
	scratch_safetensors(s, "1.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	scratch_safetensors(s, "2.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
}

/* Each of these in place of each byte. */
static const char others[] = "\"{}[]:,0x \\\x01";

static void test_index(void **state)
{
	struct scratch *s = *state;
	char text[sizeof index_text];
	write_shards(s);
	scratch_text(s, INDEX, index_text);
	SUCCEEDS(open_it(s));
	for (size_t n = 0; n < strlen(index_text); n++) {
		memcpy(text, index_text, n);
		scratch_write(s, INDEX, text, n);
		expect_told(s, INDEX, "cut", false);
		for (const char *other = others; *other; other++) {
			strcpy(text, index_text);
			text[n] = *other;
			scratch_text(s, INDEX, text);
			expect_told(s, INDEX, text, true);
		}
	}
}

static void test_header(void **state)
{
	struct scratch *s = *state;
	char text[sizeof header];
	scratch_safetensors(s, "model.safetensors", header, 12);
	SUCCEEDS(open_it(s));
	for (size_t n = 0; n < strlen(header); n++) {
		memcpy(text, header, n);
		text[n] = '\0';
		scratch_safetensors(s, "model.safetensors", text, 12);
		expect_told(s, "model.safetensors", text, false);
		for (const char *other = others; *other; other++) {
			strcpy(text, header);
			text[n] = *other;
			scratch_safetensors(s, "model.safetensors", text, 12);
			expect_told(s, "model.safetensors", text, true);
		}
	}
}

static void test_names_of_shards(void **state)
{
	struct scratch *s = *state;
	static const char *const names[] = {
		"\"\"",         "\".hidden\"", "\"..\"", "\"a/b\"", "\"/etc/passwd\"", "\"a\\u0001b\"", "\"a\\u001fb\"",
		"\"a\\u007f\"", "5",           "null",   "{}",      "[\"x\"]"};
	char text[4000], word[2100];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(text, sizeof text, "{\"weight_map\":{\"the.tensor\":%s}}", names[i]);
		scratch_text(s, INDEX, text);
		FAILS(STATUS_INVALID, INDEX ": the shard of tensor 'the.tensor' is not a plain file name", open_it(s));
	}
	memset(word, 'x', sizeof word);
	word[sizeof word - 1] = '\0';
	snprintf(text, sizeof text, "{\"weight_map\":{\"the.tensor\":\"%s\"}}", word);
	scratch_text(s, INDEX, text);
	FAILS(STATUS_INVALID, INDEX ": the shard of tensor 'the.tensor' is not a plain file name", open_it(s));
	snprintf(text, sizeof text, "{\"weight_map\":{\"%s\":\"1.safetensors\"}}", word);
	scratch_text(s, INDEX, text);
	FAILS(STATUS_INVALID, INDEX ": a tensor has a name of more than ", open_it(s));
}

static void test_too_much(void **state)
{
	struct scratch *s = *state;
	size_t room = 40 * (SHARD_INDEX_MAX_SHARDS + 2), used;
	char *text = malloc(room);
	assert_non_null(text);
	used = (size_t)snprintf(text, room, "{\"weight_map\":{");
	for (int i = 0; i <= SHARD_INDEX_MAX_SHARDS; i++)
		used += (size_t)snprintf(text + used, room - used, "%s\"t%d\":\"%d.st\"", i ? "," : "", i, i);
	snprintf(text + used, room - used, "}}");
	scratch_text(s, INDEX, text);
	FAILS(STATUS_INVALID, INDEX ": names more than 10000 shards", open_it(s));
	free(text);
	scratch_text(s, INDEX, index_text);
	assert_int_equal(truncate(scratch_path(s, INDEX), (off_t)SHARD_INDEX_MAX_BYTES + 1), 0);
	FAILS(STATUS_INVALID, INDEX ": ", open_it(s));
	assert_non_null(strstr(s->err.message, "67108865"));
}

/* ---- tensors that are there twice -------------------------------------------------------------------------------------------- */

enum { LARGE = (1 << 20) + 8 };

static void write_large(struct scratch *s, const char *name, const char *dtype, int elements, int flipped)
{
	char text[200];
	snprintf(text, sizeof text, "{\"a\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%d]}}", dtype, elements, LARGE);
	scratch_safetensors(s, name, text, LARGE);
	if (flipped < 0) return;
	FILE *file = fopen(scratch_path(s, name), "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, (long)(8 + strlen(text)) + flipped, SEEK_SET), 0);
	assert_int_equal(fputc((flipped & 0xff) ^ 1, file), (flipped & 0xff) ^ 1);
	assert_int_equal(fclose(file), 0);
}

static void test_twice(void **state)
{
	struct scratch *s = *state;
	static const int flipped[] = {0, (1 << 20) - 1, 1 << 20, LARGE - 1};
	static const char differ[] = "tensor 'a' is both in ";
	struct checkpoint c;
	struct warnings warnings = {0};
	size_t count;
	scratch_text(s, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\",\"x\":\"2.safetensors\",\"y\":\"3.safetensors\"}}");
	for (int i = 1; i <= 3; i++) {
		char name[20];
		snprintf(name, sizeof name, "%d.safetensors", i);
		write_large(s, name, "F32", LARGE / 4, -1);
	}
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_non_null(
		strstr(warnings.messages[0], "2 tensors are in several shards, with the same values ('a' in 1.safetensors and 2."));
	assert_string_equal(c.shard_names[checkpoint_find(&c, "a")->shard], "3.safetensors");
	const struct tensor_info *repeats = checkpoint_repeats(&c, "a", &count);
	assert_int_equal(count, 2);
	assert_int_equal(repeats[0].shard + repeats[1].shard, 1);
	assert_null(checkpoint_repeats(&c, "b", &count));
	assert_int_equal(count, 0);
	checkpoint_close(&c);
	warnings_free(&warnings);
	for (size_t i = 0; i < sizeof flipped / sizeof *flipped; i++) {
		write_large(s, "2.safetensors", "F32", LARGE / 4, flipped[i]);
		FAILS(STATUS_INVALID, differ, open_it(s));
		assert_non_null(strstr(s->err.message, "and they differ; remove one of them"));
	}
	write_large(s, "2.safetensors", "I32", LARGE / 4, -1);
	FAILS(STATUS_INVALID, differ, open_it(s));
	write_large(s, "2.safetensors", "BOOL", LARGE, -1);
	FAILS(STATUS_INVALID, differ, open_it(s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_index), SCRATCH_TEST(test_header), SCRATCH_TEST(test_names_of_shards),
					   SCRATCH_TEST(test_too_much), SCRATCH_TEST(test_twice)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
