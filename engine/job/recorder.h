/* Brings a job's events to where they are kept: rows of a database, or lines of a file. What is told once in a job, what has to
 * be on disk, and what commits a block, is decided here for both; a store only keeps what it is given. */
#ifndef BESAD_ENGINE_RECORDER_H
#define BESAD_ENGINE_RECORDER_H

#include "engine/engine.h"

/* An event as it is kept; all of it is borrowed. */
struct record {
	const char *type;
	const cJSON *data;
	const char *text; /* `data`, printed */
	int64_t at;       /* milliseconds since 1970 */
	bool optional;    /* worth no waiting where it cannot be kept */
	bool durable;     /* on disk, with all records before it, when `append` returns */
	int block;        /* the block that it commits: both or neither are kept; -1 for none */
};

struct event_store {
	void *context;

	/* Adds the data of each event of that type that is kept to the array `list`. */
	enum status (*find)(void *context, const char *type, cJSON *list, struct error *err);

	enum status (*append)(void *context, const struct record *, struct error *err);
};

struct recorder {
	struct event_store store;
	cJSON *told;     /* {type: [data]} of what is told once */
	int blocks_done; /* committed */
};

/* Reads what earlier attempts have told; `blocks_done` is what they have committed. One recorder at a time may write to a job's
 * store. */
enum status recorder_open(struct recorder *, const struct event_store *, int blocks_done, struct error *err);
void recorder_close(struct recorder *);

/* What an engine_sink wants, with the recorder as its context. An event that is told once, and that an attempt has told with the
 * same data, is not kept again; nor is a block that an attempt has committed, which must agree with what was told
 * (event_check_block). Another block than the next one is STATUS_INTERNAL. */
enum status recorder_event(void *recorder, const struct event *event, struct error *err);
enum status recorder_block(void *recorder, int block, const struct event *event, struct error *err);

#endif
