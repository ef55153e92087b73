/* The fault drill: an access to no memory, what the backend makes of it, and whether the next process can use the device. Prints
 * one JSON object; the exit status is 0 where all went as it must. Usage: cuda_fault */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/compute/backend.h"

/* Whether x + x is right on a fresh backend. */
static bool works(struct backend *backend)
{
	float values[64], back[64];
	void *memory;
	for (int i = 0; i < 64; i++)
		values[i] = (float)i;
	struct tensor x = tensor_make(NULL, 8, 8, DTYPE_F32);
	if (backend->ops->alloc(backend, sizeof values, &memory)) return false;
	x.data = memory;
	if (backend->ops->upload(backend, memory, values, sizeof values) || backend->ops->add(backend, x, x) ||
	    backend->ops->download(backend, back, memory, sizeof back))
		return false;
	for (int i = 0; i < 64; i++)
		if (back[i] != 2 * values[i]) return false;
	return true;
}

int main(int argc, char **argv)
{
	struct error err;
	struct backend *backend, *other = NULL;
	bool second = argc > 1 && strcmp(argv[1], "again") == 0;
	if (backend_cuda_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	bool good = works(backend);
	if (second) {
		printf(" \"next_process\": %s}\n", good ? "true" : "false");
		backend_destroy(backend);
		return good ? 0 : 1;
	}
	struct tensor nowhere = tensor_make((void *)64, 8, 8, DTYPE_F32), to = nowhere;
	void *memory;
	if (backend->ops->alloc(backend, 256, &memory)) return 1;
	to.data = memory;
	enum status issued = backend->ops->add(backend, to, nowhere), waited = backend->ops->sync(backend);
	bool lost = backend_cuda_lost();
	printf("{\"before\": %s, \"issued\": \"%s\", \"waited\": \"%s\", \"lost\": %s,\n \"message\": \"%s\",\n",
	       good ? "true" : "false", status_name(issued), status_name(waited), lost ? "true" : "false", backend->error.message);
	backend_destroy(backend);
	bool refused = backend_cuda_create(0, &other, &err) == STATUS_BACKEND;
	printf(" \"same_process_refused\": %s,\n", refused ? "true" : "false");
	fflush(stdout);
	if (!good || !waited || !lost || !refused) {
		printf(" \"next_process\": null}\n");
		return 1;
	}
	execl("/proc/self/exe", argv[0], "again", NULL);
	perror("execl");
	return 1;
}
