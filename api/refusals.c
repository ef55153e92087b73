#include "api/refusals.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum {
	SLOTS = 256,          /* kinds of refusals that are kept in mind; of more the one that was longest ago goes */
	FREE_TRIES = 3,       /* wrong tokens that are answered at once */
	FORGET_SECONDS = 600, /* without another one, and they are again */
	WRITE_SECONDS = 10,   /* between two notes of refusals that are alike */
	HELD_MOST = 64,       /* answers that wait at once: each has a connection */
	ADDRESS_BYTES = INET6_ADDRSTRLEN,
};

static const double first_delay = 0.25, longest_delay = 5; /* seconds */
static const double write_apart = 0.1;                     /* seconds between any two notes: each is a synced transaction */

/* Refusals that are alike: from one network, of one token's holder, for one reason. */
struct slot {
	char network[ADDRESS_BYTES], peer[ADDRESS_BYTES], who[TOKEN_NAME_BYTES];
	const char *problem;
	char action[96];
	int tries;            /* of wrong tokens in a row, as far as they count */
	double last, written; /* monotonic seconds */
	int64_t unwritten;
};

struct refusals {
	struct db *db;
	struct api_hooks hooks;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct slot slots[SLOTS];
	size_t n;
	struct held *held;
	int n_held;
	double written; /* when the last note was; monotonic seconds */
	bool stopping;
};

/* Of IPv6 the half that names a network: whoever has one address of it has all. */
static void network_of(const char *peer, char ret[ADDRESS_BYTES])
{
	struct in6_addr address;
	snprintf(ret, ADDRESS_BYTES, "%s", peer);
	if (inet_pton(AF_INET6, peer, &address) != 1) return;
	memset(address.s6_addr + 8, 0, 8);
	inet_ntop(AF_INET6, &address, ret, ADDRESS_BYTES);
}

/* ---- noting; under the lock ------------------------------------------------------------------------------------------------ */

static struct slot *slot_for(struct refusals *refusals, const char *network, const char *who, const char *problem)
{
	struct slot *oldest = &refusals->slots[0];
	for (size_t i = 0; i < refusals->n; i++) {
		struct slot *slot = &refusals->slots[i];
		if (strcmp(slot->network, network) == 0 && strcmp(slot->who, who) == 0 && strcmp(slot->problem, problem) == 0)
			return slot;
		if (slot->last < oldest->last) oldest = slot;
	}
	struct slot *slot = refusals->n < SLOTS ? &refusals->slots[refusals->n++] : oldest;
	*slot = (struct slot){.problem = problem};
	strcpy(slot->network, network);
	strcpy(slot->who, who);
	return slot;
}

static double delay_after(int tries)
{
	double delay = first_delay;
	if (tries <= FREE_TRIES) return 0;
	for (int i = FREE_TRIES + 1; i < tries && delay < longest_delay; i++)
		delay *= 2;
	return delay < longest_delay ? delay : longest_delay;
}

double refusals_note(struct refusals *refusals, const struct request *request, const char *problem)
{
	char network[ADDRESS_BYTES];
	const char *peer = request->peer ? request->peer : "";
	const struct route *route = request->route;
	double now = monotonic_seconds(), delay = 0;
	network_of(peer, network);
	pthread_mutex_lock(&refusals->lock);
	struct slot *slot = slot_for(refusals, network, request->holder.name, problem);
	snprintf(slot->peer, sizeof slot->peer, "%s", peer);
	if (route && route->action)
		snprintf(slot->action, sizeof slot->action, "%s", route->action);
	else
		snprintf(slot->action, sizeof slot->action, "%s %s", route ? route->method : "other", route ? route->path : "none");
	if (now - slot->last > FORGET_SECONDS) slot->tries = 0;
	slot->last = now;
	if (!refusals->stopping) slot->unwritten++; /* what comes then would be written for ever */
	if (!request->holder.role) {                /* it is nobody's token */
		if (slot->tries < 100) slot->tries++;
		delay = delay_after(slot->tries);
	}
	pthread_cond_signal(&refusals->changed);
	pthread_mutex_unlock(&refusals->lock);
	return delay;
}

void refusals_hold(struct refusals *refusals, struct held *held, double seconds)
{
	pthread_mutex_lock(&refusals->lock);
	bool hold = !refusals->stopping && refusals->n_held < HELD_MOST;
	if (hold) {
		refusals->n_held++;
		held->due = monotonic_seconds() + seconds;
		held->next = refusals->held;
		refusals->held = held;
		pthread_cond_signal(&refusals->changed);
	}
	pthread_mutex_unlock(&refusals->lock);
	if (!hold) held->release(held);
}

/* ---- the thread; under the lock where nothing else is said ------------------------------------------------------------------ */

/* Without the lock: it waits for a disk. */
static void write_note(const struct refusals *refusals, const struct slot *slot)
{
	struct error ignored; /* on a full disk the log has it */
	const struct actor actor = {
		.who = slot->who[0] ? slot->who : NULL, .peer = slot->peer[0] ? slot->peer : NULL, .action = slot->action};
	db_audit_note(refusals->db, &actor, NULL, slot->problem, slot->unwritten, true, &ignored);
	if (!refusals->hooks.refused) return;
	char text[320];
	snprintf(text, sizeof text, "refused: %s, %s%s%sfrom %s, %lld request%s, the last was %s", slot->problem,
		 slot->who[0] ? "of '" : "", slot->who, slot->who[0] ? "' " : "", slot->peer, (long long)slot->unwritten,
		 slot->unwritten == 1 ? "" : "s", slot->action);
	refusals->hooks.refused(refusals->hooks.context, text);
}

/* Writes one note that is due; false where none is. */
static bool write_one(struct refusals *refusals)
{
	double now = monotonic_seconds();
	if (!refusals->stopping && now - refusals->written < write_apart) return false;
	for (size_t i = 0; i < refusals->n; i++) {
		struct slot *slot = &refusals->slots[i];
		bool due = refusals->stopping || !slot->written || now - slot->written >= WRITE_SECONDS;
		if (!slot->unwritten || !due) continue;
		struct slot copy = *slot;
		slot->unwritten = 0;
		slot->written = refusals->written = now;
		pthread_mutex_unlock(&refusals->lock);
		write_note(refusals, &copy);
		pthread_mutex_lock(&refusals->lock);
		return true;
	}
	return false;
}

/* Releases what is due, and returns for how long there is nothing to do then, at most a second. */
static double release_due(struct refusals *refusals)
{
	double now = monotonic_seconds(), rest = 1;
	for (struct held **at = &refusals->held; *at;) {
		struct held *held = *at;
		if (refusals->stopping || held->due <= now) {
			*at = held->next;
			refusals->n_held--;
			held->release(held); /* it may be gone now */
		} else {
			if (held->due - now < rest) rest = held->due - now;
			at = &held->next;
		}
	}
	return rest;
}

/* By less than a second. */
static struct timespec later(struct timespec time, double seconds)
{
	const long second = 1000000000;
	time.tv_nsec += (long)(seconds * 1e9) + 1000000;
	if (time.tv_nsec >= second) {
		time.tv_nsec -= second;
		time.tv_sec++;
	}
	return time;
}

static void *run(void *context)
{
	struct refusals *refusals = context;
	pthread_mutex_lock(&refusals->lock);
	for (;;) {
		bool stopping = refusals->stopping;
		double rest = release_due(refusals);
		if (write_one(refusals)) continue;
		if (stopping) break;
		struct timespec until = monotonic_after(rest < 1 ? 0 : 1);
		if (rest < 1) until = later(until, rest);
		if (!refusals->stopping) pthread_cond_timedwait(&refusals->changed, &refusals->lock, &until);
	}
	pthread_mutex_unlock(&refusals->lock);
	return NULL;
}

enum status refusals_create(struct db *db, const struct api_hooks *hooks, struct refusals **ret, struct error *err)
{
	struct refusals *refusals = calloc(1, sizeof *refusals);
	if (!refusals) return error_set(err, STATUS_NO_MEMORY, "no memory for what is refused");
	refusals->db = db;
	refusals->hooks = *hooks;
	pthread_mutex_init(&refusals->lock, NULL);
	monotonic_condition(&refusals->changed);
	if (pthread_create(&refusals->thread, NULL, run, refusals) != 0) {
		refusals_free(refusals);
		return error_set(err, STATUS_NO_MEMORY, "cannot start the thread of what is refused");
	}
	*ret = refusals;
	return STATUS_OK;
}

void refusals_stop(struct refusals *refusals)
{
	pthread_mutex_lock(&refusals->lock);
	refusals->stopping = true;
	pthread_cond_signal(&refusals->changed);
	pthread_mutex_unlock(&refusals->lock);
	pthread_join(refusals->thread, NULL);
}

void refusals_free(struct refusals *refusals)
{
	if (!refusals) return;
	pthread_cond_destroy(&refusals->changed);
	pthread_mutex_destroy(&refusals->lock);
	free(refusals);
}
