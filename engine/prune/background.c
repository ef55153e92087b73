#include "engine/prune/background.h"

#include <pthread.h>
#include <stdlib.h>

enum { STAGES = 2 };

struct background {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool quit;
	int over; /* stages that are; STAGES where nothing runs */
	background_fn stages[STAGES];
	void *context;
	enum status status[STAGES];
	struct error errors[STAGES];
};

static void *run(void *argument)
{
	struct background *b = argument;
	pthread_mutex_lock(&b->mutex);
	while (!b->quit || b->over < STAGES) {
		if (b->over == STAGES) {
			pthread_cond_wait(&b->changed, &b->mutex);
			continue;
		}
		int stage = b->over;
		background_fn fn = b->stages[stage];
		struct error err = {0};
		pthread_mutex_unlock(&b->mutex);
		enum status status = fn ? fn(b->context, &err) : STATUS_OK;
		pthread_mutex_lock(&b->mutex);
		b->status[stage] = status;
		b->errors[stage] = err;
		b->over++;
		pthread_cond_broadcast(&b->changed);
	}
	pthread_mutex_unlock(&b->mutex);
	return NULL;
}

enum status background_create(struct background **ret, struct error *err)
{
	struct background *b = calloc(1, sizeof *b);
	if (!b) return error_set(err, STATUS_NO_MEMORY, "no memory for a thread");
	b->over = STAGES;
	pthread_mutex_init(&b->mutex, NULL);
	pthread_cond_init(&b->changed, NULL);
	if (pthread_create(&b->thread, NULL, run, b)) {
		pthread_mutex_destroy(&b->mutex);
		pthread_cond_destroy(&b->changed);
		free(b);
		return error_set(err, STATUS_NO_MEMORY, "a thread cannot be started");
	}
	*ret = b;
	return STATUS_OK;
}

void background_destroy(struct background *b)
{
	if (!b) return;
	pthread_mutex_lock(&b->mutex);
	b->quit = true;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->mutex);
	pthread_join(b->thread, NULL);
	pthread_mutex_destroy(&b->mutex);
	pthread_cond_destroy(&b->changed);
	free(b);
}

void background_start(struct background *b, background_fn first, background_fn second, void *context)
{
	pthread_mutex_lock(&b->mutex);
	b->stages[0] = first;
	b->stages[1] = second;
	b->context = context;
	b->over = 0;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->mutex);
}

bool background_first_over(struct background *b)
{
	pthread_mutex_lock(&b->mutex);
	bool over = b->over > 0;
	pthread_mutex_unlock(&b->mutex);
	return over;
}

static enum status wait_for(struct background *b, int stage, struct error *err)
{
	pthread_mutex_lock(&b->mutex);
	while (b->over <= stage)
		pthread_cond_wait(&b->changed, &b->mutex);
	enum status status = b->status[stage];
	if (status != STATUS_OK) *err = b->errors[stage];
	pthread_mutex_unlock(&b->mutex);
	return status;
}

enum status background_wait_first(struct background *b, struct error *err)
{
	return wait_for(b, 0, err);
}

enum status background_wait_second(struct background *b, struct error *err)
{
	return wait_for(b, 1, err);
}
