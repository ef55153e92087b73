/* safetensors: the format, single and sharded checkpoints, and every kind of broken file. */
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/model/checkpoint.h"

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
		{"{\"a\":{\"dtype\"", 0, STATUS_INVALID, "not valid JSON"},
		{"{" T("a", "F32", "[1]", "[0,4]") "}}", 4, STATUS_INVALID, "not valid JSON: text behind the value"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, STATUS_INVALID,
		 "'shape' of tensor 'a' is there twice"},
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
		{"{" T("a", "F64", "[2147483648,1073741824]", "[0,0]") "}", 0, STATUS_INVALID, "impossibly large"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[4,12]") "}", 12, STATUS_INVALID,
		 "'a' and 'b' overlap"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[0,8]") "}", 8, STATUS_INVALID, "overlap"},
		{"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[1]", "[12,16]") "}", 16, STATUS_INVALID,
		 "4 bytes before tensor 'b'"},
		{"{" T("a", "F32", "[1]", "[4,8]") "}", 8, STATUS_INVALID, "4 bytes before tensor 'a'"},
		{"{" T("a", "F32", "[1]", "[0,4]") "}", 9, STATUS_INVALID, "5 bytes at the end"},
		{"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8, STATUS_INVALID, "'a' is there twice"},
		{"{" T("a", "Q3", "[1]", "[0,4]") "}", 4, STATUS_UNSUPPORTED, "'a' has the unknown dtype 'Q3'"},
		{"{" T("a", "F4", "[3]", "[0,2]") "}", 2, STATUS_INVALID, "3 elements of 4 bits"},
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

/* A tensor of every type that PyTorch has, in the order in which the safetensors library wrote them. */
static void test_layout(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *name, *json, *type;
		bool opaque;
		enum dtype dtype;
		int bytes;
	} tensors[] = {
		{"p", "p", "U64", true, DTYPE_U8, 24},          {"o", "o", "I64", false, DTYPE_I64, 24},
		{"a", "a", "F64", false, DTYPE_F64, 24},        {"n", "n", "C64", true, DTYPE_U8, 24},
		{"m", "m", "F32", false, DTYPE_F32, 12},        {"r\\\"\u00fc/x", "r\\\\\\\"\u00fc/x", "F32", false, DTYPE_F32, 12},
		{"l", "l", "U32", true, DTYPE_U8, 12},          {"k", "k", "I32", false, DTYPE_I32, 12},
		{"j", "j", "BF16", false, DTYPE_BF16, 6},       {"i", "i", "F16", false, DTYPE_F16, 6},
		{"h", "h", "U16", false, DTYPE_U16, 6},         {"g", "g", "I16", true, DTYPE_U8, 6},
		{"e5", "e5", "F8_E5M2FNUZ", true, DTYPE_U8, 3}, {"e4", "e4", "F8_E4M3FNUZ", true, DTYPE_U8, 3},
		{"q", "q", "F8_E8M0", true, DTYPE_U8, 3},       {"e", "e", "F8_E4M3", true, DTYPE_U8, 3},
		{"f", "f", "F8_E5M2", true, DTYPE_U8, 3},       {"d", "d", "I8", true, DTYPE_U8, 3},
		{"c", "c", "U8", false, DTYPE_U8, 3},           {"b", "b", "BOOL", true, DTYPE_U8, 3}};
	enum { COUNT = sizeof tensors / sizeof *tensors };
	struct tensor_info infos[COUNT], *order[COUNT], *read;
	struct buffer head, expected = {0};
	size_t count;
	int64_t size, data = 0;
	buffer_printf(&expected, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (int i = 0; i < COUNT; i++) {
		infos[i] = (struct tensor_info){.name = (char *)tensors[i].name,
						.dtype = tensors[i].dtype,
						.opaque = tensors[i].opaque ? tensors[i].type : NULL,
						.rank = 1,
						.shape = {3}};
		order[COUNT - 1 - i] = &infos[i];
		buffer_printf(&expected, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[%d,%d]}", tensors[i].json,
			      tensors[i].type, (int)data, (int)data + tensors[i].bytes);
		data += tensors[i].bytes;
	}
	buffer_printf(&expected, "}");
	SUCCEEDS(safetensors_lay_out(order, COUNT, "f", &head, &size, &s->err));
	assert_int_equal(head.size % 8, 0);
	assert_in_range(head.size, 8 + expected.size, 8 + expected.size + 7);
	assert_memory_equal(head.data + 8, expected.data, expected.size);
	assert_int_equal(strspn(head.data + 8 + expected.size, " "), head.size - 8 - expected.size);
	assert_int_equal(safetensors_header_length((unsigned char *)head.data), head.size - 8);
	assert_int_equal(size, (int64_t)head.size + data);
	SUCCEEDS(safetensors_parse(head.data, head.size, size, "f", &read, &count, &s->err));
	assert_int_equal(count, COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_ptr_equal(order[i], &infos[i]);
	tensor_infos_free(read, count);
	buffer_free(&head);
	buffer_free(&expected);
	infos[0].name = (char *)"b"; /* and so there twice */
	FAILS(STATUS_INVALID, "f: tensor 'b' is there twice", safetensors_lay_out(order, COUNT, "f", &head, &size, &s->err));
	infos[0].shape[0] = infos[1].shape[0] = INT64_MAX / 64;
	for (int i = 2; i < 9; i++) {
		infos[i].dtype = DTYPE_U8;
		infos[i].opaque = NULL;
		infos[i].shape[0] = INT64_MAX / 8;
	}
	FAILS(STATUS_INVALID, "f: its tensors are impossibly large", safetensors_lay_out(order, COUNT, "f", &head, &size, &s->err));
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

static void test_limits(void **state)
{
	struct scratch *s = *state;
	struct tensor_info *infos;
	size_t count;
	char header[2000] = "{\"", rest[] = "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
	memset(header + 2, 'n', 1024);
	strcpy(header + 2 + 1024, rest);
	SUCCEEDS(parse(header, 1, &infos, &count, &s->err));
	assert_int_equal(strlen(infos[0].name), 1024);
	tensor_infos_free(infos, count);
	memset(header + 2, 'n', 1025);
	strcpy(header + 2 + 1025, rest);
	FAILS(STATUS_INVALID, "a name of more than 1024 bytes", parse(header, 1, &infos, &count, &s->err));

	static const char format[] = "\"%06d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},";
	size_t size = 60 * (size_t)(SAFETENSORS_MAX_TENSORS + 2), used = 1;
	char *many = malloc(size);
	assert_non_null(many);
	many[0] = '{';
	for (int i = 0; i <= SAFETENSORS_MAX_TENSORS; i++)
		used += (size_t)snprintf(many + used, size - used, format, i);
	many[used - 1] = '}';
	FAILS(STATUS_INVALID, "more than 524288 tensors", parse(many, 0, &infos, &count, &s->err));
	free(many);
}

static void test_lfs_pointers(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 988097824\n";
	scratch_text(s, "model.safetensors", pointer);
	FAILS(STATUS_INVALID, "model.safetensors: a git-lfs pointer", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	assert_int_equal(unlink(scratch_path(s, "model.safetensors")), 0);
	scratch_text(s, "model.safetensors.index.json", pointer);
	FAILS(STATUS_INVALID, "index.json: a git-lfs pointer", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	scratch_text(s, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"1.safetensors\"}}");
	scratch_text(s, "1.safetensors", pointer);
	FAILS(STATUS_INVALID, "1.safetensors: a git-lfs pointer", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	assert_non_null(strstr(s->err.message, "git lfs pull"));
}

static void test_other_formats(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	static const struct {
		const char *name, *part;
	} cases[] = {
		{"weights.gguf", "weights.gguf: weights in llama.cpp's format"},
		{"consolidated.00.pth", "consolidated.00.pth: weights as the model's maker published them"},
		{"pytorch_model.bin",
		 "pytorch_model.bin: weights in PyTorch's pickle format, which is not read; load the model with transformers"},
		{"model-00001-of-00002.safetensors",
		 "model-00001-of-00002.safetensors: shards without model.safetensors.index.json"},
		{"adapter_model.safetensors", "adapter_model.safetensors: a LoRA adapter"},
	};
	FAILS(STATUS_NOT_FOUND, "neither model.safetensors nor", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, cases[i].name, "x");
		FAILS(STATUS_UNSUPPORTED, cases[i].part, checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	}
}

static const char index_file[] = "model.safetensors.index.json";

static void write_two_shards(struct scratch *s)
{
	scratch_safetensors(s, "2.safetensors", "{" T("b", "F32", "[1]", "[0,4]") "}", 4);
	scratch_safetensors(s, "1.safetensors", "{" T("a", "F32", "[1]", "[0,4]") "," T("c", "F32", "[1]", "[4,8]") "}", 8);
}

static void test_shards(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	struct warnings warnings = {0};
	static const struct {
		const char *index, *part;
		enum status status;
	} broken[] = {
		{"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "'a' is not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"..\"}}", "not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":7}}", "not a plain file name", STATUS_INVALID},
		{"{\"weight_map\":{\"a\":\"1.safetensors\",\"d\":\"3.safetensors\"}}",
		 "index.json names the shard 3.safetensors, which is not there; fetch it", STATUS_NOT_FOUND},
		{"{\"weight_map\":{}}", "names no shard", STATUS_INVALID},
		{"{\"weight_map\":[]}", "'weight_map' must be an object", STATUS_INVALID},
		{"{\"metadata\":{}}", "'weight_map' must be an object", STATUS_INVALID},
		{"[]", "not a JSON object", STATUS_INVALID},
		{"{", "not valid JSON", STATUS_INVALID},
	};
	write_two_shards(s);
	scratch_text(s, index_file,
		     "\xef\xbb\xbf{\"metadata\":{\"total_size\":12},\"weight_map\":{\"c\":\"1.safetensors\",\"b\":\"2."
		     "safetensors\",\"a\":\"1."
		     "safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_int_equal(warnings.count, 0);
	assert_int_equal(c.n_shards, 2);
	assert_int_equal(c.n_tensors, 3);
	assert_string_equal(c.shard_names[checkpoint_find(&c, "b")->shard], "2.safetensors");
	unsigned char data[4];
	SUCCEEDS(checkpoint_read(&c, checkpoint_find(&c, "c"), data, &s->err));
	assert_int_equal(data[0], 4);
	checkpoint_close(&c);
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		scratch_text(s, index_file, broken[i].index);
		FAILS(broken[i].status, broken[i].part, checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	}
	scratch_safetensors(s, "2.safetensors", "{" T("a", "F32", "[1]", "[0,4]") "}", 4);
	scratch_text(s, index_file, "{\"weight_map\":{\"c\":\"1.safetensors\",\"a\":\"2.safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_int_equal(c.n_tensors, 2);
	assert_string_equal(c.shard_names[checkpoint_find(&c, "a")->shard], "2.safetensors");
	assert_int_equal(warnings.count, 1);
	assert_non_null(
		strstr(warnings.messages[0], "1 tensor is in several shards, with the same values ('a' in 1.safetensors and 2."));
	warnings_free(&warnings);
	checkpoint_close(&c);
	scratch_safetensors(s, "2.safetensors", "{" T("b", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8);
	FAILS(STATUS_INVALID, "'a' is both in", checkpoint_open(&PLACE(s->directory), NULL, &c, &s->err));
	assert_non_null(strstr(s->err.message, "and they differ"));
}

/* What an index has wrong or too much is told, and the headers are believed. */
static void test_wrong_index(void **state)
{
	struct scratch *s = *state;
	struct checkpoint c;
	struct warnings warnings = {0};
	write_two_shards(s);
	scratch_text(s, index_file,
		     "{\"weight_map\":{\"a\":\"2.safetensors\",\"m1\":\"1.safetensors\",\"m2\":\"1.safetensors\",\"m3\":\"1."
		     "safetensors\","
		     "\"m4\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_string_equal(c.shard_names[checkpoint_find(&c, "a")->shard], "1.safetensors");
	assert_int_equal(c.n_tensors, 3);
	assert_int_equal(warnings.count, 1);
	assert_string_equal(
		warnings.messages[0],
		"model.safetensors.index.json does not agree with the shards: 4 tensors are in no shard (m1, m2, m3, …), 1 tensor "
		"is in another shard than it says (a), 1 tensor is not listed (c); tensors are read from where the shards' headers "
		"say");
	checkpoint_close(&c);
	warnings_free(&warnings);

	scratch_safetensors(s, "model.safetensors", two, 14);
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_int_equal(c.n_shards, 1);
	assert_non_null(checkpoint_find(&c, "flags"));
	assert_int_equal(warnings.count, 1);
	assert_non_null(strstr(warnings.messages[0], "are both there"));
	checkpoint_close(&c);
	warnings_free(&warnings);
	scratch_text(s, index_file, "{\"weight_map\":{\"a\":\"model.safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(s->directory), &warnings, &c, &s->err));
	assert_int_equal(warnings.count, 0);
	checkpoint_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_parse),          SCRATCH_TEST(test_broken_headers), SCRATCH_TEST(test_lengths),
		SCRATCH_TEST(test_layout),         SCRATCH_TEST(test_single),         SCRATCH_TEST(test_truncated),
		SCRATCH_TEST(test_cut_while_open), SCRATCH_TEST(test_shards),         SCRATCH_TEST(test_wrong_index),
		SCRATCH_TEST(test_limits),         SCRATCH_TEST(test_lfs_pointers),   SCRATCH_TEST(test_other_formats),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
