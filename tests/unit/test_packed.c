/* Packed linears: files that compressed-tensors wrote (tests/data/packed), what is refused of them, and codes that are packed
 * and read again. */
#include <errno.h>
#include <glob.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/compute/half.h"
#include "engine/model/packed.h"

/* ---- what another library packed ----------------------------------------------------------------------------------------- */

static struct packed_form packing_of(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	struct packed_form packing = {.bits = atoi(name), .symmetric = strncmp(name + 2, "symmetric", 9) == 0};
	packing.group = atoi(strchr(name + 2, '-') + 1); /* 0 of "row" */
	return packing;
}

static void check_file(struct scratch *s, const char *path)
{
	struct checkpoint c;
	const struct packed_form packing = packing_of(path);
	SUCCEEDS(checkpoint_open_file(&PLACE(path), &c, &s->err));
	size_t before = c.n_tensors;
	SUCCEEDS(packed_find(&c, &packing, &s->err));
	assert_int_equal(c.n_tensors, before - (packing.symmetric ? 2 : 3));
	assert_null(checkpoint_find(&c, "P.weight_packed"));
	const struct tensor_info *weight = checkpoint_find(&c, "P.weight"), *expected = checkpoint_find(&c, "expected");
	assert_non_null(weight);
	assert_int_equal(weight->dtype, expected->dtype);
	assert_memory_equal(weight->shape, expected->shape, 2 * sizeof *weight->shape);
	assert_int_equal(weight->bytes, expected->bytes);
	char *got = malloc((size_t)weight->bytes), *wanted = malloc((size_t)weight->bytes);
	SUCCEEDS(checkpoint_read(&c, weight, got, &s->err));
	SUCCEEDS(checkpoint_read(&c, expected, wanted, &s->err));
	for (int64_t i = 0; i < weight->shape[0] * weight->shape[1]; i++)
		if (half_load(got, weight->dtype, i) != half_load(wanted, weight->dtype, i))
			fail_msg("%s: element %lld is %g, not %g", path, (long long)i, (double)half_load(got, weight->dtype, i),
				 (double)half_load(wanted, weight->dtype, i));
	/* A part that begins in the middle of a word of zero points. */
	struct tensor_info part = *weight;
	int64_t row_bytes = weight->bytes / weight->shape[0];
	part.offset = row_bytes;
	part.bytes = 2 * row_bytes;
	memset(got, 0xff, (size_t)weight->bytes);
	SUCCEEDS(checkpoint_read(&c, &part, got, &s->err));
	for (int64_t i = 0; i < 2 * weight->shape[1]; i++)
		assert_true(half_load(got, weight->dtype, i) == half_load(wanted, weight->dtype, weight->shape[1] + i));
	free(got);
	free(wanted);
	checkpoint_close(&c);
}

static void test_reads_what_compressed_tensors_wrote(void **state)
{
	glob_t files;
	assert_int_equal(glob("tests/data/packed/*.safetensors", 0, NULL, &files), 0);
	assert_int_equal(files.gl_pathc, 6);
	for (size_t i = 0; i < files.gl_pathc; i++)
		check_file(*state, files.gl_pathv[i]);
	globfree(&files);
}

/* ---- words --------------------------------------------------------------------------------------------------------------- */

static void test_packs_what_is_read_again(void **state)
{
	(void)state;
	uint8_t codes[3 * 70];
	for (int bits = 4; bits <= 8; bits += 4)
		for (int64_t count = 1; count <= 70; count++)
			for (int64_t stride = 1; stride <= 3; stride++) {
				uint32_t words[3 * 20];
				memset(words, 0xff, sizeof words);
				for (int64_t i = 0; i < count; i++)
					codes[i * stride] = (uint8_t)((i * 7 + count) & ((1 << bits) - 1));
				packed_pack(codes, count, stride, bits, words);
				for (int64_t i = 0; i < count; i++)
					assert_int_equal(packed_code(words, stride, i, bits), codes[i * stride]);
				int64_t last = packed_words(count, bits) - 1, used = count - last * (32 / bits);
				if (used < 32 / bits) assert_int_equal(words[last * stride] >> used * bits, 0);
			}
	assert_int_equal(packed_words(INT64_MAX, 4), INT64_MAX / 8 + 1);
}

static void test_zero_is_zero(void **state)
{
	(void)state;
	static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
	for (size_t t = 0; t < 3; t++)
		for (int zero = 0; zero < 256; zero++) {
			uint32_t bits = 1;
			packed_dequantize(zero, zero, 0.37f, &bits, types[t], 0);
			assert_int_equal(bits & (types[t] == DTYPE_F32 ? 0xffffffff : 0xffff), 0);
		}
}

/* Every half, and halfway between two. */
static void test_rounding_to_halves(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7bff; h++) {
		float low = f16_to_f32((uint16_t)h), high = f16_to_f32((uint16_t)(h + 1)), middle = (low + high) / 2;
		assert_int_equal(f16_from_f32(low), h);
		assert_int_equal(f16_from_f32(-high), (h + 1) | 0x8000);
		assert_int_equal(f16_from_f32(middle), h + (h & 1));
		assert_int_equal(f16_from_f32(nextafterf(middle, high)), h + 1);
		assert_int_equal(f16_from_f32(nextafterf(middle, low)), h);
	}
	assert_int_equal(f16_from_f32(65519.996f), 0x7bff);
	assert_int_equal(f16_from_f32(65520), 0x7c00);
	assert_int_equal(f16_from_f32(-INFINITY), 0xfc00);
	assert_int_equal(f16_from_f32(NAN) & 0x7fff, 0x7e00);
	assert_int_equal(bf16_from_f32(1.00390625f), 0x3f80); /* halves to even, down and up */
	assert_int_equal(bf16_from_f32(1.01171875f), 0x3f82);
	assert_int_equal(bf16_from_f32(-INFINITY), 0xff80);
	assert_int_equal(bf16_from_f32(NAN) & 0x7fff, 0x7fc0);
}

/* ---- what is refused ----------------------------------------------------------------------------------------------------- */

#define T(name, type, shape, offsets) "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define SHAPE T("P.weight_shape", "I64", "[2]", "[0,16]")
#define CODES T("P.weight_packed", "I32", "[2,3]", "[16,40]")
#define STEPS T("P.weight_scale", "F16", "[2,2]", "[40,48]")

static void write_file(struct scratch *s, const char *header, size_t bytes, int64_t rows, int64_t cols)
{
	const int64_t shape[] = {rows, cols};
	const uint64_t length = strlen(header);
	char *file = calloc(1, sizeof length + length + bytes), *data = file + sizeof length + length;
	assert_non_null(file);
	memcpy(file, &length, sizeof length);
	memcpy(file + sizeof length, header, length);
	memcpy(data, shape, bytes < sizeof shape ? bytes : sizeof shape);
	scratch_write(s, "model.safetensors", file, sizeof length + length + bytes);
	free(file);
}

static void test_refuses_what_does_not_fit(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *header, *part;
		size_t bytes;
		int64_t rows, cols;
		enum status status;
		bool zeros;
	} cases[] = {
		{"{" CODES "," STEPS "," SHAPE "}", NULL, 48, 2, 20, STATUS_OK, false},
		{"{" CODES "," STEPS "," SHAPE "}", "'P.weight_packed' of a packed linear is not I32", 48, 2, 25, STATUS_INVALID,
		 false},
		{"{" CODES "," STEPS "," SHAPE "}", "'P.weight_packed' of a packed linear is not I32", 48, 3, 20, STATUS_INVALID,
		 false},
		{"{" CODES "," STEPS "," SHAPE "}", "columns that are no whole groups", 48, 2, 24, STATUS_INVALID, false},
		{"{" CODES "," STEPS "," SHAPE "}", "a shape that cannot be", 48, 0, 20, STATUS_INVALID, false},
		{"{" CODES "," STEPS "," SHAPE "}", "a shape that cannot be", 48, 2, INT64_MAX, STATUS_INVALID, false},
		{"{" CODES "," STEPS "," SHAPE "}", "has no 'weight_zero_point'", 48, 2, 20, STATUS_INVALID, true},
		{"{" CODES "," SHAPE "," T("other", "F16", "[4]", "[40,48]") "}", "has no 'weight_scale'", 48, 2, 20,
		 STATUS_INVALID, false},
		{"{" CODES "," STEPS "," T("other", "I64", "[2]", "[0,16]") "}", "has no 'weight_shape'", 48, 2, 20, STATUS_INVALID,
		 false},
		{"{" CODES "," STEPS "," T("P.weight_shape", "F64", "[2]", "[0,16]") "}", "must be I64 [2]", 48, 2, 20,
		 STATUS_INVALID, false},
		{"{" T("P.weight_packed", "F32", "[2,3]", "[16,40]") "," STEPS "," SHAPE "}", "is not I32", 48, 2, 20,
		 STATUS_INVALID, false},
		{"{" CODES "," T("P.weight_scale", "I32", "[2]", "[40,48]") "," SHAPE "}", "with a step for each group", 48, 2, 20,
		 STATUS_INVALID, false},
		{"{" CODES "," T("P.weight_scale", "F16", "[4,1]", "[40,48]") "," SHAPE "}", "with a step for each group", 48, 2,
		 20, STATUS_INVALID, false},
		{"{" CODES "," STEPS "," SHAPE "," T("P.weight_zero_point", "I32", "[1,2]", "[48,56]") "}",
		 "says that it is symmetric", 56, 2, 20, STATUS_UNSUPPORTED, false},
		{"{" CODES "," STEPS "," SHAPE "," T("P.weight_zero_point", "I32", "[1,2]", "[48,56]") "}", NULL, 56, 2, 20,
		 STATUS_OK, true},
		{"{" CODES "," STEPS "," SHAPE "," T("P.weight_zero_point", "I32", "[2,1]", "[48,56]") "}",
		 "with a zero point for each", 56, 2, 20, STATUS_INVALID, true},
		{"{" CODES "," STEPS "," SHAPE "," T("P.weight_g_idx", "I32", "[2]", "[48,56]") "}", "actorder", 56, 2, 20,
		 STATUS_UNSUPPORTED, false},
		{"{" CODES "," STEPS "," SHAPE "," T("P.weight", "F16", "[2,2]", "[48,56]") "}", "is there twice", 56, 2, 20,
		 STATUS_UNSUPPORTED, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct checkpoint c;
		const struct packed_form packing = {.bits = 4, .group = 10, .symmetric = !cases[i].zeros}, none = {0};
		write_file(s, cases[i].header, cases[i].bytes, cases[i].rows, cases[i].cols);
		SUCCEEDS(checkpoint_open_file(&PLACE(scratch_path(s, "model.safetensors")), &c, &s->err));
		size_t before = c.n_tensors;
		SUCCEEDS(packed_find(&c, &none, &s->err));
		assert_int_equal(c.n_tensors, before);
		if (cases[i].status == STATUS_OK) {
			SUCCEEDS(packed_find(&c, &packing, &s->err));
			assert_int_equal(c.n_tensors, 1);
		} else {
			FAILS(cases[i].status, cases[i].part, packed_find(&c, &packing, &s->err));
			assert_int_equal(c.n_tensors, before); /* and all of it can be closed */
		}
		checkpoint_close(&c);
	}
}

/* ---- config.json --------------------------------------------------------------------------------------------------------- */

static void test_config_is_read_as_written(void **state)
{
	struct scratch *s = *state;
	for (int bits = 4; bits <= 8; bits += 4)
		for (int64_t group = 0; group <= 128; group += 64)
			for (int symmetric = 0; symmetric < 2; symmetric++) {
				const struct packed_form packing = {bits, group, symmetric};
				struct packed_form read = {0};
				cJSON *json = packed_form_json(&packing, cJSON_Parse("[\"lm_head\"]"));
				assert_true(packed_form_is_meant(json));
				SUCCEEDS(packed_form_parse(json, "config.json", "quantization_config", &read, &s->err));
				assert_int_equal(read.bits, bits);
				assert_int_equal(read.group, group);
				assert_int_equal(read.symmetric, symmetric);
				cJSON_Delete(json);
			}
}

/* A variant of what is written, by a JSON pointer's parts. */
static void test_config_variants(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *object, *key, *value, *refused;
	} cases[] = {
		{"weights", "actorder", "\"group\"", "actorder"},
		{"weights", "actorder", "\"dynamic\"", "actorder"},
		{"weights", "actorder", "\"static\"", NULL},
		{"weights", "num_bits", "3", "num_bits"},
		{"weights", "num_bits", "4.5", "num_bits"},
		{"weights", "num_bits", "null", "num_bits"},
		{"weights", "type", "\"float\"", "'type'"},
		{"weights", "dynamic", "true", "dynamic"},
		{"weights", "strategy", "\"tensor\"", "strategy"},
		{"weights", "strategy", "\"block\"", "strategy"},
		{"weights", "strategy", "null", NULL},
		{"weights", "group_size", "0", "group_size"},
		{"weights", "group_size", "1e300", "group_size"},
		{"weights", "group_size", "\"all\"", "group_size"},
		{"group_0", "input_activations", "{\"num_bits\":8}", "input_activations"},
		{"group_0", "output_activations", "{\"num_bits\":8}", "output_activations"},
		{"group_0", "format", "\"int-quantized\"", "'format'"},
		{"group_0", "weights", "null", "weights"},
		{"config_groups", "group_1", "{}", "config_groups"},
		{NULL, "config_groups", "{}", "config_groups"},
		{NULL, "kv_cache_scheme", "{\"num_bits\":8}", "kv_cache_scheme"},
		{NULL, "transform_config", "{\"config_groups\":{\"u\":{}}}", "transform_config"},
		{NULL, "sparsity_config", "{\"format\":\"sparse-24-bitmask\"}", "sparsity_config"},
		{NULL, "sparsity_config", "{\"format\":\"dense\"}", NULL},
	};
	const struct packed_form packing = {4, 64, true};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct packed_form read = {0};
		cJSON *json = packed_form_json(&packing, cJSON_CreateArray()), *object = json;
		static const char *const path[] = {"config_groups", "group_0", "weights"};
		for (size_t p = 0; cases[i].object && (p == 0 || strcmp(path[p - 1], cases[i].object) != 0); p++)
			object = cJSON_GetObjectItem(object, path[p]);
		cJSON_DeleteItemFromObject(object, cases[i].key);
		cJSON_AddItemToObject(object, cases[i].key, cJSON_Parse(cases[i].value));
		if (cases[i].refused)
			FAILS(STATUS_UNSUPPORTED, cases[i].refused,
			      packed_form_parse(json, "config.json", "quantization_config", &read, &s->err));
		else
			SUCCEEDS(packed_form_parse(json, "config.json", "quantization_config", &read, &s->err));
		cJSON_Delete(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_reads_what_compressed_tensors_wrote),
		SCRATCH_TEST(test_packs_what_is_read_again),
		SCRATCH_TEST(test_zero_is_zero),
		SCRATCH_TEST(test_rounding_to_halves),
		SCRATCH_TEST(test_refuses_what_does_not_fit),
		SCRATCH_TEST(test_config_is_read_as_written),
		SCRATCH_TEST(test_config_variants),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
