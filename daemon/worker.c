#include "daemon/worker.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/place.h"
#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/note.h"
#include "daemon/prepare.h"
#include "daemon/recover.h"
#include "daemon/sweep.h"
#include "daemon/text.h"
#include "engine/job/recorder.h"
#include "engine/spec/restore.h"

enum {
	TROUBLE_SECONDS = 3,    /* before the database is tried again */
	TRY_MILLISECONDS = 200, /* the same, while a job has something to write */
	SWEEP_SECONDS = 600,    /* between two looks at replaced outputs */
	NICENESS = 5,           /* requests come before computing */
};

static const double PROGRESS_SECONDS = 1; /* between two writes of the progress */

struct worker {
	struct worker_config config;
	struct backend *backend;
	pthread_t thread;
	pthread_mutex_t device_lock; /* of the pointer `backend`, which the worker's thread changes and others follow */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool started; /* its owner's */
	bool stopping, wanted;
	atomic_bool running;        /* and not told to stop */
	char current[JOB_ID_BYTES]; /* "" while idle */
	double deadline;            /* of the current job, in monotonic seconds; 0 for none */
	bool timed_out;
	char lost[JOB_ID_BYTES + 16]; /* see worker_device_lost; "" while there is a device */
	atomic_bool stop;             /* the engine's flag */
	atomic_ulong pulse;
};

/* What the engine's callbacks share during one attempt. */
struct attempt {
	struct worker *worker;
	const struct job *job;
	struct job_progress progress;
	double progress_written;
};

/* ---- where events and progress go ---------------------------------------------------------------------------------------- */

/* The pulse goes on meanwhile, so that the watchdog does not take it for a hang. */
static void rest(struct worker *worker)
{
	const struct timespec pause = {.tv_nsec = TRY_MILLISECONDS * 1000000};
	atomic_fetch_add(&worker->pulse, 1);
	nanosleep(&pause, NULL);
}

/* For as long as the database is locked, or its disk is full. STATUS_CANCELLED where the job is to stop. */
static enum status wait_to_try_on(struct worker *worker, struct error *err)
{
	rest(worker);
	if (!atomic_load(&worker->stop)) return STATUS_OK;
	error_prefix(err, "stopped while it waited");
	return err->status = STATUS_CANCELLED;
}

static enum status find_events(void *context, const char *type, cJSON *list, struct error *err)
{
	const struct attempt *attempt = context;
	char **texts;
	size_t count;
	for (;;) {
		enum status found = db_event_data(attempt->worker->config.db, attempt->job->id, type, &texts, &count, err);
		if (!found) break;
		if (!recover_is_worth_waiting(found)) return found;
		TRY(wait_to_try_on(attempt->worker, err));
	}
	enum status status = STATUS_OK;
	for (size_t i = 0; i < count && !status; i++) {
		cJSON *data = NULL;
		status = json_parse(texts[i], strlen(texts[i]), "an event", &data, err);
		if (!status && !cJSON_AddItemToArray(list, data)) {
			cJSON_Delete(data);
			status = error_set(err, STATUS_NO_MEMORY, "no memory for an event");
		}
	}
	text_list_free(texts, count);
	return status;
}

static enum status write_event(struct attempt *attempt, const struct record *record, struct error *err)
{
	struct db *db = attempt->worker->config.db;
	const char *id = attempt->job->id;
	if (record->block < 0) {
		const struct new_event new = {
			.type = record->type, .data = record->text, .at = record->at, .optional = record->optional};
		return db_event_append(db, id, &new, &attempt->progress, err);
	}
	TRY(db_block_commit(db, id, record->block, record->text, record->at, &attempt->progress, err));
	/* cJSON_GetNumberValue is NaN for null. */
	metrics_count_block(attempt->worker->config.metrics,
			    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(record->data, "reconstruction")),
			    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(record->data, "seconds")));
	return STATUS_OK;
}

static void tell_phase(struct attempt *attempt, const char *phase)
{
	struct error ignored; /* as in write_progress */
	snprintf(attempt->progress.phase, sizeof attempt->progress.phase, "%s", phase);
	db_job_set_progress(attempt->worker->config.db, attempt->job->id, &attempt->progress, &ignored);
}

/* Before a block: until its files, and what it has to tell, have room. */
static enum status wait_for_room(struct attempt *attempt, struct error *err)
{
	struct worker *worker = attempt->worker;
	char phase[sizeof attempt->progress.phase];
	enum status status = STATUS_OK;
	if (!health_is_low(worker->config.health)) return STATUS_OK;
	memcpy(phase, attempt->progress.phase, sizeof phase);
	log_warning("job=%s waits for room on the disk of the state directory", attempt->job->id);
	note_of_job(worker->config.db, attempt->job->id, LOG_LEVEL_WARNING, "waits for room on the disk of the state directory");
	tell_phase(attempt, "waiting for space");
	while (!status && health_is_low(worker->config.health)) {
		error_set(err, STATUS_NO_SPACE, "the disk of the state directory is full");
		status = wait_to_try_on(worker, err);
	}
	note_of_job(worker->config.db, attempt->job->id, LOG_LEVEL_INFO, "waits no more for room");
	tell_phase(attempt, phase); /* also of a job that is stopped: it waits no more */
	return status;
}

/* Every transaction of the database is durable. It waits where it cannot be written, unless the event is one that the job can do
 * without. */
static enum status append_event(void *context, const struct record *record, struct error *err)
{
	struct attempt *attempt = context;
	struct worker *worker = attempt->worker;
	bool told = false;
	atomic_fetch_add(&worker->pulse, 1);
	if (record->optional && health_is_spent(worker->config.health)) return STATUS_OK;
	if (strcmp(record->type, event_kinds[EVENT_BLOCK_STARTED].name) == 0) TRY(wait_for_room(attempt, err));
	for (;;) {
		enum status status = write_event(attempt, record, err);
		if (!status) break;
		if (!recover_is_worth_waiting(status)) return status;
		if (record->optional) return STATUS_OK;
		if (!told) log_warning("job=%s what it tells cannot be written, trying on: %s", attempt->job->id, err->message);
		told = true;
		TRY(wait_to_try_on(worker, err));
	}
	attempt->progress_written = monotonic_seconds();
	return STATUS_OK;
}

static void write_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	struct attempt *attempt = ((struct recorder *)context)->store.context;
	struct job_progress *progress = &attempt->progress;
	atomic_fetch_add(&attempt->worker->pulse, 1);
	struct error ignored; /* progress is not worth a job: if the database is broken, the next event says so */
	bool new_phase = strcmp(progress->phase, phase) != 0;
	snprintf(progress->phase, sizeof progress->phase, "%s", phase);
	progress->block = block;
	progress->blocks = blocks;
	progress->fraction = fraction;
	progress->eta_seconds = eta_seconds;
	double now = monotonic_seconds();
	if (!new_phase && now - attempt->progress_written < PROGRESS_SECONDS) return;
	if (health_is_spent(attempt->worker->config.health)) return;
	attempt->progress_written = now;
	db_job_set_progress(attempt->worker->config.db, attempt->job->id, progress, &ignored);
}

/* ---- one attempt --------------------------------------------------------------------------------------------------------- */

static void set_deadline(struct worker *worker, double seconds)
{
	pthread_mutex_lock(&worker->lock);
	worker->deadline = seconds > 0 ? monotonic_seconds() + seconds : 0;
	pthread_mutex_unlock(&worker->lock);
}

/* Runs the engine. On success *ret_result is the result as JSON text. */
static enum status run_engine(struct worker *worker, const struct job *job, const struct spec *spec, char **ret_result,
			      struct error *err)
{
	const struct roots *roots = &worker->config.options->roots;
	struct attempt attempt = {.worker = worker, .job = job, .progress = job->progress};
	const struct event_store store = {&attempt, find_events, append_event};
	struct recorder recorder = {0};
	struct engine_sink sink = {&recorder, recorder_event, recorder_block, write_progress};
	struct job_paths paths;
	char scores[PATH_MAX];
	cJSON *result = NULL;
	snprintf(scores, sizeof scores, "%s/scores", worker->config.options->state_dir); /* shorter than the database's path */
	TRY(prepare_paths(roots, worker->config.checkpoints, job->id, job->output, &paths, err));
	enum status status = directory_make(paths.checkpoint_dir, err);
	if (!status) status = prepare_output(roots, job->output, job->overwrite, job->id, err);
	if (!status) status = recorder_open(&recorder, &store, job->blocks_done, err);
	if (!status) {
		struct engine_job engine_job = {.spec = spec,
						.output = paths.output,
						.work = paths.work,
						.aside = paths.aside,
						.checkpoint_dir = paths.checkpoint_dir,
						.scores_dir = scores,
						.blocks_done = job->blocks_done,
						.save_every = (double)worker->config.options->save_every,
						.job_id = job->id,
						.attempt = job->attempt,
						.stop = &worker->stop};
		set_deadline(worker, spec->timeout_seconds);
		status = engine_run(&engine_job, worker->backend, &sink, &result, err);
		set_deadline(worker, 0);
	}
	recorder_close(&recorder);
	prepare_paths_free(&paths);
	if (status) return status;
	*ret_result = json_ran_out() ? NULL : cJSON_PrintUnformatted(result);
	cJSON_Delete(result);
	return *ret_result ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the result");
}

static enum status run_attempt(struct worker *worker, const struct job *job, char **ret_result, struct error *err)
{
	cJSON *json, *places = NULL;
	struct spec *spec;
	TRY(json_parse(job->spec, strlen(job->spec), "the spec", &json, err));
	enum status status =
		job->places ? json_parse(job->places, strlen(job->places), "the spec's places", &places, err) : STATUS_OK;
	if (!status) status = spec_restore(json, places, &worker->config.options->roots, &spec, err);
	cJSON_Delete(json);
	cJSON_Delete(places);
	TRY(status);
	status = db_job_set_device(worker->config.db, job->id, worker->backend->device, err);
	if (recover_is_worth_waiting(status)) status = STATUS_OK; /* only estimates want to know it */
	note_of_job(worker->config.db, job->id, LOG_LEVEL_INFO, "attempt %d runs on %s (backend %s), by besad %s", job->attempt,
		    worker->backend->device, worker->backend->name, BESAD_VERSION);
	if (!status) status = run_engine(worker, job, spec, ret_result, err);
	spec_free(spec);
	return status;
}

struct outcome {
	const char *id;
	bool requeue, pause; /* pause: the job's row says that it is no longer to run, but paused */
	bool passing;        /* it failed by what may pass */
	int64_t retry_at;    /* and is tried again then; 0 until that is written */
	enum job_state state;
	const char *result, *code;
	char *message;
};

static enum status write_outcome(struct worker *worker, struct outcome *outcome, struct error *err)
{
	struct db *db = worker->config.db;
	const struct options *options = worker->config.options;
	const struct retry_rule rule = {options->retry_failed, 1000 * options->retry_after};
	if (outcome->requeue) return db_job_requeue(db, outcome->id, err);
	const char *message = outcome->message ? outcome->message : outcome->code; /* NULL where there was no memory for it */
	if (outcome->passing) return db_job_fail(db, outcome->id, outcome->code, message, &rule, &outcome->retry_at, err);
	return db_job_finish(db, outcome->id, outcome->state, outcome->result, outcome->code, message, err);
}

/* Writes until it succeeds or the daemon stops; then the job stays as it is, and the next start queues it again, as no crash:
 * the process ends in order. */
static bool keep_writing_outcome(struct worker *worker, struct outcome *outcome)
{
	struct error err;
	bool told = false, stopping = false;
	while (write_outcome(worker, outcome, &err) != STATUS_OK) {
		if (!told) log_error("job=%s its end cannot be written, trying on: %s", outcome->id, err.message);
		told = true;
		if (stopping) return false;
		rest(worker);
		pthread_mutex_lock(&worker->lock);
		stopping = worker->stopping;
		pthread_mutex_unlock(&worker->lock);
	}
	return true;
}

/* Where a job stood when its device was lost, as text. */
static void loss_of(const struct job *job, char *text, size_t size)
{
	snprintf(text, size, "%s %d", job->id, job->blocks_done);
}

/* A job whose device was lost goes on in the next process; one that has lost it twice at the same block has failed. */
static bool goes_on(const struct job *job)
{
	char now[JOB_ID_BYTES + 16];
	const char *before = getenv(WORKER_LOST);
	loss_of(job, now, sizeof now);
	return backend_cuda_lost() && !(before && strcmp(before, now) == 0);
}

/* The message for clients, who know names below the roots and a job's files, and nothing of where the operator has them. */
static char *shown_message(const struct options *options, const struct error *err)
{
	struct error shown = *err;
	place_hide(&PLACE(options->state_dir), &shown);
	place_hide(&PLACE(options->roots.output), &shown);
	place_hide_roots(options->roots.model, &shown);
	place_hide_roots(options->roots.data, &shown);
	return text_valid_utf8(shown.message);
}

/* What the status of an attempt means for its job. */
static void decide_outcome(struct worker *worker, const struct job *job, enum status status, const struct error *err,
			   struct outcome *outcome)
{
	struct job now;
	struct error ignored;
	bool cancelling = false, pausing = false;
	pthread_mutex_lock(&worker->lock);
	bool timed_out = worker->timed_out;
	pthread_mutex_unlock(&worker->lock);
	if (db_job_get(worker->config.db, job->id, &now, &ignored) == STATUS_OK) {
		cancelling = now.state == JOB_CANCELLING;
		pausing = now.state == JOB_PAUSING;
		job_clear(&now);
	}
	outcome->id = job->id;
	if (status == STATUS_OK) {
		outcome->state = JOB_SUCCEEDED;
	} else if (status != STATUS_CANCELLED && goes_on(job)) {
		outcome->requeue = true;
	} else if (cancelling) {
		outcome->state = JOB_CANCELLED; /* also where it failed before it heard: that is what was asked for */
		if (status != STATUS_CANCELLED)
			log_warning("job=%s failed while it was cancelled code=%s: %s", job->id, status_name(status), err->message);
	} else if (status != STATUS_CANCELLED) {
		outcome->state = JOB_FAILED;
		outcome->code = status_name(status);
		outcome->passing = status == STATUS_IO || status == STATUS_NO_SPACE || status == STATUS_BACKEND;
		outcome->message = shown_message(worker->config.options, err);
	} else if (pausing) {
		outcome->requeue = outcome->pause = true;
	} else if (timed_out) {
		outcome->state = JOB_FAILED;
		outcome->code = "timeout";
		outcome->message = strdup("the job ran longer than its timeout_seconds; a retry goes on from its last block");
	} else {
		outcome->requeue = true;
	}
}

static void replace_backend(struct worker *worker, struct backend *backend)
{
	pthread_mutex_lock(&worker->device_lock);
	backend_destroy(worker->backend);
	worker->backend = backend;
	pthread_mutex_unlock(&worker->device_lock);
}

/* After a failure of the device its context may be unusable, so the next job gets a new one. */
static void reset_backend(struct worker *worker)
{
	struct error err;
	struct backend *fresh;
	replace_backend(worker, NULL);
	if (device_open(worker->config.options, &fresh, &err) == STATUS_OK)
		replace_backend(worker, fresh);
	else
		log_error("the compute device cannot be opened again: %s", err.message);
}

/* No backend of this process can compute any more: the worker ends, and its owner sees to another process. */
static void give_up_device(struct worker *worker, const struct job *job)
{
	pthread_mutex_lock(&worker->lock);
	loss_of(job, worker->lost, sizeof worker->lost);
	worker->stopping = true;
	atomic_store(&worker->running, false);
	pthread_mutex_unlock(&worker->lock);
}

static void discard_checkpoint(struct worker *worker, const char *id)
{
	struct job_paths paths;
	struct error err;
	enum status status = prepare_paths(&worker->config.options->roots, worker->config.checkpoints, id, NULL, &paths, &err);
	if (!status) {
		status = directory_remove(paths.checkpoint_dir, &err);
		prepare_paths_free(&paths);
	}
	if (status) log_warning("job=%s its checkpoint stays behind: %s", id, err.message);
}

static void run_job(struct worker *worker, const struct job *job)
{
	struct error err = {0};
	struct outcome outcome = {0};
	char *result = NULL;
	struct db *db = worker->config.db;
	double started = monotonic_seconds();
	log_info("job=%s started attempt=%d blocks_done=%d", job->id, job->attempt, job->blocks_done);
	if (!worker->backend) reset_backend(worker);
	enum status status = worker->backend ? run_attempt(worker, job, &result, &err)
					     : error_set(&err, STATUS_BACKEND, "there is no compute device");
	decide_outcome(worker, job, status, &err, &outcome);
	outcome.result = result;
	double seconds = monotonic_seconds() - started;
	bool lost = outcome.requeue && backend_cuda_lost();
	if (lost) {
		char *message = shown_message(worker->config.options, &err);
		note_of_job(db, job->id, LOG_LEVEL_ERROR, "the device is lost, the job goes on in a new process: %s",
			    message ? message : "");
		free(message);
	}
	note_of_job(db, job->id, LOG_LEVEL_INFO, "attempt %d ended after %.1f s", job->attempt, seconds);
	bool written = keep_writing_outcome(worker, &outcome);
	if (written && !outcome.requeue && !outcome.retry_at) {
		metrics_count_job(worker->config.metrics, outcome.state, seconds);
		if (outcome.state == JOB_SUCCEEDED) discard_checkpoint(worker, job->id);
	}
	if (written)
		notifier_job_ended(
			worker->config.notifier); /* one that was cancelled meanwhile is not queued again, but has ended */
	if (lost)
		log_error("job=%s lost the device, queued again seconds=%.1f: %s", job->id, seconds, err.message);
	else if (outcome.pause)
		log_info("job=%s paused seconds=%.1f", job->id, seconds);
	else if (outcome.requeue)
		log_info("job=%s interrupted, queued again seconds=%.1f", job->id, seconds);
	else if (outcome.retry_at)
		log_warning("job=%s failed code=%s, again in %lld s seconds=%.1f: %s", job->id, outcome.code,
			    (long long)(outcome.retry_at - unix_milliseconds()) / 1000, seconds, err.message);
	else if (outcome.state == JOB_FAILED)
		log_error("job=%s failed code=%s seconds=%.1f: %s", job->id, outcome.code, seconds,
			  status == STATUS_CANCELLED ? outcome.message : err.message);
	else
		log_info("job=%s %s seconds=%.1f", job->id, job_state_name(outcome.state), seconds);
	if (backend_cuda_lost())
		give_up_device(worker, job);
	else if (status == STATUS_BACKEND)
		reset_backend(worker);
	free(outcome.message);
	free(result);
}

/* ---- the thread ---------------------------------------------------------------------------------------------------------- */

/* Under the lock: until there may be a job to claim. */
static void wait_for_work(struct worker *worker, int seconds)
{
	const struct timespec until = monotonic_after(seconds);
	while (!worker->wanted && !worker->stopping)
		if (pthread_cond_timedwait(&worker->changed, &worker->lock, &until)) break;
	worker->wanted = false;
}

/* Until the next of the jobs that wait to be tried again, or a look around. */
static int seconds_to_wait(struct worker *worker)
{
	struct error ignored; /* the next claim meets it too */
	int64_t at = 0, now = unix_milliseconds();
	if (db_job_next_retry(worker->config.db, &at, &ignored) || !at) return SWEEP_SECONDS;
	int64_t seconds = at > now ? (at - now + 999) / 1000 : 1;
	return seconds < SWEEP_SECONDS ? (int)seconds : SWEEP_SECONDS;
}

/* Claims a job, or waits for one; under the lock, so that a cancellation that follows the claim finds the job's id. False to look
 * again. */
static bool claim(struct worker *worker, struct job *job, bool *told)
{
	struct error err;
	bool found = false;
	if (health_accepts(worker->config.health, &err)) {
		wait_for_work(worker, TROUBLE_SECONDS);
		return false;
	}
	worker->wanted = false;
	enum status status = db_job_claim(worker->config.db, &found, job, &err);
	if (status && !*told) log_error("the queue cannot be read, trying on: %s", err.message);
	*told = status != STATUS_OK;
	if (found) {
		memcpy(worker->current, job->id, sizeof worker->current);
		worker->timed_out = false;
		atomic_store(&worker->stop, false);
		return true;
	}
	wait_for_work(worker, status ? TROUBLE_SECONDS : seconds_to_wait(worker));
	return false;
}

/* The queue of the process before could not be made sound when this one started. */
static bool make_sound(struct worker *worker)
{
	struct error err;
	if (recover_queue(worker->config.db, worker->config.options, worker->config.died, &err)) {
		health_set_queue(worker->config.health, &err);
		return false;
	}
	log_info("the queue is sound");
	notifier_job_ended(worker->config.notifier); /* some may have ended by it */
	health_set_queue(worker->config.health, NULL);
	return true;
}

static void sweep(struct worker *worker)
{
	const struct worker_config *config = &worker->config;
	sweep_jobs(config->options, config->db, config->checkpoints, config->metrics);
}

static void *work(void *context)
{
	struct worker *worker = context;
	struct job job;
	bool told = false, sound = !worker->config.unsound;
	/* Linux keeps the niceness per thread, and the compute threads inherit it. */
	setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
	pthread_mutex_lock(&worker->lock);
	while (!worker->stopping) {
		pthread_mutex_unlock(&worker->lock);
		prepare_sweep(&worker->config.options->roots, worker->config.options->keep_replaced);
		if (sound) sweep(worker);
		pthread_mutex_lock(&worker->lock);
		if (!sound && !(sound = make_sound(worker))) {
			wait_for_work(worker, TROUBLE_SECONDS);
			continue;
		}
		/* It may have been stopped meanwhile: a job that is claimed then would run to its end. */
		if (worker->stopping || !claim(worker, &job, &told)) continue;
		pthread_mutex_unlock(&worker->lock);
		run_job(worker, &job);
		job_clear(&job);
		pthread_mutex_lock(&worker->lock);
		worker->current[0] = 0;
	}
	atomic_store(&worker->running, false);
	pthread_mutex_unlock(&worker->lock);
	return NULL;
}

enum status worker_create(const struct worker_config *config, struct backend *backend, struct worker **ret, struct error *err)
{
	struct worker *worker = calloc(1, sizeof *worker);
	if (!worker) return error_set(err, STATUS_NO_MEMORY, "no memory for the worker");
	worker->config = *config;
	worker->backend = backend;
	pthread_mutex_init(&worker->device_lock, NULL);
	pthread_mutex_init(&worker->lock, NULL);
	monotonic_condition(&worker->changed);
	*ret = worker;
	return STATUS_OK;
}

enum status worker_start(struct worker *worker, struct error *err)
{
	atomic_store(&worker->running, true);
	worker->started = pthread_create(&worker->thread, NULL, work, worker) == 0;
	if (!worker->started) atomic_store(&worker->running, false);
	return worker->started ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "cannot start the worker's thread");
}

void worker_wake(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->wanted = true;
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
}

void worker_cancel(struct worker *worker, const char *job_id)
{
	pthread_mutex_lock(&worker->lock);
	if (strcmp(worker->current, job_id) == 0) atomic_store(&worker->stop, true);
	pthread_mutex_unlock(&worker->lock);
}

void worker_interrupt(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->current[0]) atomic_store(&worker->stop, true);
	pthread_mutex_unlock(&worker->lock);
}

void worker_tick(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->deadline && monotonic_seconds() >= worker->deadline) {
		worker->deadline = 0;
		worker->timed_out = true;
		atomic_store(&worker->stop, true);
	}
	pthread_mutex_unlock(&worker->lock);
}

bool worker_is_ready(struct worker *worker)
{
	return atomic_load(&worker->running); /* the lock may be held for as long as the database is */
}

const char *worker_device_lost(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	bool lost = worker->lost[0];
	pthread_mutex_unlock(&worker->lock);
	return lost ? worker->lost : NULL;
}

bool worker_device_room(struct worker *worker, size_t *ret)
{
	struct error ignored; /* the worker meets it too */
	pthread_mutex_lock(&worker->device_lock);
	struct backend *backend = worker->backend;
	bool known = backend && backend->ops->room && backend->ops->room(backend, ret, &ignored) == STATUS_OK;
	pthread_mutex_unlock(&worker->device_lock);
	return known;
}

unsigned long worker_pulse(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	if (!worker->current[0]) atomic_fetch_add(&worker->pulse, 1);
	pthread_mutex_unlock(&worker->lock);
	return atomic_load(&worker->pulse);
}

void worker_stop(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->stopping = true;
	atomic_store(&worker->running, false);
	atomic_store(&worker->stop, true);
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	if (worker->started) pthread_join(worker->thread, NULL);
	worker->started = false;
}

void worker_free(struct worker *worker)
{
	if (!worker) return;
	backend_destroy(worker->backend);
	pthread_cond_destroy(&worker->changed);
	pthread_mutex_destroy(&worker->device_lock);
	pthread_mutex_destroy(&worker->lock);
	free(worker);
}
