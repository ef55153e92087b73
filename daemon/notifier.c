#include "daemon/notifier.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/http.h"
#include "base/clock.h"
#include "base/json.h"
#include "daemon/log.h"
#include "daemon/note.h"

enum {
	FIRST_DELAY = 5000, /* milliseconds; doubled after each failure */
	LONGEST_DELAY = 2 * 3600 * 1000,
	MOST_ATTEMPTS = 24, /* then about a day has passed */
	REQUEST_SECONDS = 10,
	PROGRAM_SECONDS = 60,
	TROUBLE_MILLISECONDS = 5000, /* before the database is tried again */
	COURIERS = 8,                /* that are under way at once, each to another receiver */
};

/* Delivers one notification, on a thread of its own. */
struct courier {
	struct notifier *notifier;
	pthread_t thread;
	struct notification notification;
	enum { COURIER_IDLE, COURIER_AWAY, COURIER_BACK } place; /* under the notifier's lock */
	enum status status;                                      /* what came of it, when it is back */
	struct error err;
};

struct notifier {
	const struct options *options;
	struct db *db;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool woken, stopping;
	atomic_bool stop;
	struct courier couriers[COURIERS];
};

/* *ret: {"event", "job"} of a job that has ended, freed by the caller; NULL where there is none, or where it runs again. */
static enum status body_of(struct notifier *notifier, const char *job_id, char **ret, enum job_state *ret_state, struct error *err)
{
	struct job job;
	char event[32];
	*ret = NULL;
	enum status status = db_job_get(notifier->db, job_id, &job, err);
	if (status) return status == STATUS_NOT_FOUND ? STATUS_OK : status;
	*ret_state = job.state;
	if (job_state_is_final(job.state)) {
		snprintf(event, sizeof event, "job.%s", job_state_name(job.state));
		json_begin();
		cJSON *body = cJSON_CreateObject();
		cJSON_AddStringToObject(body, "event", event);
		cJSON_AddItemToObject(body, "job", job_json(&job));
		*ret = json_ran_out() ? NULL : cJSON_PrintUnformatted(body);
		cJSON_Delete(body);
		if (!*ret) status = error_set(err, STATUS_NO_MEMORY, "no memory to tell of job %s", job_id);
	}
	job_clear(&job);
	return status;
}

/* ---- the web address ------------------------------------------------------------------------------------------------------ */

static size_t ignore(char *data, size_t size, size_t count, void *context)
{
	(void)data;
	(void)context;
	return size * count;
}

static int check_stop(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return atomic_load(&((struct notifier *)context)->stop);
}

/* "X-Besad-Signature: sha256=" and the HMAC of the body. */
static bool sign(const char *key, const char *body, char header[128])
{
	unsigned char digest[32];
	int length = snprintf(header, 128, "X-Besad-Signature: sha256=");
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, strlen(key), body, strlen(body), digest)) return false;
	for (size_t i = 0; i < sizeof digest; i++)
		length += snprintf(header + length, 128 - (size_t)length, "%02x", digest[i]);
	return true;
}

static struct curl_slist *headers_of(const struct notifier *notifier, const char *job_id, const char *body)
{
	char delivery[64], signature[128];
	const char *lines[] = {"Content-Type: application/json", "Expect:", delivery, signature};
	size_t n = notifier->options->notify_key ? 4 : 3;
	struct curl_slist *list = NULL;
	snprintf(delivery, sizeof delivery, "X-Besad-Delivery: %s", job_id);
	if (n == 4 && !sign(notifier->options->notify_key, body, signature)) return NULL;
	for (size_t i = 0; i < n; i++) {
		struct curl_slist *longer = curl_slist_append(list, lines[i]);
		if (!longer) {
			curl_slist_free_all(list);
			return NULL;
		}
		list = longer;
	}
	return list;
}

/* True for an answer of 2xx; else `why` says what came instead. */
static bool send_one(struct notifier *notifier, const struct notification *notification, const char *body, char why[256])
{
	long status = 0;
	CURL *curl = curl_easy_init();
	struct curl_slist *headers = headers_of(notifier, notification->job_id, body);
	CURLcode code = CURLE_OUT_OF_MEMORY;
	if (curl && headers) {
		curl_easy_setopt(curl, CURLOPT_URL, notification->url);
		curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
		curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L); /* to a host that nobody allowed */
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
		curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)REQUEST_SECONDS);
		curl_easy_setopt(curl, CURLOPT_USERAGENT, "besad/" BESAD_VERSION);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
		curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, check_stop);
		curl_easy_setopt(curl, CURLOPT_XFERINFODATA, notifier);
		code = curl_easy_perform(curl);
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	}
	if (code)
		snprintf(why, 256, "%s", curl_easy_strerror(code));
	else
		snprintf(why, 256, "it answered %ld", status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	return code == CURLE_OK && status >= 200 && status < 300;
}

/* What came of telling one. */
enum outcome { TOLD, NOT_TOLD, BROKEN_OFF };

/* ---- the operator's program ------------------------------------------------------------------------------------------------ */

/* The job as a file without a name, at its beginning; -1 on failure. */
static int input_file(const char *body)
{
	size_t length = strlen(body);
	int fd = memfd_create("job", MFD_CLOEXEC);
	if (fd < 0) return -1;
	if (write(fd, body, length) == (ssize_t)length && lseek(fd, 0, SEEK_SET) == 0) return fd;
	close(fd);
	return -1;
}

/* Waits for the program to end, and kills it when its time is over or besad stops. */
static int await(struct notifier *notifier, pid_t pid)
{
	const struct timespec pause = {.tv_nsec = 50000000};
	int status = 0;
	for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0; waited += 50) {
		if (waited >= PROGRAM_SECONDS * 1000 || atomic_load(&notifier->stop)) kill(pid, SIGKILL);
		nanosleep(&pause, NULL);
	}
	return status;
}

/* BROKEN_OFF where besad stopped meanwhile: it is run again then. How it ends is its own affair. */
static enum outcome run_program(struct notifier *notifier, const char *job_id, enum job_state state, const char *body,
				char why[256])
{
	extern char **environ;
	char *program = notifier->options->on_finish, id[JOB_ID_BYTES], state_name[16];
	int input = input_file(body);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	pid_t pid;
	snprintf(why, 256, "%s", "no memory");
	if (input < 0) return NOT_TOLD;
	snprintf(id, sizeof id, "%s", job_id);
	snprintf(state_name, sizeof state_name, "%s", job_state_name(state));
	char *arguments[] = {program, id, state_name, NULL};
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all); /* besad ignores some, and what is ignored stays so */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	int failed = posix_spawn(&pid, program, &actions, &attributes, arguments, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(input);
	if (failed) {
		snprintf(why, 256, "it cannot be run: %s", strerror(failed));
		return NOT_TOLD;
	}
	int status = await(notifier, pid);
	if (!WIFEXITED(status) && atomic_load(&notifier->stop)) return BROKEN_OFF;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		log_warning("job=%s %s ended with %s %d", job_id, program, WIFEXITED(status) ? "status" : "signal",
			    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return TOLD;
}

/* ---- both ---------------------------------------------------------------------------------------------------------------- */

static int64_t delay_after(int attempts)
{
	int64_t delay = FIRST_DELAY;
	for (int i = 0; i < attempts && delay < LONGEST_DELAY; i++)
		delay *= 2;
	return delay < LONGEST_DELAY ? delay : LONGEST_DELAY;
}

/* The job's own log first: whoever reads the daemon's finds there what this one speaks of. */
static enum status settle(struct notifier *notifier, const struct notification *notification, enum outcome outcome, const char *why,
			  struct error *err)
{
	const char *whom = *notification->url ? notification->url : notifier->options->on_finish;
	const char *shown = *notification->url ? notification->url : "the operator's program"; /* whose path is not for clients */
	if (outcome == BROKEN_OFF) return STATUS_OK;
	if (outcome == TOLD) {
		note_of_job(notifier->db, notification->job_id, LOG_LEVEL_INFO, "told %s of the end", shown);
		log_info("job=%s told %s", notification->job_id, whom);
		return db_notification_done(notifier->db, notification, err);
	}
	if (notification->attempts + 1 >= MOST_ATTEMPTS) {
		note_of_job(notifier->db, notification->job_id, LOG_LEVEL_ERROR,
			    "%s could not be told of the end, and is given up: %s", shown, why);
		log_error("job=%s %s could not be told, and is given up: %s", notification->job_id, whom, why);
		return db_notification_done(notifier->db, notification, err);
	}
	int64_t delay = delay_after(notification->attempts);
	note_of_job(notifier->db, notification->job_id, LOG_LEVEL_WARNING, "%s could not be told of the end, again in %lld s: %s",
		    shown, (long long)delay / 1000, why);
	log_warning("job=%s %s could not be told, again in %lld s: %s", notification->job_id, whom, (long long)delay / 1000, why);
	return db_notification_delay(notifier->db, notification, unix_milliseconds() + delay, err);
}

static enum status deliver(struct notifier *notifier, const struct notification *notification, struct error *err)
{
	enum job_state state;
	char why[256];
	bool program = !*notification->url;
	char *body = NULL;
	if (!program || notifier->options->on_finish) TRY(body_of(notifier, notification->job_id, &body, &state, err));
	if (!body) return db_notification_done(notifier->db, notification, err);
	enum outcome outcome = program ? run_program(notifier, notification->job_id, state, body, why)
			       : send_one(notifier, notification, body, why) ? TOLD
			       : atomic_load(&notifier->stop)                ? BROKEN_OFF
									     : NOT_TOLD;
	free(body);
	return settle(notifier, notification, outcome, why, err);
}

/* ---- couriers ------------------------------------------------------------------------------------------------------------ */

static void wake(struct notifier *notifier)
{
	pthread_mutex_lock(&notifier->lock);
	notifier->woken = true;
	pthread_cond_signal(&notifier->changed);
	pthread_mutex_unlock(&notifier->lock);
}

static void *carry(void *context)
{
	struct courier *courier = context;
	struct notifier *notifier = courier->notifier;
	courier->status = deliver(notifier, &courier->notification, &courier->err);
	pthread_mutex_lock(&notifier->lock);
	courier->place = COURIER_BACK;
	pthread_mutex_unlock(&notifier->lock);
	wake(notifier);
	return NULL;
}

static bool is_at(struct courier *courier, int place)
{
	pthread_mutex_lock(&courier->notifier->lock);
	bool is = (int)courier->place == place;
	pthread_mutex_unlock(&courier->notifier->lock);
	return is;
}

/* Of an address the part that says who answers: scheme, host and port. The operator's program, "", is a receiver too. */
static size_t receiver_length(const char *url)
{
	const char *host = strstr(url, "://");
	return host ? (size_t)(host + 3 - url) + strcspn(host + 3, "/?#") : strlen(url);
}

/* Is somebody under way to the same receiver? It gets one after the other, so that one that does not answer takes one courier
 * alone. */
static bool is_served(void *context, const char *url)
{
	struct notifier *notifier = context;
	size_t length = receiver_length(url);
	for (int i = 0; i < COURIERS; i++) {
		struct courier *courier = &notifier->couriers[i];
		if (is_at(courier, COURIER_IDLE)) continue;
		const char *other = courier->notification.url;
		if (receiver_length(other) == length && strncasecmp(other, url, length) == 0) return true;
	}
	return false;
}

/* Takes back those that are done; the first failure to note what came of it is told. */
static enum status take_back(struct notifier *notifier, struct error *err)
{
	enum status status = STATUS_OK;
	for (int i = 0; i < COURIERS; i++) {
		struct courier *courier = &notifier->couriers[i];
		if (!is_at(courier, COURIER_BACK)) continue;
		pthread_join(courier->thread, NULL);
		notification_clear(&courier->notification);
		courier->place = COURIER_IDLE;
		if (status || !courier->status) continue;
		status = courier->status;
		*err = courier->err;
	}
	return status;
}

static struct courier *idle_courier(struct notifier *notifier)
{
	for (int i = 0; i < COURIERS; i++)
		if (is_at(&notifier->couriers[i], COURIER_IDLE)) return &notifier->couriers[i];
	return NULL;
}

/* Takes the notification. */
static enum status send_out(struct courier *courier, struct notification *notification, struct error *err)
{
	courier->notification = *notification;
	courier->place = COURIER_AWAY; /* nobody else looks at one that is idle */
	if (pthread_create(&courier->thread, NULL, carry, courier) == 0) return STATUS_OK;
	notification_clear(&courier->notification);
	courier->place = COURIER_IDLE;
	return error_set(err, STATUS_NO_MEMORY, "cannot start a thread to deliver one");
}

/* Sends out what is due, as far as there are couriers; *ret_next is when the next one is due, 0 where none is before somebody
 * comes back. */
static enum status deliver_due(struct notifier *notifier, int64_t *ret_next, struct error *err)
{
	*ret_next = 0;
	TRY(take_back(notifier, err));
	while (!atomic_load(&notifier->stop)) {
		struct courier *courier = idle_courier(notifier);
		struct notification notification;
		bool found;
		if (!courier) return STATUS_OK;
		TRY(db_notification_next(notifier->db, is_served, notifier, &found, &notification, err));
		if (!found) return STATUS_OK;
		if (notification.due_at > unix_milliseconds()) {
			*ret_next = notification.due_at;
			notification_clear(&notification);
			return STATUS_OK;
		}
		TRY(send_out(courier, &notification, err));
	}
	return STATUS_OK;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------ */

/* Until `until`, in milliseconds of the epoch, 0 for ever, or until there is news. False when besad stops. */
static bool wait_for_news(struct notifier *notifier, int64_t until)
{
	const struct timespec time = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
	pthread_mutex_lock(&notifier->lock);
	while (!notifier->woken && !notifier->stopping)
		if (!until)
			pthread_cond_wait(&notifier->changed, &notifier->lock);
		else if (pthread_cond_timedwait(&notifier->changed, &notifier->lock, &time) == ETIMEDOUT)
			break;
	notifier->woken = false;
	bool goes_on = !notifier->stopping;
	pthread_mutex_unlock(&notifier->lock);
	return goes_on;
}

static void *work(void *context)
{
	struct notifier *notifier = context;
	int64_t next;
	do {
		struct error err;
		if (deliver_due(notifier, &next, &err)) {
			log_error("notifications wait: %s", err.message);
			next = unix_milliseconds() + TROUBLE_MILLISECONDS;
		}
	} while (wait_for_news(notifier, next));
	for (int i = 0; i < COURIERS; i++)
		if (!is_at(&notifier->couriers[i], COURIER_IDLE)) {
			pthread_join(notifier->couriers[i].thread, NULL);
			notification_clear(&notifier->couriers[i].notification);
		}
	return NULL;
}

enum status notifier_start(const struct options *options, struct db *db, struct notifier **ret, struct error *err)
{
	struct notifier *notifier = calloc(1, sizeof *notifier);
	if (!notifier) return error_set(err, STATUS_NO_MEMORY, "no memory for the notifier");
	notifier->options = options;
	notifier->db = db;
	pthread_mutex_init(&notifier->lock, NULL);
	pthread_cond_init(&notifier->changed, NULL);
	for (int i = 0; i < COURIERS; i++)
		notifier->couriers[i].notifier = notifier;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	if (pthread_create(&notifier->thread, NULL, work, notifier) != 0) {
		free(notifier);
		return error_set(err, STATUS_NO_MEMORY, "cannot start the notifier's thread");
	}
	*ret = notifier;
	return STATUS_OK;
}

void notifier_job_ended(struct notifier *notifier)
{
	wake(notifier);
}

void notifier_stop(struct notifier *notifier)
{
	if (!notifier) return;
	atomic_store(&notifier->stop, true);
	pthread_mutex_lock(&notifier->lock);
	notifier->stopping = true;
	pthread_cond_signal(&notifier->changed);
	pthread_mutex_unlock(&notifier->lock);
	pthread_join(notifier->thread, NULL);
	pthread_cond_destroy(&notifier->changed);
	pthread_mutex_destroy(&notifier->lock);
	curl_global_cleanup();
	free(notifier);
}
