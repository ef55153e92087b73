#include "daemon/estimate.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/pace.h"
#include "engine/engine.h"

/* What computing costs a process beside the data: code that is made, or first used, when operations run, and memory that the
 * allocator has between the parts in use. Measured: bench/compare.py estimate, bench/results/estimate-zen5.json. */
static const double COMPUTING_BYTES = 22e6;

struct estimator {
	const struct options *options;
	const char *checkpoints;
	struct db *db;
	struct worker *worker;
	pthread_mutex_t lock; /* of `dry` */
	struct backend *dry;  /* of the worker's device */
	double resting;       /* bytes in memory of the process that runs no job */
	atomic_bool stop;
};

/* ---- this machine --------------------------------------------------------------------------------------------------------- */

/* proc(5), /proc/self/statm: the process's pages in memory, and those of them that are files'. */
static enum status read_process(double *ret_resident, double *ret_files, struct error *err)
{
	unsigned long long resident, files;
	FILE *file = fopen("/proc/self/statm", "re");
	if (!file) return error_errno(err, "/proc/self/statm");
	int n = fscanf(file, "%*u %llu %llu", &resident, &files);
	fclose(file);
	if (n != 2) return error_set(err, STATUS_INTERNAL, "/proc/self/statm: not understood");
	*ret_resident = (double)resident * (double)sysconf(_SC_PAGESIZE);
	*ret_files = (double)files * (double)sysconf(_SC_PAGESIZE);
	return STATUS_OK;
}

/* The bytes that this process could have in all: what is available, and what it has that is not a file's. */
static enum status read_available(double *ret, struct error *err)
{
	char line[128];
	double kilobytes, available = -1, resident, files;
	FILE *file = fopen("/proc/meminfo", "re");
	if (!file) return error_errno(err, "/proc/meminfo");
	while (fgets(line, sizeof line, file))
		if (sscanf(line, "MemAvailable: %lf kB", &kilobytes) == 1) available = kilobytes * 1024;
	fclose(file);
	if (available < 0) return error_set(err, STATUS_INTERNAL, "/proc/meminfo has no MemAvailable");
	TRY(read_process(&resident, &files, err));
	*ret = available + resident - files;
	return STATUS_OK;
}

static enum status read_disk(const char *path, double *ret_free, dev_t *ret_device, struct error *err)
{
	struct statvfs system;
	struct stat st;
	if (statvfs(path, &system) != 0 || stat(path, &st) != 0) return error_errno(err, "%s", path);
	*ret_free = (double)system.f_bavail * (double)system.f_frsize;
	*ret_device = st.st_dev;
	return STATUS_OK;
}

/* ---- the answer ------------------------------------------------------------------------------------------------------------ */

static void add_bool_or_null(cJSON *object, const char *key, bool known, bool value)
{
	if (known)
		cJSON_AddBoolToObject(object, key, value);
	else
		cJSON_AddNullToObject(object, key);
}

static void add_number_or_null(cJSON *object, const char *key, bool known, double value)
{
	if (known)
		cJSON_AddNumberToObject(object, key, value);
	else
		cJSON_AddNullToObject(object, key);
}

static void add_memory(cJSON *memory, const char *key, double peak, bool known, double available, bool fits)
{
	cJSON *object = cJSON_AddObjectToObject(memory, key);
	cJSON_AddNumberToObject(object, "peak_bytes", peak);
	add_number_or_null(object, "available_bytes", known, available);
	add_bool_or_null(object, "fits", known, fits);
}

static enum status answer_disk(const struct estimator *e, const struct engine_need *need, cJSON *json, struct error *err)
{
	double output, checkpoint;
	dev_t output_device, checkpoint_device;
	TRY(read_disk(e->options->roots.output, &output, &output_device, err));
	TRY(read_disk(e->checkpoints, &checkpoint, &checkpoint_device, err));
	double needs = (double)need->output, saves = (double)need->savepoint;
	bool fits = output_device == checkpoint_device ? needs + saves <= output : needs <= output && saves <= checkpoint;
	cJSON *disk = cJSON_AddObjectToObject(json, "disk"), *part = cJSON_AddObjectToObject(disk, "output");
	cJSON_AddNumberToObject(part, "bytes", needs);
	cJSON_AddNumberToObject(part, "free_bytes", output);
	part = cJSON_AddObjectToObject(disk, "checkpoint");
	cJSON_AddNumberToObject(part, "bytes", saves);
	cJSON_AddNumberToObject(part, "free_bytes", checkpoint);
	cJSON_AddBoolToObject(disk, "fits", fits);
	return STATUS_OK;
}

static enum status answer_seconds(const struct estimator *e, const struct spec *spec, const struct engine_need *need, cJSON *json,
				  struct error *err)
{
	struct pace pace;
	TRY(pace_find(e->db, e->dry, &e->options->roots, spec, need, &pace, err));
	bool prunes = spec_makes_output(spec), known = pace.rest_jobs && (pace.pruning_jobs || !prunes);
	cJSON *seconds = cJSON_AddObjectToObject(json, "seconds"), *part;
	add_number_or_null(seconds, "total", known, pace.pruning + pace.rest);
	if (pace.pruning_jobs) {
		part = cJSON_AddObjectToObject(seconds, "pruning");
		cJSON_AddNumberToObject(part, "seconds", pace.pruning);
		cJSON_AddNumberToObject(part, "measured_blocks", (double)pace.pruning_blocks);
		cJSON_AddNumberToObject(part, "measured_jobs", pace.pruning_jobs);
		cJSON_AddBoolToObject(part, "scaled", pace.scaled);
	} else {
		cJSON_AddNullToObject(seconds, "pruning");
	}
	if (pace.rest_jobs) {
		part = cJSON_AddObjectToObject(seconds, "rest");
		cJSON_AddNumberToObject(part, "seconds", pace.rest);
		cJSON_AddNumberToObject(part, "measured_jobs", pace.rest_jobs);
	} else {
		cJSON_AddNullToObject(seconds, "rest");
	}
	return STATUS_OK;
}

static enum status answer(struct estimator *e, const struct spec *spec, cJSON *json, struct error *err)
{
	const struct engine_job job = {.spec = spec, .job_id = "", .attempt = 1, .stop = &e->stop};
	struct engine_need need;
	size_t room = 0;
	double available = 0;
	bool unified = e->dry->unified, known = worker_device_room(e->worker, &room);
	TRY(read_available(&available, err));
	TRY(engine_estimate(&job, e->dry, known ? room : SIZE_MAX, &need, err));
	double process = e->resting + COMPUTING_BYTES + (double)need.process;
	cJSON_AddStringToObject(json, "backend", e->dry->name);
	cJSON_AddStringToObject(json, "device", e->dry->device);
	cJSON_AddStringToObject(json, "precision", need.precision);
	cJSON *memory = cJSON_AddObjectToObject(json, "memory");
	add_memory(memory, "device", (double)need.device, unified || known, unified ? available : (double)room,
		   unified ? process <= available : need.device_fits);
	add_memory(memory, "process", process, true, available, process <= available);
	TRY(answer_disk(e, &need, json, err));
	return answer_seconds(e, spec, &need, json, err);
}

enum status estimator_run(struct estimator *e, const struct spec *spec, cJSON **ret, struct error *err)
{
	cJSON *json = cJSON_CreateObject();
	if (!json) return error_set(err, STATUS_NO_MEMORY, "no memory for an estimate");
	pthread_mutex_lock(&e->lock);
	enum status status =
		atomic_load(&e->stop) ? error_set(err, STATUS_CANCELLED, "besad is stopping") : answer(e, spec, json, err);
	pthread_mutex_unlock(&e->lock);
	if (status) {
		cJSON_Delete(json);
		return status;
	}
	*ret = json;
	return STATUS_OK;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

enum status estimator_create(const struct options *options, const char *checkpoints, struct db *db, struct worker *worker,
			     struct backend *backend, struct estimator **ret, struct error *err)
{
	double files;
	struct estimator *e = calloc(1, sizeof *e);
	if (!e) return error_set(err, STATUS_NO_MEMORY, "no memory for estimates");
	e->options = options;
	e->checkpoints = checkpoints;
	e->db = db;
	e->worker = worker;
	pthread_mutex_init(&e->lock, NULL);
	enum status status = read_process(&e->resting, &files, err);
	if (!status) {
		status = backend->ops->dry(backend, SIZE_MAX, &e->dry);
		if (status) *err = backend->error;
	}
	if (status) {
		estimator_free(e);
		return status;
	}
	*ret = e;
	return STATUS_OK;
}

void estimator_stop(struct estimator *e)
{
	if (e) atomic_store(&e->stop, true);
}

void estimator_free(struct estimator *e)
{
	if (!e) return;
	backend_destroy(e->dry);
	pthread_mutex_destroy(&e->lock);
	free(e);
}
