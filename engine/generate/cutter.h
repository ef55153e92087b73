/* Strings that end a text: what could be the beginning of one is kept back until more is known. */
#ifndef BESAD_ENGINE_GENERATE_CUTTER_H
#define BESAD_ENGINE_GENERATE_CUTTER_H

#include "base/buffer.h"

enum { CUTTER_MOST = 4 };

/* `stops` are the caller's, none empty. Zeroed but for them to begin with; freed with cutter_free. */
struct cutter {
	const char *stops[CUTTER_MOST];
	int count;
	struct buffer held; /* text that may go on as one of them */
	struct buffer free; /* text that belongs to none, of the last call */
	bool found;         /* one of them has come: the text is over */
};

/* More text: what of it, and of what was held, is certain is in `free` then. `last`: no more comes, and nothing is held. The
 * text ends as soon as one of the strings is whole, where it begins. False without memory. */
bool cutter_add(struct cutter *, const char *text, size_t bytes, bool last);
void cutter_free(struct cutter *);

#endif
