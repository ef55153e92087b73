/* A rewritten output: what the files are, resumption after a kill at every call, plans that are refused, and config.json. The
 * headers are those of the safetensors library for the same tensors. */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/output/rewrite.h"

#define T(name, type, shape, offsets) "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const char first_in[] =
	"{" T("w0", "BF16", "[2,4]", "[0,16]") "," T("flags", "BOOL", "[2]", "[16,18]") "," T("e", "BF16", "[4]", "[18,26]") "}";
static const char second_in[] = "{" T("w1", "BF16", "[2,4]", "[0,16]") "," T("n", "F32", "[2]", "[16,24]") "}";

static const char first_out[] =
	"{\"__metadata__\":{\"format\":\"pt\"}," T("e", "BF16", "[4]", "[0,8]") "," T("head", "BF16", "[4]", "[8,16]") "," T(
		"w0.scale", "F16", "[2,1]", "[16,20]") "," T("w0.packed", "U8", "[2,2]", "[20,24]") "," T("flags", "BOOL", "[2]",
													  "[24,26]") "}    ";
static const char second_out[] = "{\"__metadata__\":{\"format\":\"pt\"}," T("n", "F32", "[2]", "[0,8]") "," T(
	"w1.scale", "F16", "[2,1]", "[8,12]") "," T("w1.packed", "U8", "[2,2]", "[12,16]") "}    ";

struct fixture {
	struct scratch scratch;
	char model[96], work[96], reference[96];
	struct checkpoint input;
	struct plan plan;
	cJSON *config;
};

static struct file_calls real_calls;

/* A plan that quantizes both matrices and gives the model a head of its own. */
static void make_plan(struct fixture *f)
{
	struct scratch *s = &f->scratch;
	static const char *const matrices[] = {"w0", "w1"};
	char name[16];
	SUCCEEDS(plan_create(&f->input, &f->plan, &s->err));
	for (int i = 0; i < 2; i++) {
		struct tensor_info info = {.name = name, .rank = 2, .dtype = DTYPE_U8, .shape = {2, 2}};
		snprintf(name, sizeof name, "%s.packed", matrices[i]);
		SUCCEEDS(plan_add(&f->plan, matrices[i], &info, &s->err));
		info.dtype = DTYPE_F16;
		info.shape[1] = 1;
		snprintf(name, sizeof name, "%s.scale", matrices[i]);
		SUCCEEDS(plan_add(&f->plan, matrices[i], &info, &s->err));
		SUCCEEDS(plan_remove(&f->plan, matrices[i], &s->err));
	}
	const struct tensor_info head = {.name = (char *)"head", .rank = 1, .dtype = DTYPE_BF16, .shape = {4}};
	SUCCEEDS(plan_add(&f->plan, "e", &head, &s->err));
	f->plan.config = f->config;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct scratch *s = &f->scratch;
	real_calls = file_calls;
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	snprintf(f->model, sizeof f->model, "%s/model", s->directory);
	snprintf(f->work, sizeof f->work, "%s/work", s->directory);
	snprintf(f->reference, sizeof f->reference, "%s/reference", s->directory);
	assert_int_equal(mkdir(f->model, 0700), 0);
	scratch_safetensors(s, "model/one.safetensors", first_in, 26);
	scratch_safetensors(s, "model/two.safetensors", second_in, 24);
	scratch_text(s, "model/model.safetensors.index.json",
		     "{\"weight_map\":{\"w0\":\"one.safetensors\",\"w1\":\"two.safetensors\"}}");
	scratch_text(s, "model/config.json", "{\"tie\": true,\n  \"theta\": 10000.0}\n");
	scratch_text(s, "model/tokenizer.json", "{}");
	SUCCEEDS(checkpoint_open(&PLACE(f->model), NULL, &f->input, &s->err));
	f->config = cJSON_Parse("{\"tie\":false}");
	make_plan(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	file_calls = real_calls;
	plan_free(&f->plan);
	checkpoint_close(&f->input);
	cJSON_Delete(f->config);
	SUCCEEDS(directory_remove(s->directory, &s->err));
	free(f);
	return 0;
}

static struct writer *open_work(struct fixture *f, const char *work)
{
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	SUCCEEDS(rewrite_open(&PLACE(f->model), &f->plan, &PLACE(work), &writer, &s->err));
	return writer;
}

enum { BLOCKS = 2 };

/* What a job writes of a block, in parts. */
static enum status write_block(struct writer *writer, int block, struct error *err)
{
	char packed[16], scale[16];
	snprintf(packed, sizeof packed, "w%d.packed", block);
	snprintf(scale, sizeof scale, "w%d.scale", block);
	TRY(writer_write(writer, packed, 2, block ? "GH" : "CD", 2, err));
	TRY(writer_write(writer, scale, 0, block ? "wxyz" : "stuv", 4, err));
	TRY(writer_write(writer, packed, 0, block ? "EF" : "AB", 2, err));
	return writer_sync(writer, err);
}

static void write_blocks(struct fixture *f, const char *work, int first)
{
	struct scratch *s = &f->scratch;
	struct writer *writer = open_work(f, work);
	for (int block = first; block < BLOCKS; block++)
		SUCCEEDS(write_block(writer, block, &s->err));
	SUCCEEDS(writer_finish(writer, &s->err));
	writer_close(writer);
}

static void assert_file(struct scratch *s, const char *name, const void *expected, size_t expected_bytes)
{
	char *text;
	size_t bytes;
	SUCCEEDS(file_slurp(scratch_path(s, name), 1 << 20, &text, &bytes, &s->err));
	if (bytes != expected_bytes || memcmp(text, expected, bytes) != 0)
		fail_msg("%s: %zu bytes, not the %zu expected: %.*s", name, bytes, expected_bytes, (int)bytes, text);
	free(text);
}

/* A shard: the header's length, the header and the data. */
static void assert_shard(struct scratch *s, const char *name, const char *header, const char *data, size_t data_bytes)
{
	struct buffer expected = {0};
	char length[8] = {(char)strlen(header), (char)(strlen(header) >> 8)};
	buffer_append(&expected, length, sizeof length);
	buffer_append(&expected, header, strlen(header));
	buffer_append(&expected, data, data_bytes);
	assert_file(s, name, expected.data, expected.size);
	buffer_free(&expected);
}

static const char config_out[] = "{\n  \"theta\": 10000.0,\n  \"tie\": false\n}\n";

static void test_writes_what_is_planned(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct warnings warnings = {0};
	struct checkpoint made;
	static const char index[] = "{\n  \"metadata\": {\n    \"total_size\": 42\n  },\n  \"weight_map\": {\n"
				    "    \"e\": \"one.safetensors\",\n    \"flags\": \"one.safetensors\",\n"
				    "    \"head\": \"one.safetensors\",\n    \"n\": \"two.safetensors\",\n"
				    "    \"w0.packed\": \"one.safetensors\",\n    \"w0.scale\": \"one.safetensors\",\n"
				    "    \"w1.packed\": \"two.safetensors\",\n    \"w1.scale\": \"two.safetensors\"\n  }\n}\n";
	struct writer *writer = open_work(f, f->work);
	assert_shard(s, "work/one.safetensors", first_out, "\22\23\24\25\26\27\30\31\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\21", 26);
	assert_file(s, "work/config.json", config_out, sizeof config_out - 1);
	assert_file(s, "work/tokenizer.json", "{}", 2);
	SUCCEEDS(write_block(writer, 0, &s->err));
	SUCCEEDS(write_block(writer, 1, &s->err));
	SUCCEEDS(writer_write(writer, "head", 0, "head...!", 8, &s->err));
	FAILS(STATUS_NOT_FOUND, "no tensor 'w0' to write", writer_write(writer, "w0", 0, "x", 1, &s->err));
	FAILS(STATUS_INVALID, "'w0.packed' has 4 bytes", writer_write(writer, "w0.packed", 3, "xy", 2, &s->err));
	SUCCEEDS(writer_finish(writer, &s->err));
	assert_string_equal(writer_place(writer)->path, f->work);
	writer_close(writer);
	assert_shard(s, "work/one.safetensors", first_out, "\22\23\24\25\26\27\30\31head...!stuvABCD\20\21", 26);
	assert_shard(s, "work/two.safetensors", second_out, "\20\21\22\23\24\25\26\27wxyzEFGH", 16);
	assert_file(s, "work/model.safetensors.index.json", index, sizeof index - 1);
	SUCCEEDS(checkpoint_open(&PLACE(f->work), &warnings, &made, &s->err));
	assert_int_equal(warnings.count, 0);
	assert_int_equal(made.n_tensors, 8);
	assert_string_equal(checkpoint_find(&made, "flags")->opaque, "BOOL");
	checkpoint_close(&made);
}

/* Shards of at most so many bytes of tensors, but for a tensor that is larger. */
static void test_shards_by_size(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	static const struct {
		int64_t limit;
		int shards;
	} cases[] = {{1, 8}, {7, 7}, {8, 6}, {16, 3}, {41, 2}, {42, 1}, {INT64_MAX, 1}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct checkpoint made;
		struct warnings warnings = {0};
		char last[64];
		f->plan.shard_bytes = cases[i].limit;
		write_blocks(f, f->work, 0);
		SUCCEEDS(checkpoint_open(&PLACE(f->work), &warnings, &made, &s->err));
		assert_int_equal(warnings.count, 0);
		assert_int_equal(made.n_tensors, 8);
		if (made.n_shards != cases[i].shards) fail_msg("%d shards of %lld bytes", made.n_shards, (long long)cases[i].limit);
		snprintf(last, sizeof last, "model-%05d-of-%05d.safetensors", made.n_shards, made.n_shards);
		assert_string_equal(made.shard_names[made.n_shards - 1], made.n_shards > 1 ? last : "model.safetensors");
		assert_true(place_has(&PLACE(f->work), "model.safetensors.index.json") == (made.n_shards > 1));
		for (int shard = 0; shard < made.n_shards; shard++) {
			int64_t bytes = 0, tensors = 0;
			for (size_t t = 0; t < made.n_tensors; t++)
				if (made.tensors[t].shard == shard) {
					bytes += made.tensors[t].bytes;
					tensors++;
				}
			assert_true(bytes <= cases[i].limit || tensors == 1);
		}
		char data[8];
		SUCCEEDS(checkpoint_read(&made, checkpoint_find(&made, "w1.packed"), data, &s->err));
		assert_memory_equal(data, "EFGH", 4);
		SUCCEEDS(checkpoint_read(&made, checkpoint_find(&made, "n"), data, &s->err));
		assert_memory_equal(data, "\20\21\22\23\24\25\26\27", 8);
		checkpoint_close(&made);
		SUCCEEDS(directory_remove(f->work, &s->err));
	}
}

/* ---- resumption ------------------------------------------------------------------------------------------------------------ */

static int calls_left, commits;

/* Dies at the call whose turn it is. */
static void count_call(void)
{
	if (--calls_left == 0) kill(getpid(), SIGKILL);
}

static ssize_t deadly_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (calls_left == 1) assert_true(pwrite(fd, buffer, bytes / 2, offset) == (ssize_t)(bytes / 2));
	count_call();
	return pwrite(fd, buffer, bytes, offset);
}

static int deadly_fsync(int fd)
{
	count_call();
	return real_calls.fsync(fd);
}

static int deadly_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	count_call();
	return real_calls.renameat2(from_dir, from, to_dir, to, flags);
}

static int deadly_fallocate(int fd, off_t offset, off_t bytes)
{
	count_call();
	return real_calls.fallocate(fd, offset, bytes);
}

/* An attempt that dies at its n-th call, if there are so many; tells each committed block. */
static void attempt(struct fixture *f, int n)
{
	struct error err;
	struct writer *writer = NULL;
	calls_left = n;
	file_calls.pwrite = deadly_pwrite;
	file_calls.fsync = deadly_fsync;
	file_calls.renameat2 = deadly_renameat2;
	file_calls.fallocate = deadly_fallocate;
	bool failed = rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &err) != STATUS_OK;
	for (int block = 0; block < BLOCKS && !failed; block++)
		failed = write_block(writer, block, &err) != STATUS_OK || write(commits, "", 1) != 1;
	if (!failed) failed = writer_finish(writer, &err) != STATUS_OK;
	_exit(failed);
}

static void assert_same_files(struct fixture *f)
{
	struct scratch *s = &f->scratch;
	DIR *stream;
	const struct dirent *entry;
	int counts[2] = {0};
	for (int side = 0; side < 2; side++) {
		SUCCEEDS(place_list(&PLACE(side ? f->work : f->reference), NULL, &stream, &s->err));
		while ((entry = readdir(stream))) {
			char *text, name[300];
			size_t bytes;
			if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
			counts[side]++;
			if (side) continue;
			SUCCEEDS(place_slurp(&PLACE(f->reference), entry->d_name, 1 << 20, &text, &bytes, &s->err));
			snprintf(name, sizeof name, "work/%s", entry->d_name);
			assert_file(s, name, text, bytes);
			free(text);
		}
		closedir(stream);
	}
	assert_int_equal(counts[0], counts[1]);
}

/* Whatever was committed before a kill is there when the next attempt goes on behind it. */
static void test_resumes_after_a_kill_at_every_call(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	int kills = 0, ends[2], after[BLOCKS + 1] = {0};
	write_blocks(f, f->reference, 0);
	for (bool died = true; died; kills++) {
		int status;
		char told[BLOCKS + 1];
		assert_int_equal(pipe(ends), 0);
		commits = ends[1];
		pid_t child = fork();
		assert_true(child >= 0);
		if (child == 0) attempt(f, kills + 1);
		close(ends[1]);
		assert_true(waitpid(child, &status, 0) == child);
		ssize_t committed = read(ends[0], told, sizeof told);
		close(ends[0]);
		died = WIFSIGNALED(status);
		if (died ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status) != 0) fail_msg("attempt %d failed", kills + 1);
		assert_in_range(committed, 0, BLOCKS);
		after[committed]++;
		write_blocks(f, f->work, (int)committed);
		assert_same_files(f);
		SUCCEEDS(directory_remove(f->work, &s->err));
	}
	for (int block = 0; block < BLOCKS; block++)
		assert_true(after[block] > 1);
}

/* Each of them takes another layout of the same shards, or other shards. */
static void test_another_plan(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	struct tensor_info more = {.name = (char *)"more", .rank = 1, .dtype = DTYPE_U8, .shape = {4}};
	write_blocks(f, f->work, 0);
	SUCCEEDS(plan_add(&f->plan, "n", &more, &s->err));
	FAILS(STATUS_INVALID, "two.safetensors: its tensors are not those",
	      rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
	plan_free(&f->plan);
	make_plan(f);
	f->plan.tensors[f->input.n_tensors].info.dtype =
		DTYPE_BF16; /* w0.packed: as many bytes, another header of the same length */
	f->plan.tensors[f->input.n_tensors].info.shape[0] = 1;
	FAILS(STATUS_INVALID, "one.safetensors: its tensors are not those",
	      rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
	assert_null(writer);
}

static int64_t room;

static int limited_fallocate(int fd, off_t offset, off_t bytes)
{
	(void)fd;
	(void)offset;
	room -= bytes;
	return room >= 0 ? 0 : ENOSPC;
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	int64_t needed = 0;
	char text[64];
	struct stat st;
	write_blocks(f, f->work, 0);
	static const char *const names[] = {"one.safetensors", "two.safetensors", "model.safetensors.index.json", "config.json",
					    "tokenizer.json"};
	for (int i = 0; i < 5; i++) {
		SUCCEEDS(place_stat(&PLACE(f->work), names[i], &st, &s->err));
		needed += st.st_size;
	}
	SUCCEEDS(directory_remove(f->work, &s->err));
	snprintf(text, sizeof text, "needs %lld bytes", (long long)needed);
	file_calls.fallocate = limited_fallocate;
	for (int64_t there = 0; there < needed; there += 20) {
		room = there;
		FAILS(STATUS_NO_SPACE, text, rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
		DIR *stream;
		SUCCEEDS(place_list(&PLACE(f->work), NULL, &stream, &s->err));
		for (const struct dirent *entry; (entry = readdir(stream));)
			if (entry->d_name[0] != '.' || entry->d_name[1] == 'o') fail_msg("%s is left", entry->d_name);
		closedir(stream);
	}
	file_calls = real_calls;
	write_blocks(f, f->work, 0);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------------- */

static void test_refused_plans(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct writer *writer = NULL;
	struct tensor_info info = {.name = (char *)"n", .rank = 1, .dtype = DTYPE_F32, .shape = {2}};
	FAILS(STATUS_NOT_FOUND, "no tensor 'x'", plan_remove(&f->plan, "x", &s->err));
	FAILS(STATUS_NOT_FOUND, "no tensor 'x'", plan_add(&f->plan, "x", &info, &s->err));
	info.shape[0] = INT64_MAX;
	FAILS(STATUS_INVALID, "'n' has an impossibly large shape", plan_add(&f->plan, "n", &info, &s->err));
	info.opaque = "F4";
	info.shape[0] = 3;
	FAILS(STATUS_INVALID, "'n' has 3 elements of 4 bits", plan_add(&f->plan, "n", &info, &s->err));
	info.shape[0] = -2;
	FAILS(STATUS_INVALID, "'n' has a negative size", plan_add(&f->plan, "n", &info, &s->err));
	info.shape[0] = 4;
	SUCCEEDS(plan_add(&f->plan, "n", &info, &s->err));
	FAILS(STATUS_INVALID, "the tensor 'n' twice", rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));

	plan_free(&f->plan);
	make_plan(f);
	info.name = (char *)"a\nb";
	SUCCEEDS(plan_add(&f->plan, "n", &info, &s->err));
	FAILS(STATUS_INVALID, "two.safetensors: not valid JSON",
	      rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));

	plan_free(&f->plan);
	SUCCEEDS(plan_create(&f->input, &f->plan, &s->err));
	for (size_t i = 0; i < f->input.n_tensors; i++)
		SUCCEEDS(plan_remove(&f->plan, f->input.tensors[i].name, &s->err));
	FAILS(STATUS_INVALID, "no tensors", rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
	char name[16];
	info.name = name;
	for (int i = 0; i <= 10000; i++) {
		snprintf(name, sizeof name, "t%d", i);
		SUCCEEDS(plan_add(&f->plan, "n", &info, &s->err));
	}
	f->plan.shard_bytes = 1;
	FAILS(STATUS_INVALID, "more than 10000 shards",
	      rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
	assert_false(path_exists(f->work));
}

/* A shard of which nothing is left is not written, and named nowhere. */
static void test_shard_without_tensors(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct checkpoint made;
	SUCCEEDS(plan_remove(&f->plan, "n", &s->err));
	f->plan.count -= 3; /* those of w1, and the head */
	for (size_t i = 0; i < 3; i++)
		free(f->plan.tensors[f->plan.count + i].info.name);
	writer_close(open_work(f, f->work));
	SUCCEEDS(checkpoint_open(&PLACE(f->work), NULL, &made, &s->err));
	assert_int_equal(made.n_shards, 1);
	assert_int_equal(made.n_tensors, 4);
	assert_false(place_has(&PLACE(f->work), "two.safetensors"));
	checkpoint_close(&made);
}

/* ---- config.json ----------------------------------------------------------------------------------------------------------- */

static void test_config(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	static const struct {
		const char *config, *members, *made; /* made: NULL where the config is refused */
	} cases[] = {
		{"{}", "{}", "{\n}\n"},
		{" {} ", "{\"a\":1}", "{\n  \"a\": 1\n}\n"},
		{"{\"a\":1}", "{}", "{\n  \"a\":1\n}\n"},
		{"\xef\xbb\xbf{\"a\":1}", "{\"b\":\"\\\"\"}", "{\n  \"a\":1,\n  \"b\": \"\\\"\"\n}\n"},
		{"{\"a\" : 1.0 ,\n\t\"b\": [1, {\"c\": \"}],\\\"\"}] , \"c\": -Infinity\n}", "{\"a\":null}",
		 "{\n  \"b\": [1, {\"c\": \"}],\\\"\"}],\n  \"c\": -Infinity\n}\n"},
		{"{\"\\u0061\": 1, \"A\": 2, \"a\\\"\": 3, \"a\": 4}", "{\"a\":5}",
		 "{\n  \"A\": 2,\n  \"a\\\"\": 3,\n  \"a\": 5\n}\n"},
		{"[]", "{}", NULL},
		{"{\"a\":1", "{}", NULL},
		{"", "{}", NULL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct writer *writer = NULL;
		cJSON *members = cJSON_Parse(cases[i].members);
		f->plan.config = members;
		scratch_text(s, "model/config.json", cases[i].config);
		if (cases[i].made) {
			writer_close(open_work(f, f->work));
			assert_file(s, "work/config.json", cases[i].made, strlen(cases[i].made));
		} else {
			FAILS(STATUS_INVALID, "config.json",
			      rewrite_open(&PLACE(f->model), &f->plan, &PLACE(f->work), &writer, &s->err));
		}
		cJSON_Delete(members);
		SUCCEEDS(directory_remove(f->work, &s->err));
	}
	f->plan.config = NULL;
	scratch_text(s, "model/config.json", "{ \"as\": \"it is\" }");
	writer_close(open_work(f, f->work));
	assert_file(s, "work/config.json", "{ \"as\": \"it is\" }", 17);
}

#define REWRITE_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REWRITE_TEST(test_writes_what_is_planned),
		REWRITE_TEST(test_shards_by_size),
		REWRITE_TEST(test_resumes_after_a_kill_at_every_call),
		REWRITE_TEST(test_another_plan),
		REWRITE_TEST(test_full_disk),
		REWRITE_TEST(test_refused_plans),
		REWRITE_TEST(test_shard_without_tensors),
		REWRITE_TEST(test_config),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
