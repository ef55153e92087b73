#include "api/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const double request_bounds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
static const double job_bounds[] = {1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400};

enum { MAX_BOUNDS = 12, MAX_SERIES = 512 };

struct histogram {
	const double *bounds;
	size_t n;
	uint64_t counts[MAX_BOUNDS], total;
	double sum;
};

struct metrics {
	pthread_mutex_t lock;
	char backend[32];
	struct {
		const char *route, *method;
		unsigned status;
		uint64_t count;
	} requests[MAX_SERIES];
	size_t n_requests;
	struct histogram request_seconds, job_seconds;
	uint64_t jobs_finished[JOB_STATES], blocks;
	double block_seconds, reconstruction;
	int streams;
	struct device_reading device;
	struct state_reading state;
	bool drained;
};

struct metrics *metrics_create(const char *backend)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	if (!metrics) return NULL;
	pthread_mutex_init(&metrics->lock, NULL);
	snprintf(metrics->backend, sizeof metrics->backend, "%s", backend);
	metrics->request_seconds.bounds = request_bounds;
	metrics->request_seconds.n = sizeof request_bounds / sizeof *request_bounds;
	metrics->job_seconds.bounds = job_bounds;
	metrics->job_seconds.n = sizeof job_bounds / sizeof *job_bounds;
	metrics->reconstruction = NAN;
	metrics->device = (struct device_reading){-1, -1, -1, -1, -1};
	metrics->state.limit = -1;
	return metrics;
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics) return;
	pthread_mutex_destroy(&metrics->lock);
	free(metrics);
}

static void observe(struct histogram *histogram, double value)
{
	size_t i = 0;
	while (i < histogram->n && value > histogram->bounds[i])
		i++;
	if (i < histogram->n) histogram->counts[i]++;
	histogram->total++;
	histogram->sum += value;
}

void metrics_count_request(struct metrics *metrics, const char *route, const char *method, unsigned status, double seconds)
{
	pthread_mutex_lock(&metrics->lock);
	size_t i = 0;
	while (i < metrics->n_requests && (metrics->requests[i].route != route || metrics->requests[i].method != method ||
					   metrics->requests[i].status != status))
		i++;
	if (i == metrics->n_requests && i < MAX_SERIES) {
		metrics->requests[i].route = route;
		metrics->requests[i].method = method;
		metrics->requests[i].status = status;
		metrics->n_requests++;
	}
	if (i < MAX_SERIES) metrics->requests[i].count++;
	observe(&metrics->request_seconds, seconds);
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_count_job(struct metrics *metrics, enum job_state state, double seconds)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->jobs_finished[state]++;
	observe(&metrics->job_seconds, seconds);
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_count_block(struct metrics *metrics, double reconstruction, double seconds)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->blocks++;
	metrics->block_seconds += seconds;
	metrics->reconstruction = reconstruction;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_count_streams(struct metrics *metrics, int change)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->streams += change;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_device(struct metrics *metrics, const struct device_reading *device)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->device = *device;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_state(struct metrics *metrics, const struct state_reading *state)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->state = *state;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_drained(struct metrics *metrics, bool drained)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->drained = drained;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_get_device(struct metrics *metrics, struct device_reading *ret)
{
	pthread_mutex_lock(&metrics->lock);
	*ret = metrics->device;
	pthread_mutex_unlock(&metrics->lock);
}

/* ---- text format -------------------------------------------------------------------------------------------------------- */

static void describe(struct buffer *to, const char *name, const char *type, const char *help)
{
	buffer_printf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_histogram(struct buffer *to, const char *name, const struct histogram *histogram)
{
	uint64_t below = 0;
	for (size_t i = 0; i < histogram->n; i++) {
		below += histogram->counts[i];
		buffer_printf(to, "%s_bucket{le=\"%g\"} %llu\n", name, histogram->bounds[i], (unsigned long long)below);
	}
	buffer_printf(to, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.17g\n%s_count %llu\n", name, (unsigned long long)histogram->total,
		      name, histogram->sum, name, (unsigned long long)histogram->total);
}

/* Resident memory and start time as Prometheus' own clients report them. */
static void write_process(struct buffer *to)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	describe(to, "process_cpu_seconds_total", "counter", "User and system CPU time of the process.");
	buffer_printf(to, "process_cpu_seconds_total %.6f\n",
		      (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			      (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6);
	describe(to, "besad_process_peak_resident_bytes", "gauge", "Largest resident memory of the process so far.");
	buffer_printf(to, "besad_process_peak_resident_bytes %lld\n", (long long)usage.ru_maxrss * 1024);
	FILE *statm = fopen("/proc/self/statm", "re");
	long long size, resident;
	if (statm && fscanf(statm, "%lld %lld", &size, &resident) == 2) {
		describe(to, "process_resident_memory_bytes", "gauge", "Resident memory of the process.");
		buffer_printf(to, "process_resident_memory_bytes %lld\n", resident * sysconf(_SC_PAGESIZE));
	}
	if (statm) fclose(statm);
}

static void write_jobs(struct metrics *metrics, const int64_t jobs[JOB_STATES], struct buffer *to)
{
	describe(to, "besad_jobs", "gauge", "Jobs in the database, by state.");
	for (int i = 0; i < JOB_STATES; i++)
		buffer_printf(to, "besad_jobs{state=\"%s\"} %lld\n", job_state_name((enum job_state)i), (long long)jobs[i]);
	describe(to, "besad_queue_depth", "gauge", "Jobs that wait for the worker.");
	buffer_printf(to, "besad_queue_depth %lld\n", (long long)jobs[JOB_QUEUED]);
	describe(to, "besad_drained", "gauge", "1 while no job is begun, because the queue is drained.");
	buffer_printf(to, "besad_drained %d\n", metrics->drained);
	describe(to, "besad_jobs_finished_total", "counter", "Jobs that ended since the start, by state.");
	for (int i = JOB_SUCCEEDED; i < JOB_STATES; i++)
		buffer_printf(to, "besad_jobs_finished_total{state=\"%s\"} %llu\n", job_state_name((enum job_state)i),
			      (unsigned long long)metrics->jobs_finished[i]);
	describe(to, "besad_job_duration_seconds", "histogram", "Time of an attempt from its claim to the job's end.");
	write_histogram(to, "besad_job_duration_seconds", &metrics->job_seconds);
	describe(to, "besad_blocks_finished_total", "counter", "Transformer blocks pruned since the start.");
	buffer_printf(to, "besad_blocks_finished_total %llu\n", (unsigned long long)metrics->blocks);
	describe(to, "besad_block_seconds_total", "counter", "Time spent on the finished blocks.");
	buffer_printf(to, "besad_block_seconds_total %.6f\n", metrics->block_seconds);
	if (isnan(metrics->reconstruction)) return;
	describe(to, "besad_last_block_reconstruction_loss", "gauge", "Reconstruction loss of the block finished last.");
	buffer_printf(to, "besad_last_block_reconstruction_loss %.17g\n", metrics->reconstruction);
}

static void write_device(const struct device_reading *device, struct buffer *to)
{
	const struct {
		const char *name, *help;
		double value;
	} gauges[] = {
		{"besad_device_utilisation_ratio", "How busy the compute device is, 0 to 1.", device->utilisation},
		{"besad_device_memory_used_bytes", "Memory of the compute device in use, by any process.", device->memory_used},
		{"besad_device_memory_total_bytes", "Memory of the compute device.", device->memory_total},
		{"besad_device_power_watts", "Power that the compute device draws.", device->watts},
		{"besad_device_temperature_celsius", "Temperature of the compute device.", device->celsius},
	};
	for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
		if (gauges[i].value < 0) continue;
		describe(to, gauges[i].name, "gauge", gauges[i].help);
		buffer_printf(to, "%s %.17g\n", gauges[i].name, gauges[i].value);
	}
}

static void write_state(const struct state_reading *state, struct buffer *to)
{
	describe(to, "besad_ended_jobs_held_bytes", "gauge",
		 "Checkpoints and unfinished outputs of jobs that failed or were cancelled.");
	buffer_printf(to, "besad_ended_jobs_held_bytes %.17g\n", state->held);
	describe(to, "besad_state_bytes", "gauge",
		 "What besad keeps: its database, checkpoints, and outputs that jobs left unfinished.");
	buffer_printf(to, "besad_state_bytes{part=\"database\"} %.17g\n", state->database);
	buffer_printf(to, "besad_state_bytes{part=\"checkpoints\"} %.17g\n", state->checkpoints);
	buffer_printf(to, "besad_state_bytes{part=\"unfinished_outputs\"} %.17g\n", state->unfinished);
	if (state->limit < 0) return;
	describe(to, "besad_state_limit_bytes", "gauge", "What --max-state-bytes allows for them together.");
	buffer_printf(to, "besad_state_limit_bytes %.17g\n", state->limit);
}

void metrics_write(struct metrics *metrics, const int64_t jobs[JOB_STATES], struct buffer *to)
{
	pthread_mutex_lock(&metrics->lock);
	describe(to, "besad_build_info", "gauge", "1, with the version and the compute backend as labels.");
	buffer_printf(to, "besad_build_info{version=\"%s\",backend=\"%s\"} 1\n", BESAD_VERSION, metrics->backend);
	write_jobs(metrics, jobs, to);
	describe(to, "besad_http_requests_total", "counter", "HTTP requests answered, by route, method and status.");
	for (size_t i = 0; i < metrics->n_requests; i++)
		buffer_printf(to, "besad_http_requests_total{route=\"%s\",method=\"%s\",code=\"%u\"} %llu\n",
			      metrics->requests[i].route, metrics->requests[i].method, metrics->requests[i].status,
			      (unsigned long long)metrics->requests[i].count);
	describe(to, "besad_http_request_duration_seconds", "histogram", "Time from a request's headers to its answer.");
	write_histogram(to, "besad_http_request_duration_seconds", &metrics->request_seconds);
	describe(to, "besad_sse_clients", "gauge", "Open event streams.");
	buffer_printf(to, "besad_sse_clients %d\n", metrics->streams);
	write_state(&metrics->state, to);
	write_device(&metrics->device, to);
	pthread_mutex_unlock(&metrics->lock);
	write_process(to);
}
