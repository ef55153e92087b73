/* Every tensor of models of several families, one after the other: missing, of another shape, of another type. It is refused, and
 * by its name. */
#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/model/check.h"
#include "engine/model/model.h"

static const char *const families[] = {"llama", "gpt2", "opt", "gpt_oss", "qwen2_moe", "phi3", "gemma3_text", "command_r_plus"};

static enum status check(struct scratch *s)
{
	struct model model;
	struct warnings warnings = {0};
	s->err = (struct error){0};
	enum status status = model_open(&PLACE(s->directory), &warnings, &model, &s->err);
	if (status == STATUS_OK) {
		status = model_check_all(&model, &warnings, &s->err);
		model_close(&model);
	}
	warnings_free(&warnings);
	return status;
}

/* The model's file: its header, and behind it what it was. */
struct whole {
	cJSON *header;
	char *bytes; /* of the file as it was */
	size_t size, start;
};

static void write_model(struct scratch *s, const struct whole *whole)
{
	char *header = cJSON_PrintUnformatted(whole->header);
	assert_non_null(header);
	uint64_t length = strlen(header); /* little-endian, as all that besad runs on */
	FILE *file = fopen(scratch_path(s, "model.safetensors"), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(&length, 8, 1, file), 1);
	assert_int_equal(fwrite(header, 1, length, file), length);
	assert_int_equal(fwrite(whole->bytes + whole->start, 1, whole->size - whole->start, file), whole->size - whole->start);
	assert_int_equal(fclose(file), 0);
	free(header);
}

static void read_model(struct scratch *s, const char *family, struct whole *ret)
{
	char path[200], *config;
	size_t size;
	uint64_t length;
	snprintf(path, sizeof path, "tests/data/saved/%s/config.json", family);
	SUCCEEDS(file_slurp(path, 1 << 20, &config, &size, &s->err));
	scratch_write(s, "config.json", config, size);
	free(config);
	snprintf(path, sizeof path, "tests/data/saved/%s/model.safetensors", family);
	SUCCEEDS(file_slurp(path, 1 << 24, &ret->bytes, &ret->size, &s->err));
	memcpy(&length, ret->bytes, 8);
	ret->start = 8 + length;
	SUCCEEDS(json_parse(ret->bytes + 8, length, path, &ret->header, &s->err));
	write_model(s, ret);
	if (check(s) != STATUS_OK) fail_msg("%s: %s", family, s->err.message);
}

static void expect_refused(struct scratch *s, const char *family, const char *tensor, const char *what, bool may, const char *says)
{
	enum status status = check(s);
	if (may && status == STATUS_OK) return;
	if ((status != STATUS_INVALID && status != STATUS_UNSUPPORTED) || !strstr(s->err.message, tensor) ||
	    !strstr(s->err.message, says))
		fail_msg("%s, '%s' %s: %s, \"%s\"", family, tensor, what, status_name(status), s->err.message);
}

/* Those that are left out where embeddings are tied; and what a family's blocks may be without. */
static bool may_miss(const char *tensor)
{
	return strstr(tensor, "lm_head") || strstr(tensor, "embed_out");
}

static void try_tensor(struct scratch *s, const char *family, struct whole *whole, const char *name)
{
	cJSON *tensor = cJSON_DetachItemFromObjectCaseSensitive(whole->header, name);
	cJSON_AddItemReferenceToObject(whole->header, "nobody.knows", tensor);
	write_model(s, whole);
	expect_refused(s, family, name, "is missing", may_miss(name), "is missing");
	cJSON_DeleteItemFromObjectCaseSensitive(whole->header, "nobody.knows");

	cJSON *wrong = cJSON_Duplicate(tensor, true), *shape = cJSON_GetObjectItem(wrong, "shape");
	cJSON_AddItemToObject(whole->header, name, wrong);
	cJSON_AddItemToArray(shape, cJSON_CreateNumber(1));
	write_model(s, whole);
	expect_refused(s, family, name, "has a dimension too many", false, " has shape [");
	cJSON_DeleteItemFromObjectCaseSensitive(whole->header, name);

	wrong = cJSON_Duplicate(tensor, true);
	cJSON_AddItemToObject(whole->header, name, wrong);
	bool wide = strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(wrong, "dtype")), "F32") == 0;
	cJSON_ReplaceItemInObject(wrong, "dtype", cJSON_CreateString(wide ? "I32" : "I16"));
	write_model(s, whole);
	expect_refused(s, family, name, "is of integers", false, " has dtype ");
	cJSON_DeleteItemFromObjectCaseSensitive(whole->header, name);
	cJSON_AddItemToObject(whole->header, name, tensor);
}

static void test_each_tensor(void **state)
{
	struct scratch *s = *state;
	for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
		struct whole whole;
		read_model(s, families[f], &whole);
		int n = cJSON_GetArraySize(whole.header);
		char **names = calloc((size_t)n, sizeof *names);
		assert_non_null(names);
		for (int i = 0; i < n; i++)
			names[i] = strdup(cJSON_GetArrayItem(whole.header, i)->string);
		for (int i = 0; i < n; i++) {
			bool other_block = strstr(names[i], "s.1.") || strstr(names[i], "h.1."); /* as the first is */
			if (strcmp(names[i], "__metadata__") != 0 && !other_block) try_tensor(s, families[f], &whole, names[i]);
			free(names[i]);
		}
		free(names);
		cJSON_Delete(whole.header);
		free(whole.bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_each_tensor)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
