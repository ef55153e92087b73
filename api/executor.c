#include "api/executor.h"

#include <pthread.h>
#include <stdlib.h>

enum { MAX_THREADS = 8 };

struct executor {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct task *first, **last;
	bool stopping;
	int n_threads;
	pthread_t threads[MAX_THREADS];
};

static void *work(void *context)
{
	struct executor *executor = context;
	pthread_mutex_lock(&executor->lock);
	for (;;) {
		while (!executor->first && !executor->stopping)
			pthread_cond_wait(&executor->changed, &executor->lock);
		struct task *task = executor->first;
		if (!task) break;
		executor->first = task->next;
		if (!executor->first) executor->last = &executor->first;
		pthread_mutex_unlock(&executor->lock);
		task->run(task);
		pthread_mutex_lock(&executor->lock);
	}
	pthread_mutex_unlock(&executor->lock);
	return NULL;
}

enum status executor_create(int threads, struct executor **ret, struct error *err)
{
	struct executor *executor = calloc(1, sizeof *executor);
	if (!executor) return error_set(err, STATUS_NO_MEMORY, "no memory for the request threads");
	pthread_mutex_init(&executor->lock, NULL);
	pthread_cond_init(&executor->changed, NULL);
	executor->last = &executor->first;
	while (executor->n_threads < threads && executor->n_threads < MAX_THREADS) {
		if (pthread_create(&executor->threads[executor->n_threads], NULL, work, executor) != 0) {
			executor_stop(executor);
			executor_free(executor);
			return error_set(err, STATUS_NO_MEMORY, "cannot start the request threads");
		}
		executor->n_threads++;
	}
	*ret = executor;
	return STATUS_OK;
}

bool executor_push(struct executor *executor, struct task *task)
{
	pthread_mutex_lock(&executor->lock);
	bool open = !executor->stopping;
	if (open) {
		task->next = NULL;
		*executor->last = task;
		executor->last = &task->next;
		pthread_cond_signal(&executor->changed);
	}
	pthread_mutex_unlock(&executor->lock);
	return open;
}

void executor_stop(struct executor *executor)
{
	pthread_mutex_lock(&executor->lock);
	executor->stopping = true;
	pthread_cond_broadcast(&executor->changed);
	pthread_mutex_unlock(&executor->lock);
	for (int i = 0; i < executor->n_threads; i++)
		pthread_join(executor->threads[i], NULL);
	executor->n_threads = 0;
}

void executor_free(struct executor *executor)
{
	if (!executor) return;
	pthread_cond_destroy(&executor->changed);
	pthread_mutex_destroy(&executor->lock);
	free(executor);
}
