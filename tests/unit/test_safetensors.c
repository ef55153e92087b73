/* safetensors: the format, single and sharded checkpoints, and every kind of broken file. */
#include "tests/unit/scratch.h"

#include "engine/model/safetensors.h"

/* Parses a header as if `data` bytes stood behind it. */
static enum status parse(const char *header, int64_t data, struct tensor_info **ret, size_t *ret_count, struct error *err)
{
	size_t length = strlen(header);
	unsigned char *head = malloc(8 + length);
	assert_non_null(head);
	for (int i = 0; i < 8; i++)
		head[i] = (unsigned char)(length >> (8 * i));
	memcpy(head + 8, header, length);
	enum status status = safetensors_parse(head, 8 + length, 8 + (int64_t)length + data, "f.safetensors", ret, ret_count, err);
	free(head);
	return status;
}

static void test_parse(void **state)
{
	struct scratch *s = *state;
	struct tensor_info *infos = NULL;
	size_t count = 0;
	const char header[] =
		"{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
		"\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
		"\"none\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[16,16]}}   ";
	SUCCEEDS(parse(header, 16, &infos, &count, &s->err));
	assert_int_equal(count, 3);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(infos[i].name, "b") != 0) continue;
		assert_int_equal(infos[i].dtype, DTYPE_BF16);
		assert_int_equal(infos[i].rank, 2);
		assert_int_equal(infos[i].shape[0], 2);
		assert_int_equal(infos[i].shape[1], 3);
		assert_int_equal(infos[i].bytes, 12);
		assert_int_equal(infos[i].offset, 8 + strlen(header) + 4);
	}
	tensor_infos_free(infos, count);
	SUCCEEDS(parse("{}", 0, &infos, &count, &s->err));
	assert_int_equal(count, 0);
	tensor_infos_free(infos, count);
}

#define T(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_broken_headers(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *header;
		int64_t data;
		enum status status;
		const char *part;
	} cases[] = {
		{"[]", 0, STATUS_INVALID, "not a JSON object"},
		{"{\"a\":1", 0, STATUS_INVALID, "not valid JSON"},
		{"{\"a\":1}", 0, STATUS_INVALID, "'a' lacks"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, STATUS_INVALID, "'a' lacks"},
		{"{" T("a", "F32", "[1]", "[0,4,8]") "}", 4, STATUS_INVALID, "'a' lacks"},
		{"{" T("a", "F32", "[1]", "[0,8]") "}", 8, STATUS_INVALID,
		 "'a' has 8 bytes of data, which its shape and dtype F32 contradict"},
		{"{" T("a", "F32", "[2]", "[0,8]") "}", 7, STATUS_INVALID, "'a' has data_offsets out of range (7 bytes of data)"},
		{"{" T("a", "F32", "[2]", "[8,0]") "}", 8, STATUS_INVALID, "out of range"},
		{"{" T("a", "F32", "[2]", "[-8,0]") "}", 8, STATUS_INVALID, "out of range"},
		{"{" T("a", "F32", "[2]", "[0.5,8.5]") "}", 9, STATUS_INVALID, "out of range"},
		{"{" T("a", "F32", "[2]", "[0,1e300]") "}", 8, STATUS_INVALID, "out of range"},
		{"{" T("a", "F32", "[-2]", "[0,8]") "}", 8, STATUS_INVALID, "bad shape"},
		{"{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, STATUS_INVALID, "bad shape"},
		{"{" T("a", "F32", "[\"2\"]", "[0,8]") "}", 8, STATUS_INVALID, "bad shape"},
		{"{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, STATUS_INVALID, "impossibly large"},
		{"{" T("a", "F64", "[1152921504606846976]", "[0,0]") "}", 0, STATUS_INVALID, "bad shape"},
		{"{" T("a", "F64", "[2147483648,1073741824]", "[0,0]") "}", 0, STATUS_INVALID, "contradict"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[4,12]") "}", 12, STATUS_INVALID,
		 "'a' and 'b' overlap"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[0,8]") "}", 8, STATUS_INVALID, "overlap"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[1]", "[12,16]") "}", 16, STATUS_INVALID,
		 "4 bytes before tensor 'b'"},
		{"{" T("a", "F32", "[1]", "[4,8]") "}", 8, STATUS_INVALID, "4 bytes before tensor 'a'"},
		{"{" T("a", "F32", "[1]", "[0,4]") "}", 9, STATUS_INVALID, "5 bytes at the end"},
		{"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8, STATUS_INVALID, "'a' is there twice"},
		{"{" T("a", "Q3", "[1]", "[0,4]") "}", 4, STATUS_UNSUPPORTED, "'a' has the unknown dtype 'Q3'"},
		{"{" T("a", "F4", "[3]", "[0,2]") "}", 2, STATUS_INVALID, "contradict"},
		{"{" T("", "F32", "[1]", "[0,4]") "}", 4, STATUS_INVALID, "not printable"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tensor_info *infos = NULL;
		size_t count = 0;
		FAILS(cases[i].status, cases[i].part, parse(cases[i].header, cases[i].data, &infos, &count, &s->err));
		assert_non_null(strstr(s->err.message, "f.safetensors"));
		assert_null(infos);
	}
}

static void test_lengths(void **state)
{
	struct scratch *s = *state;
	struct tensor_info *infos;
	size_t count;
	const unsigned char huge[8] = {255, 255, 255, 255, 255, 255, 255, 255}, above[8] = {1, 0, 0x40, 6},
			    ten[10] = {10, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
	FAILS(STATUS_INVALID, "too short", safetensors_parse(huge, 7, 7, "f", &infos, &count, &s->err));
	FAILS(STATUS_INVALID, "not a safetensors file", safetensors_parse(huge, 8, 1000, "f", &infos, &count, &s->err));
	FAILS(STATUS_INVALID, "header of 104857601 bytes", safetensors_parse(above, 8, INT64_MAX, "f", &infos, &count, &s->err));
	FAILS(STATUS_INVALID, "ends within its header", safetensors_parse(ten, 10, 10, "f", &infos, &count, &s->err));
	FAILS(STATUS_INVALID, "ends within its header", safetensors_parse(ten, 10, 1000, "f", &infos, &count, &s->err));
}

static const char two[] =
	"{" T("x", "I32", "[2]", "[0,8]") "," T("flags", "BOOL", "[2,2]", "[8,12]") "," T("a", "F16", "[1]", "[12,14]") "}";

static void test_single(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	unsigned char data[8];
	scratch_safetensors(s, "model.safetensors", two, 14);
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	assert_int_equal(c.n_tensors, 3);
	assert_int_equal(c.n_shards, 1);
	assert_string_equal(c.shard_names[0], "model.safetensors");
	assert_string_equal(c.tensors[0].name, "a");
	assert_string_equal(c.tensors[2].name, "x");
	assert_null(checkpoint_find(&c, "y"));
	const struct tensor_info *x = checkpoint_find(&c, "x"), *flags = checkpoint_find(&c, "flags");
	assert_non_null(x);
	SUCCEEDS(checkpoint_read(&c, x, data, &s->err));
	for (int i = 0; i < 8; i++)
		assert_int_equal(data[i], i);
	assert_non_null(flags); /* it may be there, and is refused only when its values are asked for */
	FAILS(STATUS_UNSUPPORTED, "'flags' has dtype BOOL", checkpoint_read(&c, flags, data, &s->err));
	checkpoint_close(&c);
	checkpoint_close(&c);
	SUCCEEDS(checkpoint_open_file(&PLACE(scratch_path(s, "model.safetensors")), &c, &s->err));
	assert_int_equal(c.n_tensors, 3);
	checkpoint_close(&c);
}

/* Every length that a file of `two` can be cut to is refused, and none is read beyond its end. */
static void test_truncated(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	struct file file;
	scratch_safetensors(s, "whole", two, 14);
	SUCCEEDS(file_open_read(scratch_path(s, "whole"), &file, &s->err));
	char *bytes = malloc((size_t)file.size);
	SUCCEEDS(file_read(&file, bytes, (size_t)file.size, 0, &s->err));
	for (int64_t size = 0; size < file.size; size++) {
		scratch_write(s, "model.safetensors", bytes, (size_t)size);
		FAILS(STATUS_INVALID, "model.safetensors", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	}
	free(bytes);
	file_close(&file);
}

static void test_cut_while_open(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	char data[16];
	scratch_safetensors(s, "model.safetensors", two, 14);
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	scratch_text(s, "model.safetensors", "short");
	FAILS(STATUS_IO, "model.safetensors ends", checkpoint_read(&c, checkpoint_find(&c, "x"), data, &s->err));
	checkpoint_close(&c);
}

static void test_shards(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	static const struct {
		const char *index, *part;
		enum status status;
	} broken[] = {
		{"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", "'b' is not in 1.safetensors",
		 STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"1.safetensors\"}}", "'c' of 1.safetensors is not listed", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"2.safetensors\",\"c\":\"1.safetensors\"}}",
		 "'a' is not in 2.safetensors", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "'a' is not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"..\"}}", "not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":7}}", "not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "3.safetensors", STATUS_NOT_FOUND},
		{"{\"weight_map\":{}}", "names 0 shards", STATUS_INVALID},
		{"{\"weight_map\":[]}", "'weight_map' must be an object", STATUS_INVALID},
		{"{", "not valid JSON", STATUS_INVALID},
	};
	FAILS(STATUS_NOT_FOUND, "neither model.safetensors nor", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	scratch_safetensors(s, "2.safetensors", "{" T("b", "F32", "[1]", "[0,4]") "}", 4);
	scratch_safetensors(s, "1.safetensors", "{" T("a", "F32", "[1]", "[0,4]") "," T("c", "F32", "[1]", "[4,8]") "}", 8);
	scratch_text(s, "model.safetensors.index.json",
		     "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"c\":\"1.safetensors\",\"b\":\"2.safetensors\",\"a\":\"1."
		     "safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	assert_int_equal(c.n_shards, 2);
	assert_int_equal(c.n_tensors, 3);
	assert_string_equal(c.shard_names[checkpoint_find(&c, "b")->shard], "2.safetensors");
	unsigned char data[4];
	SUCCEEDS(checkpoint_read(&c, checkpoint_find(&c, "c"), data, &s->err));
	assert_int_equal(data[0], 4);
	checkpoint_close(&c);
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		scratch_text(s, "model.safetensors.index.json", broken[i].index);
		FAILS(broken[i].status, broken[i].part, checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	}
	scratch_safetensors(s, "2.safetensors", "{" T("a", "F32", "[1]", "[0,4]") "}", 4);
	scratch_text(s, "model.safetensors.index.json", "{\"weight_map\":{\"c\":\"1.safetensors\",\"a\":\"2.safetensors\"}}");
	FAILS(STATUS_INVALID, "'a' is both in", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_parse),  SCRATCH_TEST(test_broken_headers), SCRATCH_TEST(test_lengths),
		SCRATCH_TEST(test_single), SCRATCH_TEST(test_truncated),      SCRATCH_TEST(test_cut_while_open),
		SCRATCH_TEST(test_shards),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
