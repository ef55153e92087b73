#include "engine/chat/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"

enum { PART_BYTES = 64 << 10, ALIGNMENT = 16 };

struct run_bounds run_bounds = {.memory = RUN_MEMORY, .steps = RUN_STEPS, .depth = RUN_DEPTH};

struct pool_part {
	struct pool_part *next;
	size_t room, used;
	_Alignas(ALIGNMENT) char data[];
};

void pool_free(struct pool *pool)
{
	for (struct pool_part *part = pool->parts, *next; part; part = next) {
		next = part->next;
		free(part);
	}
	*pool = (struct pool){0};
}

static struct pool_part *add_part(struct pool *pool, size_t bytes)
{
	size_t room = bytes > PART_BYTES ? bytes : PART_BYTES;
	struct pool_part *part = calloc(1, sizeof *part + room);
	if (!part) return NULL;
	part->room = room;
	part->next = pool->parts;
	pool->parts = part;
	return part;
}

void *run_new(struct run *run, size_t count, size_t size)
{
	size_t bytes;
	struct pool *pool = run->pool;
	if (__builtin_mul_overflow(count, size, &bytes) || bytes > run_bounds.memory || pool->used + bytes > run_bounds.memory) {
		run_refuse(run, "it takes more than %zu MiB of memory", run_bounds.memory >> 20);
		return NULL;
	}
	bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	struct pool_part *part = pool->parts;
	if (!part || part->room - part->used < bytes) part = add_part(pool, bytes);
	if (!part) {
		run_no_memory(run);
		return NULL;
	}
	void *memory = part->data + part->used;
	part->used += bytes;
	pool->used += bytes;
	return memory;
}

/* A message is one line of UTF-8, whatever the template and the conversation put into it. */
static enum status fail(struct run *run, enum status status, const char *format, va_list args)
{
	char message[1024];
	vsnprintf(message, sizeof message, format, args);
	for (char *c = message; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
	utf8_mask(message);
	run->status = status;
	return error_set(run->err, status, "%s, line %d: %s", run->name, run->line, message);
}

enum status run_fail(struct run *run, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	enum status status = fail(run, STATUS_INVALID, format, args);
	va_end(args);
	return status;
}

enum status run_refuse(struct run *run, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	enum status status = fail(run, STATUS_UNSUPPORTED, format, args);
	va_end(args);
	return status;
}

enum status run_no_memory(struct run *run)
{
	run->status = STATUS_NO_MEMORY;
	return error_set(run->err, STATUS_NO_MEMORY, "%s: no memory for a chat template", run->name);
}

enum status run_spend(struct run *run, size_t steps)
{
	if (steps > (size_t)run->steps) {
		run->steps = 0;
		return run_refuse(run, "it takes more than %lld steps", (long long)run_bounds.steps);
	}
	run->steps -= (int64_t)steps;
	return STATUS_OK;
}

enum status run_spend_bytes(struct run *run, size_t bytes)
{
	return run_spend(run, bytes / STEP_BYTES + 1);
}

enum status run_enter(struct run *run)
{
	if (run->depth >= run_bounds.depth) return run_refuse(run, "it is nested more than %d deep", run_bounds.depth);
	run->depth++;
	return STATUS_OK;
}

enum status run_append(struct run *run, struct buffer *buffer, const char *data, size_t bytes)
{
	TRY(run_spend_bytes(run, bytes));
	if (bytes > RUN_OUTPUT - buffer->size) return run_refuse(run, "it makes a text of more than %d MiB", RUN_OUTPUT >> 20);
	buffer_append(buffer, data, bytes);
	return buffer->failed ? run_no_memory(run) : STATUS_OK;
}
