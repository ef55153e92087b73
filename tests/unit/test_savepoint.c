/* What a job keeps to go on: the savepoint and the hidden states (engine/prune/savepoint.h, stream.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/prune/savepoint.h"
#include "engine/prune/stream.h"

static char directory[64];

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/besad-savepoint-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	struct error err;
	(void)state;
	return directory_remove(directory, &err) == STATUS_OK ? 0 : -1;
}

static struct savepoint fresh(const cJSON *spec)
{
	struct savepoint savepoint;
	struct error err;
	assert_int_equal(savepoint_load(directory, spec, 0, &savepoint, &err), STATUS_OK);
	assert_false(savepoint.found);
	strcpy(savepoint.backend, "cpu");
	strcpy(savepoint.precision, "f32");
	savepoint.threads = 3;
	return savepoint;
}

static void add_blocks(struct savepoint *savepoint, int count)
{
	for (int i = 0; i < count; i++) {
		cJSON *block = cJSON_CreateObject();
		cJSON_AddNumberToObject(block, "block", i);
		cJSON_AddNumberToObject(block, "reconstruction", 0.1 + i / 3.0);
		cJSON_AddItemToArray(savepoint->blocks, block);
	}
}

static void test_round_trip_and_truncation(void **state)
{
	(void)state;
	struct error err;
	cJSON *spec = cJSON_Parse("{\"model\":\"m\",\"sparsity\":0.5}"), *other = cJSON_Parse("{\"model\":\"m\",\"sparsity\":0.6}");
	struct savepoint saved = fresh(spec), loaded;
	add_blocks(&saved, 3);
	cJSON_AddNumberToObject(saved.dense, "wikitext2", 18.5);
	assert_int_equal(savepoint_save(&saved, spec, &err), STATUS_OK);

	assert_int_equal(savepoint_load(directory, spec, 2, &loaded, &err), STATUS_OK);
	assert_true(loaded.found);
	assert_int_equal(loaded.threads, 3);
	assert_string_equal(loaded.backend, "cpu");
	assert_string_equal(loaded.precision, "f32");
	assert_int_equal(cJSON_GetArraySize(loaded.blocks), 2); /* the third was not committed */
	assert_true(cJSON_Compare(cJSON_GetArrayItem(loaded.blocks, 1), cJSON_GetArrayItem(saved.blocks, 1), true));
	assert_true(cJSON_Compare(loaded.dense, saved.dense, true));
	savepoint_free(&loaded);

	assert_int_equal(savepoint_load(directory, spec, 4, &loaded, &err), STATUS_INVALID);
	assert_int_equal(savepoint_load(directory, other, 2, &loaded, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "another spec"));
	savepoint_free(&saved);
	cJSON_Delete(spec);
	cJSON_Delete(other);
}

static void test_damage_is_an_error(void **state)
{
	(void)state;
	struct error err;
	struct savepoint loaded;
	cJSON *spec = cJSON_CreateObject();
	char path[128];
	snprintf(path, sizeof path, "%s/savepoint.json", directory);
	for (const char **text = (const char *[]){"", "{", "[]", "{\"threads\":2}", "{\"threads\":\"two\"}", NULL}; *text; text++) {
		assert_int_equal(file_replace(path, *text, strlen(*text), &err), STATUS_OK);
		assert_int_equal(savepoint_load(directory, spec, 0, &loaded, &err), STATUS_INVALID);
		assert_non_null(strstr(err.message, "savepoint.json"));
	}
	static const char newer[] = "{\"format\":3,\"spec\":{}}";
	assert_int_equal(file_replace(path, newer, strlen(newer), &err), STATUS_OK);
	assert_int_equal(savepoint_load(directory, spec, 0, &loaded, &err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.message, "a newer besad"));
	unlink(path);
	assert_int_equal(savepoint_load(directory, spec, 1, &loaded, &err), STATUS_NOT_FOUND);
	cJSON_Delete(spec);
}

static void fill(struct backend *backend, struct stream *stream, float *values)
{
	int64_t count = stream->sequences * stream->tokens * stream->hidden;
	for (int64_t i = 0; i < count; i++)
		values[i] = (float)i * 0.25f - 7;
	struct tensor all;
	assert_int_equal(stream_batch(stream, 0, stream->sequences, false, &all), STATUS_OK);
	assert_int_equal(backend->ops->upload(backend, all.data, values, (size_t)count * sizeof *values), STATUS_OK);
}

static void test_hidden_states(void **state)
{
	(void)state;
	struct error err;
	struct backend *backend;
	struct stream saved, loaded, wider;
	float values[5 * 3 * 8], back[5 * 3 * 8];
	char path[128];
	struct tensor part;
	snprintf(path, sizeof path, "%s/hidden-1.bin", directory);
	assert_int_equal(backend_cpu_create(1, &backend, &err), STATUS_OK);
	assert_int_equal(stream_create(backend, 5, 3, 8, 5, &saved, &err), STATUS_OK);
	assert_int_equal(stream_create(backend, 5, 3, 8, 5, &loaded, &err), STATUS_OK);
	assert_int_equal(stream_create(backend, 5, 3, 9, 5, &wider, &err), STATUS_OK);
	fill(backend, &saved, values);
	assert_int_equal(stream_save(&saved, path, &err), STATUS_OK);
	assert_int_equal(stream_load(&loaded, path, &err), STATUS_OK);
	assert_int_equal(stream_batch(&loaded, 0, 5, true, &part), STATUS_OK);
	assert_int_equal(backend->ops->download(backend, back, part.data, sizeof back), STATUS_OK);
	assert_memory_equal(back, values, sizeof values);

	assert_int_equal(stream_load(&wider, path, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "hidden-1.bin"));
	assert_int_equal(truncate(path, 200), 0);
	assert_int_not_equal(stream_load(&loaded, path, &err), STATUS_OK);
	assert_non_null(strstr(err.message, "hidden-1.bin"));
	stream_release(&saved);
	stream_release(&loaded);
	stream_release(&wider);
	backend_destroy(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip_and_truncation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hidden_states, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
