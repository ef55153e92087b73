/* One job without HTTP and without a database: what a person types, or a node of a cluster executes. Its directory holds a lock,
 * the spec (jobfile.h), the journal of events, and the engine's checkpoint; a block is committed by its durable line in the
 * journal. */
#include "daemon/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/place.h"
#include "daemon/bar.h"
#include "daemon/device.h"
#include "daemon/jobfile.h"
#include "daemon/log.h"
#include "daemon/prepare.h"
#include "engine/job/journal.h"

enum { EXIT_USAGE = 2, EXIT_SIGNAL = 128, MAX_JOB_FILE = 1 << 20, MAX_ID = 64 };

struct run {
	const struct options *options;
	char id[MAX_ID + 1];
	char *directory;
	int lock;
	cJSON *request; /* what the job's file says */
	struct spec *spec;
	struct backend *backend;
	struct journal journal;
	struct bar bar;
	atomic_bool stop, finished;
	enum status status; /* of the engine, once finished */
	struct error err;
	char *result; /* JSON */
};

/* ---- where events and progress go ---------------------------------------------------------------------------------------- */

static enum status find_events(void *context, const char *type, cJSON *list, struct error *err)
{
	return journal_find(&((struct run *)context)->journal, type, list, err);
}

static enum status append_event(void *context, const struct record *record, struct error *err)
{
	struct run *run = context;
	TRY(journal_append(&run->journal, record, err));
	bar_event(&run->bar, record->type, record->data);
	return STATUS_OK;
}

static void show_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	struct run *run = ((struct recorder *)context)->store.context;
	bar_progress(&run->bar, phase, block, blocks, fraction, eta_seconds);
}

/* ---- start --------------------------------------------------------------------------------------------------------------- */

/* "jobs/nightly.json" is the job "nightly"; other characters than letters, digits, '-', '_' and '.' become '-'. */
static void name_job(struct run *run)
{
	const char *slash = strrchr(run->options->job_file, '/'), *base = slash ? slash + 1 : run->options->job_file;
	snprintf(run->id, sizeof run->id, "%s", base);
	char *dot = strrchr(run->id, '.');
	if (dot && dot != run->id) *dot = 0;
	for (char *s = run->id; *s; s++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", *s)) *s = '-';
}

/* Resolves the spec of a job that begins. */
static enum status resolve_spec(struct run *run, struct error *err)
{
	struct spec_problems problems = {0};
	enum status status = prepare_spec(run->request, &run->options->roots, run->id, &run->spec, &problems, err);
	if (status == STATUS_INVALID)
		for (int i = 0; i < problems.count; i++)
			bar_line(&run->bar, "%s: %s: %s", run->options->job_file, problems.items[i].pointer,
				 problems.items[i].detail);
	spec_problems_free(&problems);
	return status;
}

static enum status path_in(const struct run *run, const char *name, char ret[PATH_MAX], struct error *err)
{
	if (snprintf(ret, PATH_MAX, "%s/%s", run->directory, name) < PATH_MAX) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "the path is too long: %s", run->directory);
}

static enum status name_directory(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	int made = options->checkpoint_dir ? asprintf(&run->directory, "%s", options->checkpoint_dir)
					   : asprintf(&run->directory, "%s/.besad-run-%s", options->roots.output, run->id);
	if (made >= 0) return STATUS_OK;
	run->directory = NULL;
	return error_set(err, STATUS_NO_MEMORY, "no memory for a path");
}

static enum status lock_directory(struct run *run, struct error *err)
{
	char path[PATH_MAX];
	TRY(directory_make(run->directory, err));
	TRY(path_in(run, "lock", path, err));
	run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (run->lock < 0) return error_errno(err, "%s", path);
	if (flock(run->lock, LOCK_EX | LOCK_NB) == 0) return STATUS_OK;
	if (errno != EWOULDBLOCK) return error_errno(err, "%s", path);
	return error_set(err, STATUS_EXISTS, "another besad works on this job in %s", run->directory);
}

/* The job's directory, and its spec: that of a job that is there already, or the resolved one of a job that begins. */
static enum status open_directory(struct run *run, struct error *err)
{
	char path[PATH_MAX];
	TRY(name_directory(run, err));
	TRY(path_in(run, "job.json", path, err));
	/* A wrong spec leaves no directory behind. */
	if (!path_exists(path)) TRY(resolve_spec(run, err));
	TRY(lock_directory(run, err));
	if (!path_exists(path)) {
		if (!run->spec) TRY(resolve_spec(run, err)); /* another besad has just finished the job */
		return jobfile_write(path, run->request, run->spec, err);
	}
	spec_free(run->spec);
	run->spec = NULL;
	return jobfile_read(path, run->request, &run->options->roots, run->id, &run->spec, err);
}

static enum status open_journal(struct run *run, struct error *err)
{
	char path[PATH_MAX];
	TRY(path_in(run, "events.jsonl", path, err));
	return journal_open(path, &run->journal, err);
}

/* ---- the job ------------------------------------------------------------------------------------------------------------- */

/* Runs the engine. *ret_result is freed with cJSON_Delete. */
static enum status run_engine(struct run *run, const struct engine_sink *sink, cJSON **ret_result, struct error *err)
{
	struct job_paths paths;
	char checkpoints[PATH_MAX];
	TRY(prepare_output(&run->options->roots, run->spec->output, run->spec->overwrite, run->id, err));
	TRY(path_in(run, "checkpoint", checkpoints, err));
	TRY(prepare_paths(&run->options->roots, checkpoints, run->id, run->spec->output, &paths, err));
	struct engine_job job = {.spec = run->spec,
				 .output = paths.output,
				 .work = paths.work,
				 .aside = paths.aside,
				 .checkpoint_dir = paths.checkpoint_dir,
				 .scores_dir = run->options->scores_dir,
				 .blocks_done = run->journal.blocks_done,
				 .save_every = (double)run->options->save_every,
				 .job_id = run->id,
				 .attempt = run->journal.attempts,
				 .stop = &run->stop};
	enum status status = directory_make(paths.checkpoint_dir, err);
	if (!status) status = engine_run(&job, run->backend, sink, ret_result, err);
	prepare_paths_free(&paths);
	return status;
}

static enum status work(struct run *run, struct error *err)
{
	struct recorder recorder;
	const struct event_store store = {run, find_events, append_event};
	const struct engine_sink sink = {&recorder, recorder_event, recorder_block, show_progress};
	cJSON *result = NULL;
	TRY(recorder_open(&recorder, &store, run->journal.blocks_done, err));
	struct event started = event_job_started(run->journal.attempts + 1, run->journal.blocks_done);
	enum status status = event_tell(&sink, &started, err);
	if (!status) status = run_engine(run, &sink, &result, err);
	if (!status) {
		prepare_sweep(&run->options->roots, run->options->keep_replaced);
		struct event succeeded = event_job_succeeded(result);
		status = event_tell(&sink, &succeeded, err);
	}
	if (!status && !json_ran_out()) run->result = cJSON_Print(result);
	cJSON_Delete(result);
	recorder_close(&recorder);
	return status;
}

static void *work_thread(void *context)
{
	struct run *run = context;
	run->status = work(run, &run->err);
	atomic_store(&run->finished, true);
	kill(getpid(), SIGCHLD); /* wakes the main thread, which has it blocked */
	return NULL;
}

/* Lets the engine work until it is done, a signal comes, or the time is up. *ret_signal is 0 or the signal. */
static enum status supervise(struct run *run, int *ret_signal, bool *ret_timed_out, struct error *err)
{
	sigset_t signals;
	pthread_t thread;
	const struct timespec pause = {.tv_sec = 1};
	double seconds = run->spec->timeout_seconds;
	double deadline = seconds > 0 ? monotonic_seconds() + seconds : INFINITY;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (pthread_create(&thread, NULL, work_thread, run) != 0)
		return error_set(err, STATUS_NO_MEMORY, "cannot start the engine's thread");
	while (!atomic_load(&run->finished)) {
		int number = sigtimedwait(&signals, NULL, &pause);
		if (number == SIGTERM || number == SIGINT) {
			if (*ret_signal) _exit(EXIT_SIGNAL + number); /* asked twice; a kill at any time is safe */
			*ret_signal = number;
			atomic_store(&run->stop, true);
		} else if (monotonic_seconds() >= deadline) {
			*ret_timed_out = true;
			atomic_store(&run->stop, true);
		}
	}
	pthread_join(thread, NULL);
	return STATUS_OK;
}

/* Returns the exit status. */
static int print_result(const struct run *run, const char *result)
{
	cJSON *json = cJSON_Parse(result);
	char *text = json && run->options->json ? cJSON_Print(json) : NULL;
	bool done = text || (json && !run->options->json);
	if (!done) {
		log_error("no memory for the result; the job is done, and the same command tells of it");
	} else if (text) {
		puts(text);
	} else {
		const char *output = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "output"));
		const cJSON *perplexity = cJSON_GetObjectItemCaseSensitive(json, "perplexity"), *dataset;
		if (output) printf("output      %s/%s\n", run->options->roots.output, output);
		printf("sparsity    %.6f\n", cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "sparsity")));
		cJSON_ArrayForEach(dataset, perplexity)
		{
			double pruned = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(dataset, "pruned"));
			printf("perplexity  %s: dense %.4f", dataset->string,
			       cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(dataset, "dense")));
			if (pruned > 0) printf(", pruned %.4f", pruned);
			putchar('\n');
		}
		printf("seconds     %.1f\n", cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "seconds")));
	}
	free(text);
	cJSON_Delete(json);
	return done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Runs what is left of the job. Returns the exit status. */
static int finish(struct run *run)
{
	int number = 0;
	bool timed_out = false;
	struct error err;
	enum status status = supervise(run, &number, &timed_out, &err);
	bar_clear(&run->bar);
	if (!status) {
		status = run->status;
		err = run->err;
	}
	if (!status && run->result) return print_result(run, run->result);
	if (status == STATUS_CANCELLED && number) {
		log_info("stopped; the same command goes on after block %d", run->journal.blocks_done);
		return EXIT_SIGNAL + number;
	}
	if (status == STATUS_CANCELLED && timed_out)
		log_error("the job ran longer than its timeout_seconds; the same command goes on");
	else
		log_error("%s", status ? err.message : "no memory for the result");
	return EXIT_FAILURE;
}

/* Of a job that is done. The journal says so, and goes when there is no checkpoint any more that would want it, on the disk
 * either: what a kill or a power cut leaves is a job that is done, or one that has not begun, whose output the engine finds. */
static enum status remove_directory(const struct run *run, struct error *err)
{
	static const char *const first[] = {"checkpoint", "events.jsonl"};
	for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
		char path[PATH_MAX];
		TRY(path_in(run, first[i], path, err));
		TRY(directory_remove(path, err));
		TRY(directory_sync(run->directory, err));
	}
	return directory_remove(run->directory, err);
}

static void clean_up(struct run *run, bool succeeded)
{
	struct error err;
	journal_close(&run->journal);
	if (succeeded && !run->options->checkpoint_dir && remove_directory(run, &err))
		log_warning("%s stays behind: %s", run->directory, err.message);
	if (run->lock >= 0) close(run->lock);
	backend_destroy(run->backend);
	spec_free(run->spec);
	cJSON_Delete(run->request);
	free(run->directory);
	free(run->result);
}

int run(const struct options *options)
{
	struct run run = {.options = options, .lock = -1, .bar = bar_create()};
	struct error err;
	run.journal.file.fd = -1;
	name_job(&run);
	enum status status = json_read_place(&PLACE(options->job_file), NULL, MAX_JOB_FILE, &run.request, &err);
	if (!status) status = open_directory(&run, &err);
	int result = run.lock < 0 && (status == STATUS_INVALID || status == STATUS_NOT_FOUND) ? EXIT_USAGE : EXIT_FAILURE;
	if (!status) status = open_journal(&run, &err);
	if (!status && run.spec->notify_url) bar_line(&run.bar, "notify: only the daemon tells; nobody is told of this run's end");
	if (!status && !run.journal.result) status = device_open(options, &run.backend, &err);
	if (status) {
		log_error("%s", err.message);
	} else if (run.journal.result) {
		result = print_result(&run, run.journal.result); /* done by an earlier run */
	} else {
		result = finish(&run);
	}
	clean_up(&run, result == EXIT_SUCCESS);
	return result;
}
