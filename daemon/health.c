#include "daemon/health.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "daemon/log.h"

enum {
	BALLAST_BYTES = 16 << 20, /* the database's journal, and some hundred transactions */
	STALE_SECONDS = 30,       /* a look that takes longer says itself that something hangs */
};

struct health {
	const struct options *options;
	struct db *db;
	pthread_t thread;
	pthread_mutex_t lock; /* held for moments only */
	pthread_cond_t changed;
	bool started, stopping;
	double looked;        /* when the last look ended, in monotonic seconds */
	struct error trouble; /* why besad is not ready; STATUS_OK: it is */
	struct error room;    /* why no job is accepted */
	struct error queue;   /* see health_set_queue */
	atomic_bool low, spent;
};

/* ---- the ballast --------------------------------------------------------------------------------------------------------- */

static bool ballast_path(const char *state_dir, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/ballast", state_dir) < PATH_MAX;
}

bool ballast_release(const char *state_dir)
{
	char path[PATH_MAX];
	return ballast_path(state_dir, path) && unlink(path) == 0;
}

static bool release(void *context)
{
	struct health *health = context;
	if (!ballast_release(health->options->state_dir)) return false;
	atomic_store(&health->spent, true);
	log_warning("the disk of the state directory is full: the ballast is given up, and made again when there is room");
	return true;
}

static void make_ballast(struct health *health)
{
	char path[PATH_MAX];
	struct file file;
	struct error err;
	if (!ballast_path(health->options->state_dir, path)) return;
	if (!path_exists(path)) {
		if (file_create(path, BALLAST_BYTES, &file, &err)) {
			unlink(path);
			atomic_store(&health->spent, true);
			return;
		}
		file_close(&file);
	}
	atomic_store(&health->spent, false);
}

/* ---- one look ------------------------------------------------------------------------------------------------------------ */

/* The first reason counts. */
static void note(struct error *to, enum status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void note(struct error *to, enum status status, const char *format, ...)
{
	if (to->status) return;
	va_list args;
	va_start(args, format);
	vsnprintf(to->message, sizeof to->message, format, args);
	va_end(args);
	to->status = status;
}

/* Names no path: clients are told. */
static void look_at_directory(const char *path, const char *what, int64_t min_free, struct error *trouble, struct error *room)
{
	struct statvfs info;
	if (access(path, R_OK | W_OK | X_OK) != 0)
		note(trouble, STATUS_IO, "the %s cannot be written to: %s", what, strerror(errno));
	if (statvfs(path, &info) != 0) {
		note(trouble, STATUS_IO, "the %s: %s", what, strerror(errno));
		return;
	}
	double free = (double)info.f_bavail * (double)info.f_frsize;
	if (free >= (double)min_free) return;
	note(room, STATUS_NO_SPACE, "%.0f MiB are free for the %s, and %lld MiB are to stay so (--min-free)", free / (1 << 20),
	     what, (long long)(min_free >> 20));
}

static void look_at_database(struct db *db, struct error *trouble)
{
	struct error err;
	if (db_check(db, &err)) note(trouble, err.status, "%s", err.message);
	if (db_trouble(db) && db_probe(db, &err)) note(trouble, err.status, "the database cannot be written: %s", err.message);
}

static void look(struct health *health)
{
	const struct options *options = health->options;
	struct error trouble = {0}, room = {0};
	look_at_directory(options->state_dir, "state directory", options->min_free, &trouble, &room);
	bool low = room.status != STATUS_OK;
	if (atomic_exchange(&health->low, low) != low)
		log_warning("%s", low ? room.message : "there is room again for the state directory");
	look_at_directory(options->roots.output, "output root", options->min_free, &trouble, &room);
	if (!low) make_ballast(health);
	look_at_database(health->db, &trouble);
	pthread_mutex_lock(&health->lock);
	health->trouble = trouble.status ? trouble : room;
	health->room = room;
	health->looked = monotonic_seconds();
	pthread_mutex_unlock(&health->lock);
}

static void *work(void *context)
{
	struct health *health = context;
	pthread_mutex_lock(&health->lock);
	while (!health->stopping) {
		const struct timespec until = monotonic_after(1);
		pthread_cond_timedwait(&health->changed, &health->lock, &until);
		if (health->stopping) break;
		pthread_mutex_unlock(&health->lock);
		look(health);
		pthread_mutex_lock(&health->lock);
	}
	pthread_mutex_unlock(&health->lock);
	return NULL;
}

/* ---- what is asked ------------------------------------------------------------------------------------------------------- */

static enum status copy(const struct error *from, struct error *err)
{
	return from->status ? error_set(err, from->status, "%s", from->message) : STATUS_OK;
}

enum status health_check(struct health *health, struct error *err)
{
	pthread_mutex_lock(&health->lock);
	double age = monotonic_seconds() - health->looked;
	enum status status = copy(health->queue.status ? &health->queue : &health->trouble, err);
	pthread_mutex_unlock(&health->lock);
	if (status || age < STALE_SECONDS) return status;
	return error_set(err, STATUS_IO, "the database, or a disk, has not answered for %.0f s", age);
}

enum status health_accepts(struct health *health, struct error *err)
{
	pthread_mutex_lock(&health->lock);
	enum status status = copy(health->queue.status ? &health->queue : &health->room, err);
	pthread_mutex_unlock(&health->lock);
	return status;
}

bool health_is_low(struct health *health)
{
	return atomic_load(&health->low);
}

bool health_is_spent(struct health *health)
{
	return atomic_load(&health->spent);
}

void health_set_queue(struct health *health, const struct error *error)
{
	pthread_mutex_lock(&health->lock);
	health->queue = error ? *error : (struct error){0};
	pthread_mutex_unlock(&health->lock);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

enum status health_start(const struct options *options, struct db *db, struct health **ret, struct error *err)
{
	struct health *health = calloc(1, sizeof *health);
	if (!health) return error_set(err, STATUS_NO_MEMORY, "no memory for the watch over disks");
	health->options = options;
	health->db = db;
	pthread_mutex_init(&health->lock, NULL);
	monotonic_condition(&health->changed);
	db_set_relief(db, release, health);
	look(health);
	if (pthread_create(&health->thread, NULL, work, health) != 0) {
		health_free(health);
		return error_set(err, STATUS_NO_MEMORY, "cannot start the thread that watches over disks");
	}
	health->started = true;
	*ret = health;
	return STATUS_OK;
}

void health_stop(struct health *health)
{
	if (!health || !health->started) return;
	pthread_mutex_lock(&health->lock);
	health->stopping = true;
	pthread_cond_signal(&health->changed);
	pthread_mutex_unlock(&health->lock);
	pthread_join(health->thread, NULL);
	health->started = false;
}

void health_free(struct health *health)
{
	if (!health) return;
	health_stop(health);
	db_set_relief(health->db, NULL, NULL);
	pthread_cond_destroy(&health->changed);
	pthread_mutex_destroy(&health->lock);
	free(health);
}
