/* What a job keeps to go on: the savepoint and the hidden states (engine/prune/savepoint.h, stream.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/place.h"
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

static void test_round_trip(void **state)
{
	(void)state;
	struct error err;
	cJSON *spec = cJSON_Parse("{\"model\":\"m\",\"sparsity\":0.5}"), *other = cJSON_Parse("{\"model\":\"m\",\"sparsity\":0.6}");
	struct savepoint saved = fresh(spec), loaded;
	add_blocks(&saved, 3);
	cJSON_AddNumberToObject(saved.dense, "wikitext2", 18.5);
	assert_int_equal(savepoint_format(&saved), SAVEPOINT_FORMAT_UNIFORM);
	saved.allocation = cJSON_Parse("[7,5,850000001]");
	saved.probe_dense = 0.1 + 0.2; /* to cJSON that is 0.3 */
	saved.end_loss = 5.8248072020281905;
	assert_int_equal(savepoint_format(&saved), SAVEPOINT_FORMAT);
	assert_int_equal(savepoint_save(&saved, spec, &err), STATUS_OK);

	/* As many as were committed, one more, or fewer (engine/prune/pipeline.h). */
	for (int committed = 2; committed < 5; committed++) {
		assert_int_equal(savepoint_load(directory, spec, committed, &loaded, &err), STATUS_OK);
		assert_int_equal(savepoint_blocks(&loaded), 3);
		savepoint_free(&loaded);
	}
	assert_int_equal(savepoint_load(directory, spec, 2, &loaded, &err), STATUS_OK);
	assert_true(loaded.found);
	assert_int_equal(loaded.threads, 3);
	assert_string_equal(loaded.backend, "cpu");
	assert_string_equal(loaded.precision, "f32");
	assert_true(cJSON_Compare(loaded.blocks, saved.blocks, true));
	assert_true(cJSON_Compare(loaded.dense, saved.dense, true));
	assert_true(cJSON_Compare(loaded.allocation, saved.allocation, true));
	assert_true(loaded.probe_dense == saved.probe_dense && loaded.end_loss == saved.end_loss); /* to the last bit */
	savepoint_free(&loaded);

	assert_int_equal(savepoint_load(directory, other, 2, &loaded, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "another spec"));
	assert_non_null(strstr(err.message, "/sparsity"));
	savepoint_free(&saved);
	cJSON_Delete(spec);
	cJSON_Delete(other);
}

/* A version in between has added a field to specs, or its savepoint has one that the job's stored spec has not. */
static void test_spec_of_another_version(void **state)
{
	(void)state;
	struct error err;
	cJSON *before = cJSON_Parse("{\"model\":\"m\",\"calibration\":{\"path\":\"c\"}}");
	cJSON *after = cJSON_Parse("{\"model\":\"m\",\"calibration\":{\"path\":\"c\",\"field\":\"text\"},\"new\":1}");
	const cJSON *const specs[] = {before, after};
	for (int i = 0; i < 2; i++) {
		struct savepoint saved = fresh(specs[i]), loaded;
		assert_int_equal(savepoint_save(&saved, specs[i], &err), STATUS_OK);
		assert_int_equal(savepoint_load(directory, specs[1 - i], 0, &loaded, &err), STATUS_OK);
		assert_true(loaded.found);
		savepoint_free(&saved);
		savepoint_free(&loaded);
		char path[128];
		snprintf(path, sizeof path, "%s/savepoint.json", directory);
		unlink(path);
	}
	cJSON_Delete(before);
	cJSON_Delete(after);
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
		assert_int_equal(place_replace(&PLACE(path), NULL, *text, strlen(*text), &err), STATUS_OK);
		assert_int_equal(savepoint_load(directory, spec, 0, &loaded, &err), STATUS_INVALID);
		assert_non_null(strstr(err.message, "savepoint.json"));
	}
	static const char newer[] = "{\"format\":4,\"spec\":{}}";
	assert_int_equal(place_replace(&PLACE(path), NULL, newer, strlen(newer), &err), STATUS_OK);
	assert_int_equal(savepoint_load(directory, spec, 0, &loaded, &err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.message, "a newer besad"));
	unlink(path);
	assert_int_equal(savepoint_load(directory, spec, 1, &loaded, &err), STATUS_NOT_FOUND);
	cJSON_Delete(spec);
}

/* Whichever byte is another, and wherever it ends: it is not taken for what was written. Without its checksum it is as an
 * earlier besad wrote it. */
static void test_a_changed_byte_is_found(void **state)
{
	(void)state;
	struct error err;
	cJSON *spec = cJSON_Parse("{\"model\":\"m\"}");
	struct savepoint saved = fresh(spec), loaded;
	char path[128], *text;
	size_t bytes;
	snprintf(path, sizeof path, "%s/savepoint.json", directory);
	add_blocks(&saved, 2);
	assert_int_equal(savepoint_save(&saved, spec, &err), STATUS_OK);
	assert_int_equal(file_slurp(path, 1 << 20, &text, &bytes, &err), STATUS_OK);
	char *checksum = strstr(text, ",\"checksum\":\"");
	assert_non_null(checksum);
	for (char *at = text; at < text + bytes - 2; at++) {
		if (at >= checksum && at < checksum + 13) continue; /* its name: what is in front of it is whole */
		*at ^= 1;
		assert_int_equal(place_replace(&PLACE(path), NULL, text, bytes, &err), STATUS_OK);
		if (savepoint_load(directory, spec, 2, &loaded, &err) != STATUS_INVALID)
			fail_msg("byte %d: %s", (int)(at - text), text);
		assert_non_null(strstr(err.message, "savepoint.json: is damaged: its checksum is "));
		*at ^= 1;
	}
	for (size_t length = 0; length < bytes; length++) {
		assert_int_equal(place_replace(&PLACE(path), NULL, text, length, &err), STATUS_OK);
		assert_int_equal(savepoint_load(directory, spec, 2, &loaded, &err), STATUS_INVALID);
	}
	char moved[64];
	snprintf(moved, sizeof moved, "{%.21s, \"blocks\": []}", checksum + 1);
	assert_int_equal(place_replace(&PLACE(path), NULL, moved, strlen(moved), &err), STATUS_OK);
	assert_int_equal(savepoint_load(directory, spec, 2, &loaded, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "is damaged: its checksum is elsewhere"));
	strcpy(checksum, "}");
	assert_int_equal(place_replace(&PLACE(path), NULL, text, strlen(text), &err), STATUS_OK);
	assert_int_equal(savepoint_load(directory, spec, 2, &loaded, &err), STATUS_OK);
	assert_int_equal(savepoint_blocks(&loaded), 2);
	savepoint_free(&loaded);
	savepoint_free(&saved);
	free(text);
	cJSON_Delete(spec);
}

static void make_file(const char *name)
{
	char path[128];
	struct error err;
	snprintf(path, sizeof path, "%s/%s", directory, name);
	assert_int_equal(place_replace(&PLACE(path), NULL, "x", 1, &err), STATUS_OK);
}

static bool is_there(const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path_exists(path);
}

/* What an attempt does not go on from, and what was cut short, goes; nothing else does. */
static void test_sweep(void **state)
{
	static const char *const kept[] = {"hidden-4.bin", "dense-4.bin", "probe-4.bin", "savepoint.json", "other-3.bin"};
	static const char *const left[] = {"hidden-3.bin",    "hidden-4.bin.new", "hidden-5.bin", "dense-14.bin",
					   "probe-5.bin.new", "hidden-40.bin",    "probe-0.bin"};
	struct error err;
	const struct savepoint savepoint = {.directory = directory};
	(void)state;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		make_file(kept[i]);
	for (size_t i = 0; i < sizeof left / sizeof *left; i++)
		make_file(left[i]);
	assert_int_equal(savepoint_sweep(&savepoint, 4, &err), STATUS_OK);
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		assert_true(is_there(kept[i]));
	for (size_t i = 0; i < sizeof left / sizeof *left; i++)
		assert_false(is_there(left[i]));
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

static void write_at(const char *path, long at, const void *bytes, size_t size)
{
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, at, SEEK_SET), 0);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

/* Turns a bit of the byte over. */
static void flip(const char *path, long at)
{
	char byte;
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	assert_int_equal(fseek(file, at, SEEK_SET), 0);
	assert_int_equal(fread(&byte, 1, 1, file), 1);
	assert_int_equal(fclose(file), 0);
	byte ^= 4;
	write_at(path, at, &byte, 1);
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
	assert_int_equal(stream_save(&saved, path, 1, &err), STATUS_OK);
	assert_int_equal(stream_load(&loaded, path, &err), STATUS_OK);
	assert_int_equal(stream_batch(&loaded, 0, 5, true, &part), STATUS_OK);
	assert_int_equal(backend->ops->download(backend, back, part.data, sizeof back), STATUS_OK);
	assert_memory_equal(back, values, sizeof values);

	assert_int_equal(stream_load(&wider, path, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "hidden-1.bin"));
	for (long at = 32; at < 64 + (long)sizeof values; at += 127) { /* the checksum, and some of what it is of */
		flip(path, at);
		assert_int_equal(stream_load(&loaded, path, &err), STATUS_INVALID);
		assert_non_null(strstr(err.message, "hidden-1.bin: is damaged"));
		flip(path, at);
	}
	assert_int_equal(stream_load(&loaded, path, &err), STATUS_OK);

	/* One of an earlier besad has none. */
	static const char before[] = "BESAHID1", none[4] = "";
	write_at(path, 0, before, 8);
	assert_int_equal(stream_load(&loaded, path, &err), STATUS_INVALID);
	write_at(path, 32, none, 4);
	assert_int_equal(stream_load(&loaded, path, &err), STATUS_OK);
	assert_int_equal(truncate(path, 200), 0);
	assert_int_not_equal(stream_load(&loaded, path, &err), STATUS_OK);
	assert_non_null(strstr(err.message, "hidden-1.bin"));
	stream_release(&saved);
	stream_release(&loaded);
	stream_release(&wider);
	backend_destroy(backend);
}

static atomic_int writes_left; /* before one fails */

static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (atomic_fetch_sub(&writes_left, 1) > 0) return pwrite(fd, buffer, bytes, offset);
	errno = ENOSPC;
	return -1;
}

/* Several threads write one stream of several pieces and a bit; where one cannot, nothing is left behind. */
static void test_saved_by_threads(void **state)
{
	enum { SEQUENCES = 3, TOKENS = 1 << 10, HIDDEN = 1001 };
	const size_t bytes = (size_t)SEQUENCES * TOKENS * HIDDEN * sizeof(float);
	struct error err;
	struct backend *backend;
	struct stream saved, loaded;
	char path[128];
	float *values = malloc(bytes), *back = malloc(bytes);
	struct tensor part;
	(void)state;
	assert_non_null(values);
	assert_non_null(back);
	snprintf(path, sizeof path, "%s/hidden-1.bin", directory);
	assert_int_equal(backend_cpu_create(1, &backend, &err), STATUS_OK);
	assert_int_equal(stream_create(backend, SEQUENCES, TOKENS, HIDDEN, 1, &saved, &err), STATUS_OK);
	assert_int_equal(stream_create(backend, SEQUENCES, TOKENS, HIDDEN, 1, &loaded, &err), STATUS_OK);
	fill(backend, &saved, values);
	for (int threads = 1; threads <= 32; threads *= 2) {
		assert_int_equal(stream_save(&saved, path, threads, &err), STATUS_OK);
		assert_int_equal(stream_load(&loaded, path, &err), STATUS_OK);
		assert_int_equal(stream_batch(&loaded, 0, SEQUENCES, true, &part), STATUS_OK);
		assert_int_equal(backend->ops->download(backend, back, part.data, bytes), STATUS_OK);
		assert_memory_equal(back, values, bytes);
		memset(part.data, 0, bytes);
	}
	unlink(path);
	file_calls.pwrite = failing_pwrite;
	for (int whole = 0; whole < 4; whole++) { /* the header and two pieces of three */
		atomic_store(&writes_left, whole);
		assert_int_equal(stream_save(&saved, path, 3, &err), STATUS_NO_SPACE);
		assert_non_null(strstr(err.message, "hidden-1.bin"));
		assert_false(is_there("hidden-1.bin.new"));
		assert_false(is_there("hidden-1.bin"));
	}
	file_calls.pwrite = pwrite;
	stream_release(&saved);
	stream_release(&loaded);
	backend_destroy(backend);
	free(values);
	free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_spec_of_another_version, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_changed_byte_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hidden_states, setup, teardown),
		cmocka_unit_test_setup_teardown(test_saved_by_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
