/* The output directory: what is copied, resumption, a full disk, and publication. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/output/in_place.h"
#include "engine/output/publish.h"

static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[0,6]},"
			     "\"b\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[6,12]}}";

struct fixture {
	struct scratch scratch;
	char model[96], work[96], out[96];
	struct checkpoint checkpoint;
};

static struct file_calls real_calls;

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct scratch *s = &f->scratch;
	real_calls = file_calls;
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	snprintf(f->model, sizeof f->model, "%s/model", s->directory);
	snprintf(f->work, sizeof f->work, "%s/work", s->directory);
	snprintf(f->out, sizeof f->out, "%s/made/out", s->directory);
	assert_int_equal(mkdir(f->model, 0700), 0);
	scratch_safetensors(s, "model/model.safetensors", header, 12);
	scratch_text(s, "model/config.json", "{}");
	SUCCEEDS(checkpoint_open(&PLACE(f->model), NULL, &f->checkpoint, &s->err));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	file_calls = real_calls;
	checkpoint_close(&f->checkpoint);
	SUCCEEDS(directory_remove(s->directory, &s->err));
	free(f);
	return 0;
}

/* The 12 bytes of data at the end of a shard. */
static void assert_data(struct scratch *s, const char *name, const char *expected)
{
	char *text;
	size_t bytes;
	SUCCEEDS(file_slurp(scratch_path(s, name), 10000, &text, &bytes, &s->err));
	assert_int_equal(bytes, 8 + strlen(header) + 12);
	assert_memory_equal(text + bytes - 12, expected, 12);
	free(text);
}

static void put_in_place(struct fixture *f, struct writer *writer)
{
	struct scratch *s = &f->scratch;
	bool replaced;
	SUCCEEDS(writer_finish(writer, &s->err));
	SUCCEEDS(publish(&PLACE(f->work), &PLACE(f->out), &PLACE(f->work), false, &replaced, &s->err));
	assert_false(replaced);
	writer_close(writer);
}

static const char dense[] = "\0\1\2\3\4\5\6\7\10\11\12\13", pruned[] = "\0\1\2\3\4\5pruned";

static void test_copies_and_publishes(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	static const char *const wanted[] = {"tokenizer.model",
					     "tokenizer.model.v3",
					     "additional_chat_templates/rag.jinja",
					     "tokenizer.json",
					     "chat_template.jinja",
					     "modeling.py",
					     "LICENSE",
					     "README.md",
					     "merges.txt",
					     "generation_config.json"};
	static const char *const unwanted[] = {"pytorch_model.bin",
					       ".hidden.json",
					       "besad.json",
					       "model.gguf",
					       "pytorch_model.bin.index.json",
					       "model.safetensors.index.json",
					       "consolidated.safetensors",
					       "sub"};
	struct writer *writer = NULL;
	char name[96];
	assert_int_equal(mkdir(scratch_path(s, "model/additional_chat_templates"), 0700), 0);
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		snprintf(name, sizeof name, "model/%s", wanted[i]);
		scratch_text(s, name, wanted[i]);
	}
	for (size_t i = 0; i + 1 < sizeof unwanted / sizeof *unwanted; i++) {
		snprintf(name, sizeof name, "model/%s", unwanted[i]);
		scratch_text(s, name, unwanted[i]);
	}
	assert_int_equal(mkdir(scratch_path(s, "model/sub"), 0700), 0);
	assert_int_equal(symlink("../elsewhere.json", scratch_path(s, "model/added_tokens.json")),
			 0); /* as in Hugging Face's cache */
	scratch_text(s, "elsewhere.json", "linked");

	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	assert_data(s, "work/model.safetensors", dense);
	SUCCEEDS(writer_write(writer, "b", 0, "pruned", 6, &s->err));
	SUCCEEDS(writer_sync(writer, &s->err));
	put_in_place(f, writer);
	assert_false(path_exists(f->work));
	assert_data(s, "made/out/model.safetensors", pruned);
	assert_data(s, "model/model.safetensors", dense);
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		char *text;
		size_t bytes;
		snprintf(name, sizeof name, "made/out/%s", wanted[i]);
		SUCCEEDS(file_slurp(scratch_path(s, name), 1000, &text, &bytes, &s->err));
		assert_string_equal(text, wanted[i]);
		free(text);
	}
	struct stat st;
	assert_int_equal(lstat(scratch_path(s, "made/out/added_tokens.json"), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
		snprintf(name, sizeof name, "made/out/%s", unwanted[i]);
		if (path_exists(scratch_path(s, name))) fail_msg("%s was copied", unwanted[i]);
	}
}

/* A second attempt keeps what was pruned, and copies again what was not whole. */
static void test_resumes(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	SUCCEEDS(writer_write(writer, "b", 0, "pruned", 6, &s->err));
	writer_close(writer);
	assert_int_equal(unlink(scratch_path(s, "work/config.json")), 0);
	scratch_text(s, "work/.config.json.part", "left by a crash, and longer than the file");
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	assert_data(s, "work/model.safetensors", pruned);
	assert_true(path_exists(scratch_path(s, "work/config.json")));
	assert_false(path_exists(scratch_path(s, "work/.config.json.part")));
	writer_close(writer);
	scratch_text(s, "work/model.safetensors", "other");
	FAILS(STATUS_INVALID, "the model has changed",
	      in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
}

static int64_t room;

static int limited_fallocate(int fd, off_t offset, off_t bytes)
{
	(void)fd;
	(void)offset;
	room -= bytes;
	return room >= 0 ? 0 : ENOSPC;
}

static int writes_left;

static ssize_t limited_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (writes_left-- > 0) return pwrite(fd, buffer, bytes, offset);
	errno = ENOSPC;
	return -1;
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	char needed[64];
	int64_t total = f->checkpoint.shards[0].size + 2;
	snprintf(needed, sizeof needed, "needs %d bytes", (int)total);
	file_calls.fallocate = limited_fallocate;
	for (room = 0; room < total; room++) {
		int64_t before = room;
		FAILS(STATUS_NO_SPACE, needed, in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
		room = before;
		assert_false(path_exists(scratch_path(s, "work/.model.safetensors.part"))); /* what was taken is given back */
		assert_false(path_exists(scratch_path(s, "work/model.safetensors")));
	}
	file_calls = real_calls;
	file_calls.pwrite = limited_pwrite;
	for (int i = 0; i < 2; i++) {
		writes_left = i;
		FAILS(STATUS_NO_SPACE, "work", in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	}
	file_calls = real_calls;
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	assert_data(s, "work/model.safetensors", dense);
	file_calls.pwrite = limited_pwrite;
	writes_left = 0;
	FAILS(STATUS_NO_SPACE, "work/model.safetensors", writer_write(writer, "b", 0, "pruned", 6, &s->err));
	writer_close(writer);
}

static void test_shards(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	checkpoint_close(&f->checkpoint);
	assert_int_equal(unlink(scratch_path(s, "model/model.safetensors")), 0);
	scratch_safetensors(s, "model/1.safetensors", header, 12);
	scratch_safetensors(s, "model/2.safetensors", "{\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
	scratch_safetensors(s, "model/adapter.safetensors", "{}", 0);
	scratch_text(s, "model/model.safetensors.index.json",
		     "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2.safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(f->model), NULL, &f->checkpoint, &s->err));
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	SUCCEEDS(writer_write(writer, "c", 0, "xy", 2, &s->err));
	put_in_place(f, writer);
	assert_data(s, "made/out/1.safetensors", dense);
	assert_true(path_exists(scratch_path(s, "made/out/model.safetensors.index.json")));
	assert_false(path_exists(scratch_path(s, "made/out/adapter.safetensors")));
	struct checkpoint c;
	char data[2];
	SUCCEEDS(checkpoint_open(&PLACE(f->out), NULL, &c, &s->err));
	SUCCEEDS(checkpoint_read(&c, checkpoint_find(&c, "c"), data, &s->err));
	assert_memory_equal(data, "xy", 2);
	checkpoint_close(&c);
}

/* A tensor that two shards have is written in both: they may not differ, for whoever opens the output. */
static void test_repeated_tensor(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	struct checkpoint made;
	checkpoint_close(&f->checkpoint);
	assert_int_equal(unlink(scratch_path(s, "model/model.safetensors")), 0);
	scratch_safetensors(s, "model/1.safetensors", header, 12);
	scratch_safetensors(s, "model/2.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[0,6]}}", 6);
	scratch_text(s, "model/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}");
	SUCCEEDS(checkpoint_open(&PLACE(f->model), NULL, &f->checkpoint, &s->err));
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	SUCCEEDS(writer_write(writer, "a", 2, "new", 3, &s->err));
	put_in_place(f, writer);
	assert_data(s, "made/out/1.safetensors", "\0\1new\5\6\7\10\11\12\13");
	SUCCEEDS(checkpoint_open(&PLACE(f->out), NULL, &made, &s->err));
	checkpoint_close(&made);
}

/* What would land in another tensor is refused. */
static void test_bounds(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	SUCCEEDS(in_place_open(&PLACE(f->model), &f->checkpoint, &PLACE(f->work), &writer, &s->err));
	FAILS(STATUS_NOT_FOUND, "no tensor 'c'", writer_write(writer, "c", 0, "x", 1, &s->err));
	FAILS(STATUS_INVALID, "'a' has 6 bytes, and 2 were", writer_write(writer, "a", 5, "xy", 2, &s->err));
	FAILS(STATUS_INVALID, "at byte -1", writer_write(writer, "b", -1, "x", 1, &s->err));
	FAILS(STATUS_INVALID, "at byte 7", writer_write(writer, "a", 7, "", 0, &s->err));
	SUCCEEDS(writer_write(writer, "a", 5, "x", 1, &s->err));
	put_in_place(f, writer);
	assert_data(s, "made/out/model.safetensors", "\0\1\2\3\4x\6\7\10\11\12\13");
}

#define OUTPUT_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OUTPUT_TEST(test_copies_and_publishes),
		OUTPUT_TEST(test_resumes),
		OUTPUT_TEST(test_full_disk),
		OUTPUT_TEST(test_shards),
		OUTPUT_TEST(test_repeated_tensor),
		OUTPUT_TEST(test_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
