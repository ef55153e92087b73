/* What reading and rendering a template have in common: memory that goes all at once, how much of everything is left, and errors
 * that name the template and its line. */
#ifndef BESAD_ENGINE_CHAT_RUN_H
#define BESAD_ENGINE_CHAT_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

enum {
	RUN_DEPTH = 400,                        /* nesting of what is evaluated, or printed */
	STEP_BYTES = 16,                        /* of text gone through are a step */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* what clang says of libFuzzer's programs: the bounds are met sooner */
	RUN_MEMORY = 16 << 20,
	RUN_OUTPUT = 1 << 20,
	RUN_STEPS = 200 * 1000,
#else
	RUN_MEMORY = 256 << 20,       /* bytes of values and nodes */
	RUN_OUTPUT = 64 << 20,        /* bytes of the text, and of each text that is put together on the way */
	RUN_STEPS = 20 * 1000 * 1000, /* things evaluated */
#endif
};

/* The same, as what is run is held to: tests make them less, and see that what runs out is told of wherever it does. */
struct run_bounds {
	size_t memory;
	int64_t steps;
	int depth;
};
extern struct run_bounds run_bounds;

struct pool_part;

/* Zeroed to begin with. */
struct pool {
	struct pool_part *parts;
	size_t used; /* of all parts */
};
void pool_free(struct pool *);

struct run {
	struct pool *pool;
	const char *name; /* of the template, for messages */
	int line;         /* of what is being done */
	int depth;
	int64_t steps;      /* left */
	enum status status; /* of the failure, once there is one */
	struct error *err;

	/* While it renders: */
	struct buffer *out; /* what is being written to */
	enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
};

/* Zeroed memory for `count` things; NULL where there is none, which run->status then says. */
void *run_new(struct run *, size_t count, size_t size);

/* Fill the error, with the template's name and the line, and return the status: the template or the conversation is wrong, or
 * wants what is not supported, or more than there is. */
enum status run_fail(struct run *, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum status run_refuse(struct run *, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum status run_no_memory(struct run *);

/* Takes steps off what is left. */
enum status run_spend(struct run *, size_t steps);
enum status run_spend_bytes(struct run *, size_t bytes);

/* One deeper, and out of it again. */
enum status run_enter(struct run *);
static inline void run_leave(struct run *run)
{
	run->depth--;
}

/* Appends to a text that is being put together. */
enum status run_append(struct run *, struct buffer *, const char *data, size_t bytes);

#endif
