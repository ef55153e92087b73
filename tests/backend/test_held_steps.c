/* A disk that is slower than the learning: what a block learned while the one before was written is told when that is committed,
 * with the times at which it happened, and without a hole. On the CPU, whose memory is taken for a device's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine.h"
#include "tests/backend/tiny_model.h"

enum { SAMPLES = 32, TOKENS = 16, EPOCHS = 4, STEP_MICROSECONDS = 25000, HELD = 100, MAX_STEPS = 64 };

static pthread_t walk;           /* the thread that learns */
static atomic_bool second_block; /* it learns in the second block */
static atomic_int taken;         /* steps there */
static int (*true_fsync)(int);
static struct backend_ops ops;
static enum status (*true_step)(struct backend *, const struct prodigy *, int64_t, void *, const void *, void *, void *, void *,
				const void *, void *);

/* What is written beside the second block is on disk only when that has taken most of its steps. */
static int slow_fsync(int fd)
{
	while (!pthread_equal(pthread_self(), walk) && atomic_load(&second_block) && atomic_load(&taken) < HELD)
		usleep(1000);
	return true_fsync(fd);
}

struct log {
	int64_t first_done;         /* when the first block was finished */
	int64_t at[MAX_STEPS];      /* of the second block's steps, in the order in which they were told */
	int step[MAX_STEPS], steps; /* which they are, and how many */
	bool early;                 /* one was told before the first block was committed */
};

static enum status slow_step(struct backend *backend, const struct prodigy *prodigy, int64_t n, void *theta, const void *theta0,
			     void *m, void *v, void *s, const void *gradient, void *state)
{
	if (atomic_load(&second_block)) {
		usleep(STEP_MICROSECONDS);
		atomic_fetch_add(&taken, 1);
	}
	return true_step(backend, prodigy, n, theta, theta0, m, v, s, gradient, state);
}

static int number(const cJSON *data, const char *key)
{
	return (int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(data, key));
}

static enum status on_event(void *context, const struct event *event, struct error *err)
{
	struct log *log = context;
	(void)err;
	if (event->type != EVENT_BLOCK_STEP || number(event->data, "block") != 1) return STATUS_OK;
	assert_true(log->steps < MAX_STEPS);
	log->early = log->early || !log->first_done;
	log->at[log->steps] = event->at;
	log->step[log->steps++] = number(event->data, "step");
	return STATUS_OK;
}

static enum status on_block(void *context, int block, const struct event *event, struct error *err)
{
	struct log *log = context;
	(void)err;
	if (block == 0) log->first_done = event->at;
	return STATUS_OK;
}

static void on_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	(void)context;
	(void)blocks;
	(void)fraction;
	(void)eta_seconds;
	if (strcmp(phase, "pruning") != 0 || block != 1) return;
	atomic_store(&second_block, true);
}

static void write_tokens(const char *directory, char path[200])
{
	char header[200];
	int32_t ids[SAMPLES * TOKENS];
	snprintf(path, 200, "%s/tokens.safetensors", directory);
	snprintf(header, sizeof header, "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[%d,%d],\"data_offsets\":[0,%zu]}}", SAMPLES,
		 TOKENS, sizeof ids);
	uint64_t length = strlen(header);
	for (int i = 0; i < SAMPLES * TOKENS; i++)
		ids[i] = i * 7 % 50;
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(
		fwrite(&length, sizeof length, 1, file) + fwrite(header, length, 1, file) + fwrite(ids, sizeof ids, 1, file), 3);
	assert_int_equal(fclose(file), 0);
}

static struct spec *make_spec(struct roots *roots)
{
	char text[400];
	struct error err;
	struct spec *spec;
	struct spec_problems problems = {0};
	snprintf(text, sizeof text,
		 "{\"model\":\".\",\"output\":\"out\",\"sparsity\":0.5,\"besa\":{\"epochs\":%d},\"progress\":{\"perplexity_every\":"
		 "0},"
		 "\"calibration\":{\"path\":\"tokens.safetensors\",\"samples\":%d,\"sequence_length\":%d}}",
		 EPOCHS, SAMPLES, TOKENS);
	cJSON *json = cJSON_Parse(text);
	if (spec_parse(json, roots, &spec, &problems, &err) != STATUS_OK) fail_msg("%s", err.message);
	cJSON_Delete(json);
	return spec;
}

static void run_job(struct log *log)
{
	const struct tiny_shape shape = {32, 48, 2, 1, 2, 50};
	char *directory = tiny_model_write(&shape, 1), *real = realpath(directory, NULL), path[200],
	     work[] = "/tmp/besad-held-XXXXXX";
	char *list[] = {real, NULL};
	struct roots roots = {.model = list, .data = list, .output = work};
	struct backend *backend;
	struct error err;
	cJSON *result = NULL;
	atomic_bool stop = false;
	assert_non_null(real);
	assert_non_null(mkdtemp(work));
	write_tokens(directory, path);
	struct spec *spec = make_spec(&roots);
	assert_int_equal(backend_cpu_create(1, &backend, &err), STATUS_OK);
	ops = *backend->ops;
	true_step = ops.prodigy_step;
	ops.prodigy_step = slow_step;
	backend->ops = &ops;
	backend->unified = false;
	walk = pthread_self();
	true_fsync = file_calls.fsync;
	file_calls.fsync = slow_fsync;
	const struct engine_sink sink = {log, on_event, on_block, on_progress};
	const struct engine_job job = {.spec = spec,
				       .output = {work, "out"},
				       .work = {work, "work"},
				       .aside = {work, "aside"},
				       .checkpoint_dir = work,
				       .job_id = "held",
				       .attempt = 1,
				       .stop = &stop};
	enum status status = engine_run(&job, backend, &sink, &result, &err);
	file_calls.fsync = true_fsync;
	if (status != STATUS_OK) fail_msg("%s", err.message);
	cJSON_Delete(result);
	backend_destroy(backend);
	spec_free(spec);
	assert_int_equal(directory_remove(work, &err), STATUS_OK);
	unlink(path);
	tiny_model_remove(directory);
	free(real);
}

static void test_no_hole(void **state)
{
	static struct log log;
	int held = 0;
	(void)state;
	run_job(&log);
	assert_false(log.early);
	for (int i = 0; i < log.steps; i++) {
		held += log.at[i] < log.first_done;
		if (i > 0) assert_true(log.step[i] > log.step[i - 1]);
	}
	if (held < 3) fail_msg("%d of %d steps were held while the first block was written", held, log.steps);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_hole)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
