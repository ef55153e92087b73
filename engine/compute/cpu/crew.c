#include "engine/compute/cpu/crew.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum {
	NANOSECONDS = 1000000000,
	SPINS = 20,                    /* between two looks at the clock */
	IDLE_NANOSECONDS = 60000,      /* that a helper spins until it sleeps: most operations follow each other faster */
	WAIT_NANOSECONDS = 15000,      /* that the lead waits for the last chunks until it asks who is at them */
	LOOK_NANOSECONDS = 15000,      /* in which a thread that has a core uses some of it */
	PATIENCE_NANOSECONDS = 500000, /* that the lead waits for those that run */
};
/* A range's word: the number of the call above, below the next chunk, or this while there is none yet. */
static const uint32_t NO_CHUNK = UINT32_MAX;

/* The chunks of a thread that are not taken yet; a line of the cache each. */
struct range {
	_Alignas(64) _Atomic uint64_t next;
};

struct helper {
	struct crew *crew;
	pthread_t thread;
	clockid_t clock; /* of the time it has had a core */
	int number;
	atomic_bool busy;
};

/* What is to be done is read by helpers while the lead may write the next: a chunk is theirs only if its range's word is still
 * what it was before they read, and the lead takes that away before it writes. */
struct crew {
	int threads;
	int home;                            /* the core that the lead was on and helpers keep off, or -1 */
	_Alignas(64) _Atomic uint32_t calls; /* crew_run's */
	_Atomic(crew_work *) work;
	_Atomic(const void *) context;
	_Atomic int64_t n, chunk, chunks;
	_Alignas(64) _Atomic int64_t done; /* chunks */
	atomic_int sleepers;
	atomic_bool lead_sleeps, stopping;
	pthread_mutex_t lock;
	pthread_cond_t called, finished;
	struct range *ranges;   /* [threads] */
	struct helper *helpers; /* [threads], without one for the lead, 0 */
};

struct task {
	crew_work *work;
	const void *context;
	struct share share;
};

static int64_t clock_now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (int64_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}

static void spin(void)
{
	for (int i = 0; i < SPINS; i++)
		__builtin_ia32_pause();
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------------ */

static struct share part(int64_t n, int64_t chunk, int64_t i, int thread)
{
	int64_t first = i * chunk;
	return (struct share){first, n - first < chunk ? n : first + chunk, thread};
}

static bool take_of(struct crew *crew, int range, int thread, struct task *ret)
{
	_Atomic uint64_t *next = &crew->ranges[range].next;
	uint64_t word = atomic_load(next);
	for (;;) {
		int64_t i = (uint32_t)word;
		if (i == NO_CHUNK) return false;
		ret->work = atomic_load(&crew->work);
		ret->context = atomic_load(&crew->context);
		int64_t n = atomic_load(&crew->n), chunk = atomic_load(&crew->chunk), chunks = atomic_load(&crew->chunks);
		if (i >= chunks * (range + 1) / crew->threads) return false;
		if (!atomic_compare_exchange_weak(next, &word, word + 1)) continue;
		ret->share = part(n, chunk, i, thread);
		return true;
	}
}

static bool take(struct crew *crew, int thread, struct task *ret)
{
	for (int i = 0; i < crew->threads; i++)
		if (take_of(crew, (thread + i) % crew->threads, thread, ret)) return true;
	return false;
}

static void offer(struct crew *crew, int64_t n, int64_t chunk, int64_t chunks, crew_work *work, const void *context)
{
	uint64_t call = (uint64_t)(atomic_load(&crew->calls) + 1) << 32;
	for (int i = 0; i < crew->threads; i++)
		atomic_store(&crew->ranges[i].next, call | NO_CHUNK);
	atomic_store(&crew->work, work);
	atomic_store(&crew->context, context);
	atomic_store(&crew->n, n);
	atomic_store(&crew->chunk, chunk);
	atomic_store(&crew->chunks, chunks);
	atomic_store(&crew->done, 0);
	for (int i = 0; i < crew->threads; i++)
		atomic_store(&crew->ranges[i].next, call | (uint64_t)(chunks * i / crew->threads));
	atomic_fetch_add(&crew->calls, 1);
	if (!atomic_load(&crew->sleepers)) return;
	pthread_mutex_lock(&crew->lock);
	pthread_cond_broadcast(&crew->called);
	pthread_mutex_unlock(&crew->lock);
}

/* ---- helpers ----------------------------------------------------------------------------------------------------------------- */

/* Until there is another call than `seen`. */
static void await_call(struct crew *crew, uint32_t seen, bool at_once)
{
	int64_t since = clock_now(CLOCK_MONOTONIC);
	while (!at_once && atomic_load(&crew->calls) == seen) {
		spin();
		at_once = clock_now(CLOCK_MONOTONIC) - since > IDLE_NANOSECONDS;
	}
	if (atomic_load(&crew->calls) != seen) return;
	pthread_mutex_lock(&crew->lock);
	atomic_fetch_add(&crew->sleepers, 1);
	while (atomic_load(&crew->calls) == seen && !atomic_load(&crew->stopping))
		pthread_cond_wait(&crew->called, &crew->lock);
	atomic_fetch_sub(&crew->sleepers, 1);
	pthread_mutex_unlock(&crew->lock);
}

/* True if the lead slept, whose core this may be. */
static bool finish_chunk(struct crew *crew)
{
	atomic_fetch_add(&crew->done, 1);
	if (!atomic_load(&crew->lead_sleeps)) return false;
	pthread_mutex_lock(&crew->lock);
	pthread_cond_signal(&crew->finished);
	pthread_mutex_unlock(&crew->lock);
	return true;
}

static void *help(void *context)
{
	struct helper *helper = context;
	struct crew *crew = helper->crew;
	uint32_t seen = 0;
	bool sleep_at_once = false;
	omp_set_num_threads(1);
	while (!atomic_load(&crew->stopping)) {
		struct task task;
		await_call(crew, seen, sleep_at_once);
		seen = atomic_load(&crew->calls);
		sleep_at_once = false;
		while (take(crew, helper->number, &task)) {
			atomic_store(&helper->busy, true);
			task.work(task.context, task.share);
			sleep_at_once = finish_chunk(crew);
			atomic_store(&helper->busy, false);
		}
	}
	return NULL;
}

/* ---- cores ------------------------------------------------------------------------------------------------------------------- */

/* Linux may wake a helper on the lead's core although all wait for the lead: where there are cores enough, helpers keep off it. */
static void keep_off(struct crew *crew)
{
	cpu_set_t cores;
	int home = sched_getcpu();
	if (home == crew->home || home < 0) return;
	crew->home = home;
	if (sched_getaffinity(0, sizeof cores, &cores)) return;
	if (CPU_COUNT(&cores) >= crew->threads) CPU_CLR(home, &cores);
	for (int i = 1; i < crew->threads; i++)
		pthread_setaffinity_np(crew->helpers[i].thread, sizeof cores, &cores);
}

/* A helper that holds a chunk and has no core. */
static struct helper *find_stuck(struct crew *crew)
{
	for (int i = 1; i < crew->threads; i++) {
		struct helper *helper = &crew->helpers[i];
		if (!atomic_load(&helper->busy)) continue;
		int64_t had = clock_now(helper->clock), since = clock_now(CLOCK_MONOTONIC);
		while (clock_now(CLOCK_MONOTONIC) - since < LOOK_NANOSECONDS)
			spin();
		if (clock_now(helper->clock) == had && atomic_load(&helper->busy)) return helper;
	}
	return NULL;
}

/* It may go on at once where the lead is, which is about to sleep. */
static void lend_core(struct crew *crew, const struct helper *helper)
{
	cpu_set_t core;
	int here = sched_getcpu();
	if (here < 0) return;
	CPU_ZERO(&core);
	CPU_SET(here, &core);
	pthread_setaffinity_np(helper->thread, sizeof core, &core);
	crew->home = -1; /* the next call sets it free */
}

/* Until one more chunk than `had` is done. */
static void sleep_for_chunk(struct crew *crew, int64_t had)
{
	pthread_mutex_lock(&crew->lock);
	atomic_store(&crew->lead_sleeps, true);
	while (atomic_load(&crew->done) == had)
		pthread_cond_wait(&crew->finished, &crew->lock);
	atomic_store(&crew->lead_sleeps, false);
	pthread_mutex_unlock(&crew->lock);
}

/* For the chunks that others hold. Another program may have taken the core of one of them, for milliseconds as a rule: it gets
 * this one. */
static void await_chunks(struct crew *crew, int64_t chunks)
{
	int64_t since = clock_now(CLOCK_MONOTONIC), done;
	while ((done = atomic_load(&crew->done)) < chunks) {
		int64_t waited = clock_now(CLOCK_MONOTONIC) - since;
		struct helper *stuck = waited < WAIT_NANOSECONDS ? NULL : find_stuck(crew);
		if (stuck) lend_core(crew, stuck);
		if (stuck || waited > PATIENCE_NANOSECONDS)
			sleep_for_chunk(crew, done);
		else
			spin();
	}
}

/* ---- the crew ---------------------------------------------------------------------------------------------------------------- */

/* Signals are for other threads. Helpers inherit the caller's niceness. */
static void start_helpers(struct crew *crew, int threads)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (crew->threads = 1; crew->threads < threads; crew->threads++) {
		struct helper *helper = &crew->helpers[crew->threads];
		helper->crew = crew;
		helper->number = crew->threads;
		if (pthread_create(&helper->thread, NULL, help, helper)) break;
		pthread_getcpuclockid(helper->thread, &helper->clock);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct crew *crew_create(int threads)
{
	struct crew *crew = aligned_alloc(_Alignof(struct crew), sizeof *crew);
	struct range *ranges = aligned_alloc(_Alignof(struct range), (size_t)threads * sizeof *ranges);
	struct helper *helpers = calloc((size_t)threads, sizeof *helpers);
	if (!crew || !ranges || !helpers) {
		free(crew);
		free(ranges);
		free(helpers);
		return NULL;
	}
	*crew = (struct crew){.home = -1,
			      .lock = PTHREAD_MUTEX_INITIALIZER,
			      .called = PTHREAD_COND_INITIALIZER,
			      .finished = PTHREAD_COND_INITIALIZER,
			      .ranges = ranges,
			      .helpers = helpers};
	for (int i = 0; i < threads; i++)
		atomic_init(&ranges[i].next, NO_CHUNK);
	start_helpers(crew, threads);
	return crew;
}

void crew_free(struct crew *crew)
{
	if (!crew) return;
	pthread_mutex_lock(&crew->lock);
	atomic_store(&crew->stopping, true);
	atomic_fetch_add(&crew->calls, 1);
	pthread_cond_broadcast(&crew->called);
	pthread_mutex_unlock(&crew->lock);
	for (int i = 1; i < crew->threads; i++)
		pthread_join(crew->helpers[i].thread, NULL);
	pthread_mutex_destroy(&crew->lock);
	pthread_cond_destroy(&crew->called);
	pthread_cond_destroy(&crew->finished);
	free(crew->ranges);
	free(crew->helpers);
	free(crew);
}

void crew_run(struct crew *crew, int64_t n, int64_t chunk, crew_work *work, const void *context)
{
	int64_t chunks = (n + chunk - 1) / chunk;
	int threads = omp_get_max_threads();
	struct task task;
	if (threads != 1) omp_set_num_threads(1);
	if (chunks <= 1 || crew->threads == 1) {
		for (int64_t i = 0; i < chunks; i++)
			work(context, part(n, chunk, i, 0));
	} else {
		keep_off(crew);
		offer(crew, n, chunk, chunks, work, context);
		while (take(crew, 0, &task)) {
			task.work(task.context, task.share);
			atomic_fetch_add(&crew->done, 1);
		}
		await_chunks(crew, chunks);
	}
	if (threads != 1) omp_set_num_threads(threads);
}
