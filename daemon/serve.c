/* Start-up, shutdown, and what the API asks of the daemon. */
#include "daemon/serve.h"

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
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/api.h"
#include "api/http.h"
#include "api/tls.h"
#include "base/clock.h"
#include "base/confine.h"
#include "base/json.h"
#include "base/place.h"
#include "base/text.h"
#include "daemon/artifacts.h"
#include "daemon/completer.h"
#include "daemon/data.h"
#include "daemon/device.h"
#include "daemon/estimate.h"
#include "daemon/gauge.h"
#include "daemon/gc.h"
#include "daemon/health.h"
#include "daemon/holdings.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/notifier.h"
#include "daemon/notify.h"
#include "daemon/prepare.h"
#include "daemon/recover.h"
#include "daemon/secret.h"
#include "daemon/sweep.h"
#include "daemon/token_file.h"
#include "daemon/worker.h"
#include "engine/spec/restore.h"

struct daemon {
	const struct options *options;
	int lock;  /* of the state directory, held for life */
	bool died; /* the process before this one did not end in order */
	bool damaged;
	char *checkpoints;
	struct db *db;
	struct metrics *metrics;
	struct health *health;
	bool recovered; /* the queue; else the worker tries on */
	struct gauge *gauge;
	struct notifier *notifier;
	struct worker *worker;
	struct estimator *estimator;
	struct completer *completer; /* NULL: no models are served */
	size_t connections;          /* that the API may have */
	_Atomic int64_t queue_limit;
	pthread_mutex_t drain_lock;
	_Atomic int64_t drained; /* since when; 0: it is not */
	struct catalog *models, *data;
	struct api *api;
	struct sockets sockets, kept; /* kept: for the process after this one */
	size_t listening;             /* how many of `sockets` the API has */
	bool passed_on;               /* these stand in for all that options name */
	cJSON *info;                  /* what does not change of /v1/info */
	atomic_bool stopping;         /* what takes its time for a client is broken off */
	double started;               /* monotonic seconds */
	unsigned long pulse;          /* of the worker, when the watchdog was last fed */
};

/* ---- hooks of the API ---------------------------------------------------------------------------------------------------- */

static cJSON *problem_list(const struct spec_problems *problems)
{
	cJSON *errors = cJSON_CreateArray();
	for (int i = 0; i < problems->count; i++) {
		cJSON *error = cJSON_CreateObject();
		cJSON_AddStringToObject(error, "pointer", problems->items[i].pointer);
		cJSON_AddStringToObject(error, "detail", problems->items[i].detail);
		cJSON_AddItemToArray(errors, error);
	}
	return errors;
}

static enum status fill_submission(const struct spec *spec, struct api_submission *ret, struct error *err)
{
	cJSON *json = spec_to_json(spec), *places = spec_places(spec);
	struct api_submission submission = {.name = strdup(spec->name),
					    .priority = spec->priority,
					    .spec = json ? cJSON_PrintUnformatted(json) : NULL,
					    .places = places ? cJSON_PrintUnformatted(places) : NULL,
					    .output = strdup(spec->output),
					    .overwrite = spec->overwrite,
					    .bytes = holdings_expect(spec)};
	cJSON_Delete(json);
	cJSON_Delete(places);
	if (!submission.name || !submission.spec || !submission.places || !submission.output || json_ran_out()) {
		api_submission_clear(&submission);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the job");
	}
	*ret = submission;
	return STATUS_OK;
}

/* The spec of job `id`, which may be queued. STATUS_INVALID with *ret_errors. *ret is freed with spec_free. */
static enum status check_spec(const struct options *options, const cJSON *json, const char *id, struct spec **ret,
			      cJSON **ret_errors, struct error *err)
{
	const struct roots *roots = &options->roots;
	struct spec_problems problems = {0};
	struct spec *spec;
	enum status status = prepare_spec(json, roots, id, &spec, &problems, err);
	if (!status) {
		status = prepare_notify(spec, options->notify_hosts, options->n_notify_hosts, &problems, err);
		if (status) spec_free(spec);
	}
	if (status == STATUS_INVALID) {
		*ret_errors = problem_list(&problems);
		int wrong = problems.count + problems.more;
		error_set(err, STATUS_INVALID, "%d field%s of the spec %s wrong%s", wrong, wrong == 1 ? "" : "s",
			  wrong == 1 ? "is" : "are", problems.more ? "; the first are listed" : "");
	}
	spec_problems_free(&problems);
	TRY(status);
	status = prepare_output(roots, spec->output, spec->overwrite, id, err);
	if (status)
		spec_free(spec);
	else
		*ret = spec;
	return status;
}

static enum status hook_prepare(void *context, const cJSON *json, const char *id, struct api_submission *ret, struct error *err)
{
	struct spec *spec;
	TRY(check_spec(((struct daemon *)context)->options, json, id, &spec, &ret->errors, err));
	enum status status = fill_submission(spec, ret, err);
	spec_free(spec);
	return status;
}

static enum status hook_estimate(void *context, const cJSON *json, const char *id, cJSON **ret, cJSON **ret_errors,
				 struct error *err)
{
	const struct daemon *daemon = context;
	struct spec *spec;
	cJSON *answer = NULL;
	TRY(check_spec(daemon->options, json, id, &spec, ret_errors, err));
	enum status status = estimator_run(daemon->estimator, spec, &answer, err);
	if (!status) cJSON_AddItemToObject(answer, "spec", spec_to_json(spec));
	spec_free(spec);
	*ret = answer;
	return status;
}

static enum status hook_prepare_retry(void *context, const struct job *job, struct error *err)
{
	struct daemon *daemon = context;
	return prepare_output(&daemon->options->roots, job->output, job->overwrite, job->id, err);
}

static enum status hook_held(void *context, const char *who, const char *but, int64_t *ret, struct error *err)
{
	struct daemon *daemon = context;
	return holdings_measure(daemon->options, daemon->db, daemon->checkpoints, who, but, ret, err);
}

static void hook_queued(void *context)
{
	worker_wake(((struct daemon *)context)->worker);
}

static void hook_cancelled(void *context, const char *job_id)
{
	struct daemon *daemon = context;
	notifier_job_ended(daemon->notifier); /* one that was only queued */
	worker_cancel(daemon->worker, job_id);
}

static void hook_deleted(void *context, const char *job_id)
{
	struct daemon *daemon = context;
	sweep_files(daemon->options, daemon->checkpoints, job_id);
}

static void note_drain(struct daemon *daemon, int64_t since)
{
	atomic_store(&daemon->drained, since);
	metrics_set_drained(daemon->metrics, since != 0);
}

static void hook_drained(void *context, int64_t since, bool now)
{
	struct daemon *daemon = context;
	struct error ignored;
	int64_t stored;
	/* Of two that come at once the later one in the database counts, not the later one here. */
	pthread_mutex_lock(&daemon->drain_lock);
	if (db_drain_get(daemon->db, &stored, &ignored) == STATUS_OK) since = stored;
	bool was = atomic_load(&daemon->drained) != 0;
	note_drain(daemon, since);
	pthread_mutex_unlock(&daemon->drain_lock);
	if (was != (since != 0)) log_info("%s", since ? "drained: no job is begun" : "no longer drained: jobs are begun");
	if (now) worker_interrupt(daemon->worker);
	if (!since) worker_wake(daemon->worker);
}

static enum status hook_artifacts(void *context, const struct job *job, cJSON **ret, struct error *err)
{
	struct daemon *daemon = context;
	return artifacts_list(&daemon->options->roots, job, &daemon->stopping, ret, err);
}

static enum status hook_artifact(void *context, const struct job *job, const char *name, struct api_file *ret, struct error *err)
{
	struct daemon *daemon = context;
	return artifacts_open(&daemon->options->roots, job, name, &daemon->stopping, ret, err);
}

static enum status hook_models(void *context, cJSON **ret, bool *ret_truncated, struct error *err)
{
	return catalog_list(((struct daemon *)context)->models, ret, ret_truncated, err);
}

static enum status hook_data(void *context, cJSON **ret, bool *ret_truncated, struct error *err)
{
	return catalog_list(((struct daemon *)context)->data, ret, ret_truncated, err);
}

static enum status hook_gc(void *context, bool dry, cJSON **ret, struct error *err)
{
	struct daemon *daemon = context;
	return gc_run_rules(daemon->options, daemon->db, daemon->checkpoints, daemon->metrics, dry, ret, err);
}

static enum status hook_complete(void *context, const struct api_completion *wish, struct api_completed *ret, struct error *err)
{
	return completer_run(((struct daemon *)context)->completer, wish, ret, err);
}

static cJSON *hook_info(void *context)
{
	struct daemon *daemon = context;
	cJSON *info = cJSON_Duplicate(daemon->info, true);
	cJSON_AddNumberToObject(info, "uptime_seconds", floor(monotonic_seconds() - daemon->started));
	int64_t since = atomic_load(&daemon->drained);
	char text[32];
	if (since) time_format(since, text);
	cJSON_AddBoolToObject(info, "serves_models", daemon->completer != NULL);
	cJSON_AddItemToObject(info, "drained_since", since ? cJSON_CreateString(text) : cJSON_CreateNull());
	return info;
}

static void hook_refused(void *context, const char *text)
{
	(void)context;
	log_warning("%s", text);
}

static enum status hook_ready(void *context, struct error *err)
{
	struct daemon *daemon = context;
	if (!worker_is_ready(daemon->worker)) return error_set(err, STATUS_INTERNAL, "the worker is not running");
	return health_check(daemon->health, err);
}

static enum status hook_accepts(void *context, struct error *err)
{
	return health_accepts(((struct daemon *)context)->health, err);
}

/* ---- start-up ------------------------------------------------------------------------------------------------------------ */

/* The lock's file has something in it from the start of the worker to an end in order, also behind a power cut. Truncating it
 * needs no room, and no database. */
static void note_start(const struct daemon *daemon)
{
	static const char text[] = "runs\n";
	/* On a full disk this end will not be known for a crash. */
	if (daemon->died) return;
	if (pwrite(daemon->lock, text, sizeof text - 1, 0) < 0 || fdatasync(daemon->lock) != 0)
		log_warning("lock: %s", strerror(errno));
}

static void note_end(const struct daemon *daemon)
{
	bool counted = !daemon->died || daemon->recovered; /* else the next start has to count that one */
	if (daemon->db && counted && ftruncate(daemon->lock, 0) != 0) log_warning("lock: %s", strerror(errno));
}

static enum status lock_state(struct daemon *daemon, struct error *err)
{
	char path[PATH_MAX];
	struct stat file;
	if (snprintf(path, sizeof path, "%s/lock", daemon->options->state_dir) >= (int)sizeof path)
		return error_set(err, STATUS_INVALID, "the path is too long: %s", daemon->options->state_dir);
	daemon->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (daemon->lock < 0) return error_errno(err, "%s", path);
	if (flock(daemon->lock, LOCK_EX | LOCK_NB) == 0) {
		daemon->died = fstat(daemon->lock, &file) == 0 && file.st_size > 0;
		return STATUS_OK;
	}
	if (errno != EWOULDBLOCK) return error_errno(err, "%s", path);
	return error_set(err, STATUS_EXISTS, "another besad uses %s", daemon->options->state_dir);
}

/* Behind an unclean end, before anything is written. What cannot be looked at, opening it will say. */
static enum status check_database(struct daemon *daemon, const char *path, struct error *err)
{
	enum status status = daemon->died ? db_quick_check(path, err) : STATUS_OK;
	daemon->damaged = status == STATUS_INVALID;
	if (daemon->damaged)
		return error_prefix(
			err,
			"besad did not end in order, and starts from no damaged database, so that nothing more is lost: move "
			"%s* and jobs aside and restore a backup (besad restore, docs/operator.md)",
			path);
	if (status) log_warning("the database could not be looked through: %s", err->message);
	return STATUS_OK;
}

/* What an upgrade or the journal's index need, the ballast may make room for. */
static enum status open_database(struct daemon *daemon, const char *path, struct error *err)
{
	TRY(check_database(daemon, path, err));
	enum status status = db_open(path, &daemon->db, err);
	if (status == STATUS_NO_SPACE && ballast_release(daemon->options->state_dir)) status = db_open(path, &daemon->db, err);
	return status;
}

static enum status open_state(struct daemon *daemon, struct error *err)
{
	char path[PATH_MAX];
	TRY(lock_state(daemon, err));
	if (asprintf(&daemon->checkpoints, "%s/jobs", daemon->options->state_dir) < 0) {
		daemon->checkpoints = NULL;
		return error_set(err, STATUS_NO_MEMORY, "no memory for a path");
	}
	TRY(directory_make(daemon->checkpoints, err));
	snprintf(path, sizeof path, "%s/besad.db",
		 daemon->options->state_dir); /* shorter than the lock's path by fitting: checked there */
	TRY(open_database(daemon, path, err));
	TRY(health_start(daemon->options, daemon->db, &daemon->health, err));
	sweep_forgotten(daemon->options, daemon->db, daemon->checkpoints); /* makes room, where there is none */
	if (daemon->died) prepare_sweep_tries(&daemon->options->roots);
	enum status status = recover_queue(daemon->db, daemon->options, daemon->died, err);
	daemon->recovered = !status;
	if (!recover_is_worth_waiting(status)) return status;
	log_error("the queue can only be read until it can be made sound, trying on: %s", err->message);
	health_set_queue(daemon->health, err);
	return STATUS_OK;
}

static cJSON *describe(const struct backend *backend)
{
	cJSON *info = cJSON_CreateObject();
	cJSON_AddStringToObject(info, "name", "besad");
	cJSON_AddStringToObject(info, "version", BESAD_VERSION);
	cJSON_AddStringToObject(info, "backend", backend->name);
	cJSON_AddStringToObject(info, "device", backend->device);
	cJSON_AddNumberToObject(info, "threads", backend->threads);
	cJSON_AddStringToObject(info, "precision", backend->native_bf16 ? "bf16" : "f32");
	return info;
}

static enum status start_worker(struct daemon *daemon, struct error *err)
{
	struct backend *backend;
	TRY(device_open(daemon->options, &backend, err));
	daemon->info = describe(backend);
	daemon->metrics = metrics_create(backend->name);
	daemon->gauge = gauge_create(backend);
	struct worker_config config = {.db = daemon->db,
				       .metrics = daemon->metrics,
				       .notifier = daemon->notifier,
				       .health = daemon->health,
				       .unsound = !daemon->recovered,
				       .died = daemon->died,
				       .options = daemon->options,
				       .checkpoints = daemon->checkpoints};
	enum status status = daemon->info && daemon->metrics && daemon->gauge
				     ? worker_create(&config, backend, &daemon->worker, err)
				     : error_set(err, STATUS_NO_MEMORY, "no memory for the worker");
	if (status) {
		backend_destroy(backend);
		return status;
	}
	return estimator_create(daemon->options, daemon->checkpoints, daemon->db, daemon->worker, backend, &daemon->estimator, err);
}

/* Once the device is open, for which its driver may run a program of its own, and before anybody is answered. Programs are run for
 * --on-finish, and this one again where a device was lost. */
static enum status confine(const struct daemon *daemon, struct error *err)
{
	const struct options *options = daemon->options;
	const char *backend = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(daemon->info, "backend"));
	bool programs = options->on_finish || strcmp(backend ? backend : "", "cpu") != 0;
	if (options->no_seccomp) {
		log_info("seccomp: off (--no-seccomp)");
		return STATUS_OK;
	}
	enum status status = confine_process(programs, err);
	if (status == STATUS_UNSUPPORTED) {
		log_info("seccomp: off (%s)", err->message);
		return STATUS_OK;
	}
	if (!status)
		log_info("seccomp: system calls that besad never needs fail from now on%s", programs ? "" : ", execve among them");
	return status ? error_prefix(err, "seccomp (--no-seccomp goes without)") : STATUS_OK;
}

static enum status open_sockets(struct daemon *daemon, struct error *err)
{
	const struct options *options = daemon->options;
	TRY(listen_inherit(&daemon->sockets, err));
	daemon->passed_on = daemon->sockets.n > 0;
	for (size_t i = 0; i < options->n_listen && !daemon->passed_on; i++)
		TRY(listen_open(options->listen[i], &daemon->sockets, err));
	if (!daemon->sockets.loopback && !options->tokens)
		return error_set(err, STATUS_INVALID, "an address that is not loopback needs --token-file");
	return STATUS_OK;
}

static enum status load_certificate(const struct options *options, struct error *err)
{
	TRY(secret_check(options->tls_key, err));
	return tls_load(options->tls_cert, options->tls_key, err);
}

static enum status read_drain(struct daemon *daemon, struct error *err)
{
	int64_t since;
	TRY(db_drain_get(daemon->db, &since, err));
	note_drain(daemon, since);
	if (since) log_warning("the queue is drained: no job is begun before POST /v1/undrain (besactl undrain)");
	return STATUS_OK;
}

static enum status start_api(struct daemon *daemon, struct error *err)
{
	if (daemon->options->tls_cert) TRY(load_certificate(daemon->options, err));
	TRY(read_drain(daemon, err));
	TRY(catalog_create(&models_kind, daemon->options->roots.model, &daemon->models, err));
	TRY(catalog_create(&data_files_kind, daemon->options->roots.data, &daemon->data, err));
	if (daemon->options->serve_models) TRY(completer_create(daemon->options, &daemon->completer, err));
	struct api_config config = {
		.db = daemon->db,
		.metrics = daemon->metrics,
		.hooks = {.context = daemon,
			  .prepare = hook_prepare,
			  .estimate = hook_estimate,
			  .prepare_retry = hook_prepare_retry,
			  .held = hook_held,
			  .queued = hook_queued,
			  .cancelled = hook_cancelled,
			  .deleted = hook_deleted,
			  .drained = hook_drained,
			  .artifacts = hook_artifacts,
			  .artifact = hook_artifact,
			  .models = hook_models,
			  .data = hook_data,
			  .gc = hook_gc,
			  .complete = daemon->completer ? hook_complete : NULL,
			  .info = hook_info,
			  .refused = hook_refused,
			  .ready = hook_ready,
			  .accepts = hook_accepts},
		.tokens = daemon->options->tokens,
		.tls = daemon->options->tls_cert,
		.connections = daemon->connections,
		.queue_limit = &daemon->queue_limit,
	};
	size_t n = daemon->listening = daemon->sockets.n;
	daemon->sockets.n = 0; /* the API's from here on */
	return api_start(&config, daemon->sockets.fds, n, &daemon->api, err);
}

static enum status write_port(const struct daemon *daemon, struct error *err)
{
	char text[16];
	if (!daemon->options->port_file) return STATUS_OK;
	int length = snprintf(text, sizeof text, "%d\n", daemon->sockets.port);
	return place_replace(&PLACE(daemon->options->port_file), NULL, text, (size_t)length, err);
}

/* Each connection is a descriptor, and so are the files of a job, of the database and of besad itself: these come first. */
static size_t connection_limit(void)
{
	enum { KEPT_DESCRIPTORS = 64, FEWEST = 8 };
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return API_MAX_CONNECTIONS;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= API_MAX_CONNECTIONS + KEPT_DESCRIPTORS) return API_MAX_CONNECTIONS;
	size_t rest = limit.rlim_cur > KEPT_DESCRIPTORS ? (size_t)limit.rlim_cur - KEPT_DESCRIPTORS : 0;
	rest = rest > FEWEST ? rest : FEWEST;
	log_warning("at most %zu connections at once: only %llu descriptors may be open (RLIMIT_NOFILE), and %d are kept for files",
		    rest, (unsigned long long)limit.rlim_cur, KEPT_DESCRIPTORS);
	return rest;
}

/* Clients that connect early wait until the queue is sound; nothing computes before they can watch it. */
static enum status start(struct daemon *daemon, struct error *err)
{
	daemon->started = monotonic_seconds();
	daemon->connections = connection_limit();
	TRY(open_sockets(daemon, err));
	TRY(open_state(daemon, err));
	TRY(notifier_start(daemon->options, daemon->db, &daemon->notifier, err));
	TRY(start_worker(daemon, err));
	TRY(confine(daemon, err));
	TRY(start_api(daemon, err));
	note_start(daemon);
	TRY(worker_start(daemon->worker, err));
	return write_port(daemon, err);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static void read_gauge(struct daemon *daemon)
{
	struct device_reading reading;
	gauge_read(daemon->gauge, &reading);
	metrics_set_device(daemon->metrics, &reading);
}

static void reload_tokens(struct daemon *daemon)
{
	struct error err;
	struct tokens *tokens;
	if (token_file_read(daemon->options->token_file, &tokens, &err)) {
		log_error("SIGHUP: the tokens stay as they are: %s", err.message);
		return;
	}
	tokens_replace(daemon->options->tokens, tokens);
	log_info("SIGHUP: the tokens were read again; streams of those that are gone end");
}

static void reload_certificate(struct daemon *daemon)
{
	struct error err;
	if (load_certificate(daemon->options, &err))
		log_error("SIGHUP: the certificate stays as it is: %s", err.message);
	else
		log_info("SIGHUP: the certificate was read again");
}

static void reload_limits(struct daemon *daemon)
{
	struct error err;
	int64_t queue = daemon->options->queue_limit;
	if (options_read_limits(daemon->options->limits_file, &queue, &err)) {
		log_error("SIGHUP: the limits stay as they are: %s", err.message);
		return;
	}
	daemon->queue_limit = queue;
	log_info("SIGHUP: the limits were read again: queue=%lld", (long long)queue);
}

/* SIGHUP. A file that cannot be used changes nothing. */
static void reload(struct daemon *daemon)
{
	notify("RELOADING=1");
	if (daemon->options->tokens) reload_tokens(daemon);
	if (daemon->options->tls_cert) reload_certificate(daemon);
	if (daemon->options->limits_file) reload_limits(daemon);
	if (!daemon->options->tokens && !daemon->options->tls_cert && !daemon->options->limits_file)
		log_info("SIGHUP: there is no file to read again");
	notify("READY=1");
}

/* Tells systemd that all is well, as long as it is; what hangs is killed by it, and the next start goes on. */
static void feed_watchdog(struct daemon *daemon)
{
	unsigned long pulse = worker_pulse(daemon->worker);
	if (pulse != daemon->pulse) notify("WATCHDOG=1");
	daemon->pulse = pulse;
}

/* The device is lost to this process. Clients that come while it is replaced wait in the sockets' queues. */
static bool prepare_again(struct daemon *daemon)
{
	struct error err;
	const char *lost = worker_device_lost(daemon->worker);
	if (!lost) return false;
	log_warning("the device is lost to this process: besad starts again");
	if (listen_keep(daemon->sockets.fds, daemon->listening, &daemon->kept, &err))
		log_warning("the sockets are opened anew: %s", err.message);
	setenv(WORKER_LOST, lost, 1);
	return true;
}

/* Returns whether besad is to start again. */
static bool wait_for_end(struct daemon *daemon)
{
	sigset_t signals;
	const struct timespec second = {.tv_sec = 1};
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	read_gauge(daemon);
	for (;;) {
		siginfo_t info;
		int number = sigtimedwait(&signals, &info, &second);
		worker_tick(daemon->worker);
		read_gauge(daemon);
		feed_watchdog(daemon);
		completer_tick(daemon->completer);
		if (number == SIGHUP) reload(daemon);
		if (number != SIGTERM && number != SIGINT && prepare_again(daemon)) return true;
		if (number < 0 || number == SIGHUP) continue;
		log_info("%s from process %d: stopping; a running job goes on at the next start",
			 number == SIGTERM ? "SIGTERM" : "SIGINT", (int)info.si_pid);
		return false;
	}
}

static void log_addresses(const struct daemon *daemon)
{
	const struct options *options = daemon->options;
	if (daemon->sockets.port) log_info("besad %s answers on port %d", BESAD_VERSION, daemon->sockets.port);
	if (daemon->passed_on && !daemon->sockets.port) log_info("besad %s answers on what was passed on", BESAD_VERSION);
	for (size_t i = 0; i < options->n_listen && !daemon->passed_on; i++)
		if (text_starts_with(options->listen[i], "unix:"))
			log_info("besad %s answers on %s", BESAD_VERSION, options->listen[i]);
}

/* Those that the next process does not go on with. */
static void remove_sockets(const struct options *options)
{
	for (size_t i = 0; i < options->n_listen; i++)
		listen_remove(options->listen[i]);
}

static void stop(struct daemon *daemon)
{
	completer_stop(daemon->completer);
	if (daemon->worker) worker_stop(daemon->worker); /* before the streams end, so that watchers hear of it */
	estimator_stop(daemon->estimator);
	atomic_store(&daemon->stopping, true);
	api_stop(daemon->api);
	tls_free();
	catalog_free(daemon->models);
	catalog_free(daemon->data);
	listen_close(&daemon->sockets);
	notifier_stop(daemon->notifier);
	estimator_free(daemon->estimator);
	completer_free(daemon->completer);
	worker_free(daemon->worker);
	health_free(daemon->health);
	gauge_free(daemon->gauge);
	metrics_free(daemon->metrics);
	note_end(daemon);
	db_close(daemon->db);
	cJSON_Delete(daemon->info);
	free(daemon->checkpoints);
	if (daemon->lock >= 0) close(daemon->lock);
}

int serve(const struct options *options)
{
	struct daemon daemon = {
		.options = options, .lock = -1, .queue_limit = options->queue_limit, .drain_lock = PTHREAD_MUTEX_INITIALIZER};
	struct error err;
	bool again = false;
	sigset_t hangup; /* a job run by hand ends with its terminal, the daemon does not */
	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	sigprocmask(SIG_BLOCK, &hangup, NULL);
	enum status status = start(&daemon, &err);
	if (status) {
		log_error("cannot start: %s", err.message);
	} else {
		log_addresses(&daemon);
		notify("READY=1");
		again = wait_for_end(&daemon);
		notify(again ? "RELOADING=1" : "STOPPING=1");
	}
	stop(&daemon);
	/* Not those of systemd: to look whether somebody listens would start besad again. */
	if (!again && !daemon.passed_on) remove_sockets(options);
	if (again) {
		listen_pass_on(&daemon.kept);
		return SERVE_AGAIN;
	}
	if (daemon.damaged) return SERVE_DAMAGED;
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
