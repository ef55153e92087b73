/* A study's grid: what is refused, the combinations in their order, the specs and the names that they make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/grid.h"

static void expect_text(char *text, const char *wanted)
{
	assert_non_null(text);
	assert_string_equal(text, wanted);
	free(text);
}

static void expect_json(const cJSON *json, const char *wanted)
{
	expect_text(cJSON_PrintUnformatted(json), wanted);
}

static void test_combinations(void **state)
{
	static const char *const wanted[] = {
		"{\"sparsity\":0.5,\"besa.candidates\":2}",  "{\"sparsity\":0.5,\"besa.candidates\":5}",
		"{\"sparsity\":0.5,\"besa.candidates\":11}", "{\"sparsity\":0.6,\"besa.candidates\":2}",
		"{\"sparsity\":0.6,\"besa.candidates\":5}",  "{\"sparsity\":0.6,\"besa.candidates\":11}"};
	cJSON *grid = cJSON_Parse("{\"sparsity\":[0.5,0.6],\"besa.candidates\":[2,5,11]}"), *errors = cJSON_CreateArray();
	size_t count = 0;
	(void)state;
	assert_true(grid_check(grid, 6, &count, errors));
	assert_int_equal(count, 6);
	for (size_t i = 0; i < count; i++) {
		cJSON *settings = grid_settings(grid, i);
		expect_json(settings, wanted[i]);
		cJSON_Delete(settings);
	}
	assert_false(grid_check(grid, 5, &count, errors));
	expect_json(errors, "[{\"pointer\":\"/grid\",\"detail\":\"makes more than the 5 jobs that a study may have here\"}]");
	cJSON_Delete(errors);
	cJSON_Delete(grid);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *grid, *pointer, *detail;
	} cases[] = {
		{"[]", "/grid", "must be an object"},
		{"{}", "/grid", "must be an object"},
		{"{\"sparsity\":0.5}", "/grid/sparsity", "list of 1 or more"},
		{"{\"sparsity\":[]}", "/grid/sparsity", "list of 1 or more"},
		{"{\"sparsity\":[0.5,0.6,0.5]}", "/grid/sparsity", "twice"},
		{"{\"sparsity\":[1,2,3,4,5]}", "/grid/sparsity", "more values"},
		{"{\"\":[1]}", "/grid/", "is no field"},
		{"{\"besa.\":[1]}", "/grid/besa.", "is no field"},
		{"{\"besa..x\":[1]}", "/grid/besa..x", "is no field"},
		{"{\"output\":[\"a\"]}", "/grid/output", "is made for each job"},
		{"{\"name\":[\"a\"]}", "/grid/name", "is made for each job"},
		{"{\"a/b~c\":1}", "/grid/a~1b~0c", "list of 1 or more"},
		{"{\"besa.epochs\":[1],\"besa\":[null]}", "/grid/besa.epochs", "part of another"},
		{"{\"a\":[1,2,3,4],\"b\":[1,2,3,4],\"c\":[1,2,3,4],\"d\":[1,2]}", "/grid", "makes more than"},
		{"{\"a\":[1],\"b\":[1],\"c\":[1],\"d\":[1],\"e\":[1],\"f\":[1],\"g\":[1],\"h\":[1],\"i\":[1],\"j\":[1],\"k\":[1],"
		 "\"l\":[1],\"m\":[1],\"n\":[1],\"o\":[1],\"p\":[1],\"q\":[1]}",
		 "/grid", "1 to 16 fields"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cJSON *grid = cJSON_Parse(cases[i].grid), *errors = cJSON_CreateArray();
		size_t count;
		assert_non_null(grid);
		assert_false(grid_check(grid, 4, &count, errors));
		const cJSON *error = cJSON_GetArrayItem(errors, 0);
		assert_int_equal(cJSON_GetArraySize(errors), 1);
		assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "pointer")), cases[i].pointer);
		assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(error, "detail")), cases[i].detail));
		cJSON_Delete(errors);
		cJSON_Delete(grid);
	}
}

static void test_specs(void **state)
{
	cJSON *spec = cJSON_Parse("{\"model\":\"m\",\"besa\":{\"epochs\":2},\"quantization\":7,"
				  "\"evaluation\":{\"perplexity\":[{\"path\":\"a\"}]}}");
	cJSON *settings = cJSON_Parse("{\"besa.candidates\":5,\"refit.method\":\"admm\",\"evaluation.perplexity.0.path\":\"b\","
				      "\"besa.epochs\":3}");
	cJSON *made;
	struct error err;
	(void)state;
	assert_int_equal(grid_spec(spec, settings, &made, &err), STATUS_OK);
	expect_json(made, "{\"model\":\"m\",\"besa\":{\"candidates\":5,\"epochs\":3},\"quantization\":7,"
			  "\"evaluation\":{\"perplexity\":[{\"path\":\"b\"}]},\"refit\":{\"method\":\"admm\"}}");
	cJSON_Delete(made);
	cJSON_Delete(settings);
	expect_json(cJSON_GetObjectItem(spec, "besa"), "{\"epochs\":2}"); /* it is as it was */
	settings = cJSON_Parse("{\"quantization.bits\":4}");
	assert_int_equal(grid_spec(spec, settings, &made, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "quantization.bits"));
	cJSON_Delete(settings);
	cJSON_Delete(spec);
}

static void test_names(void **state)
{
	cJSON *settings = cJSON_Parse("{\"sparsity\":0.5,\"calibration.path\":\"../c4 \\u00e9/x.json\",\"quantization\":null}");
	(void)state;
	expect_text(grid_describe(settings), "sparsity=0.5, calibration.path=../c4 \u00e9/x.json, quantization=null");
	expect_text(grid_directory(settings, 8, 100), "009_sparsity-0.5_calibration.path-..-c4-x.json_quantization-null");
	expect_text(grid_directory(settings, 8, 9), "9_sparsity-0.5_calibration.path-..-c4-x.json_quantization-null");
	cJSON_Delete(settings);

	settings = cJSON_Parse("{\"a\":\"123456789012345678901234567890123456789\\u00e9\"}"); /* cut between characters */
	expect_text(grid_describe(settings), "a=123456789012345678901234567890123456789");
	cJSON_Delete(settings);

	/* However long, it is the name of one directory, and begins with what no other one begins with. */
	char text[400] = "", *name;
	memset(text, 'x', sizeof text - 1);
	settings = cJSON_CreateObject();
	for (const char *key = "abcdefgh"; *key; key++)
		cJSON_AddStringToObject(settings, (char[]){*key, 0}, text);
	name = grid_directory(settings, 10, 256);
	assert_int_equal(strlen(name), 150);
	assert_memory_equal(name, "011_a-xx", 8);
	free(name);
	cJSON_Delete(settings);
}

static void test_pointers(void **state)
{
	cJSON *grid = cJSON_Parse("{\"sparsity\":[0.5,2],\"besa.candidates\":[1,5,11],\"quantization\":[null,{\"bits\":9}]}");
	(void)state;
	expect_text(grid_pointer(grid, 7, "/sparsity"), "/grid/sparsity/1");
	expect_text(grid_pointer(grid, 7, "/besa/candidates"), "/grid/besa.candidates/0");
	expect_text(grid_pointer(grid, 7, "/quantization/bits"), "/grid/quantization/1/bits");
	expect_text(grid_pointer(grid, 7, "/besa/epochs"), "/spec/besa/epochs");
	expect_text(grid_pointer(grid, 7, "/sparsity_"), "/spec/sparsity_");
	expect_text(grid_pointer(grid, 7, ""), "/spec");
	cJSON_Delete(grid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_combinations), cmocka_unit_test(test_refusals),
					   cmocka_unit_test(test_specs), cmocka_unit_test(test_names),
					   cmocka_unit_test(test_pointers)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
