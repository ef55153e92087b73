/* A job's spec as it is stored with the job, and read again (engine/spec/restore.h). */
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/spec/restore.h"

static const char config_json[] =
	"{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":160,\"num_hidden_layers\":2,"
	"\"num_attention_heads\":4,\"vocab_size\":100,\"tie_word_embeddings\":true,\"max_position_embeddings\":512}";

/* Two roots of each kind; `first` has the model and the data, and `standard` is the operator's calibration. */
struct fixture {
	char first[96], second[96], standard[96], other_standard[96];
	char *first_alone[2], *both[3];
	struct roots roots;
};

static void make_model(struct scratch *s, const char *directory)
{
	char name[128];
	assert_int_equal(mkdir(scratch_path(s, directory), 0700), 0);
	snprintf(name, sizeof name, "%s/config.json", directory);
	scratch_text(s, name, config_json);
	snprintf(name, sizeof name, "%s/model.safetensors", directory);
	scratch_llama(s, name, 64, 160, 2, 100);
}

static void make(struct scratch *s, struct fixture *f)
{
	assert_int_equal(mkdir(scratch_path(s, "first"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(s, "second"), 0700), 0);
	make_model(s, "first/tiny");
	scratch_text(s, "first/wiki.txt", "a");
	scratch_text(s, "standard.txt", "b");
	snprintf(f->first, sizeof f->first, "%s/first", s->directory);
	snprintf(f->second, sizeof f->second, "%s/second", s->directory);
	snprintf(f->standard, sizeof f->standard, "%s/standard.txt", s->directory);
	snprintf(f->other_standard, sizeof f->other_standard, "%s/first/wiki.txt", s->directory);
	f->first_alone[0] = f->both[1] = f->first;
	f->both[0] = f->second;
	f->roots = (struct roots){.model = f->first_alone, .data = f->first_alone, .calibration = f->standard};
}

/* A spec as a client sends it, resolved; *ret_json and *ret_places are what is stored. */
static void store(struct scratch *s, const struct fixture *f, cJSON **ret_json, cJSON **ret_places)
{
	static const char text[] =
		"{\"model\":\"tiny\",\"sparsity\":0.5,\"evaluation\":{\"perplexity\":[{\"path\":\"wiki.txt\"}]}}";
	cJSON *json = cJSON_Parse(text);
	struct spec *spec;
	struct spec_problems problems = {0};
	SUCCEEDS(spec_parse(json, &f->roots, &spec, &problems, &s->err));
	*ret_json = spec_to_json(spec);
	*ret_places = spec_places(spec);
	assert_true(*ret_json && *ret_places);
	cJSON_Delete(json);
	spec_free(spec);
}

static void assert_place(const struct place *place, const char *root, const char *path)
{
	if (root)
		assert_string_equal(place->root, root);
	else
		assert_null(place->root);
	assert_string_equal(place->path, path);
}

static void assert_same(const cJSON *a, const cJSON *b)
{
	struct json_difference difference;
	if (json_differ(a, b, false, &difference)) fail_msg("%s differs", difference.pointer);
}

static void test_not_resolved_again(void **state)
{
	struct scratch *s = *state;
	struct fixture f = {0};
	struct spec *spec;
	cJSON *json, *places;
	make(s, &f);
	store(s, &f, &json, &places);

	/* Since then: another root comes first, which has all the names, and there is another calibration. */
	make_model(s, "second/tiny");
	scratch_text(s, "second/wiki.txt", "c");
	f.roots = (struct roots){.model = f.both, .data = f.both, .calibration = f.other_standard};
	SUCCEEDS(spec_restore(json, places, &f.roots, &spec, &s->err));
	assert_place(&spec->model_place, f.first, "tiny");
	assert_place(&spec->perplexity[0].place, f.first, "wiki.txt");
	assert_place(&spec->calibration.sources[0].place, NULL, f.standard);
	cJSON *again = spec_to_json(spec);
	assert_same(json, again);
	cJSON_Delete(again);
	spec_free(spec);

	/* What is gone is looked up where names are looked up today. */
	char from[128];
	snprintf(from, sizeof from, "%s/tiny", f.first);
	assert_int_equal(rename(from, scratch_path(s, "gone")), 0);
	SUCCEEDS(spec_restore(json, places, &f.roots, &spec, &s->err));
	assert_place(&spec->model_place, f.second, "tiny");
	assert_place(&spec->perplexity[0].place, f.first, "wiki.txt");
	spec_free(spec);
	f.roots.model = f.first_alone;
	FAILS(STATUS_INVALID, "/model: 'tiny' is not there", spec_restore(json, places, &f.roots, &spec, &s->err));
	cJSON_Delete(json);
	cJSON_Delete(places);
}

/* An earlier version stored the spec alone, and without the fields that have come since. */
static void test_earlier_versions(void **state)
{
	struct scratch *s = *state;
	struct fixture f = {0};
	struct spec *spec;
	cJSON *json, *places;
	make(s, &f);
	store(s, &f, &json, &places);
	cJSON *full = cJSON_Duplicate(json, true);
	cJSON_DeleteItemFromObject(cJSON_GetObjectItem(json, "calibration"), "field");
	cJSON_DeleteItemFromObject(json, "progress");
	cJSON_DeleteItemFromObject(cJSON_GetObjectItem(json, "besa"), "safeguards");
	assert_true(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(full, "besa"), "safeguards")));
	cJSON_ReplaceItemInObject(cJSON_GetObjectItem(full, "besa"), "safeguards", cJSON_CreateFalse()); /* jobs had none */
	SUCCEEDS(spec_restore(json, NULL, &f.roots, &spec, &s->err));
	assert_place(&spec->model_place, f.first, "tiny");
	assert_place(&spec->calibration.sources[0].place, NULL, f.standard);
	cJSON *again = spec_to_json(spec);
	assert_same(full, again);
	spec_free(spec);
	cJSON_Delete(again);

	cJSON_ReplaceItemInObject(json, "sparsity", cJSON_CreateNumber(2));
	FAILS(STATUS_INVALID, "/sparsity", spec_restore(json, NULL, &f.roots, &spec, &s->err));
	cJSON_Delete(full);
	cJSON_Delete(json);
	cJSON_Delete(places);
}

/* A stored spec is read without a look at what it names: that has been found good, and is looked at by those who open it. */
static void test_nothing_is_opened(void **state)
{
	struct scratch *s = *state;
	struct fixture f = {0};
	struct spec *spec;
	cJSON *json, *places;
	make(s, &f);
	store(s, &f, &json, &places);
	scratch_text(s, "first/tiny/config.json", "{");
	scratch_text(s, "first/wiki.txt", "PAR1");
	SUCCEEDS(spec_restore(json, places, &f.roots, &spec, &s->err));
	assert_int_equal(spec->perplexity[0].sequence_length, 512);
	spec_free(spec);
	cJSON_Delete(json);
	cJSON_Delete(places);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_not_resolved_again),
		SCRATCH_TEST(test_earlier_versions),
		SCRATCH_TEST(test_nothing_is_opened),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
