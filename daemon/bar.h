/* The progress of `besad run`, on standard error: a bar on a terminal, and, there and in a pipe, a line per finished thing. */
#ifndef BESAD_DAEMON_BAR_H
#define BESAD_DAEMON_BAR_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

struct bar {
	bool terminal, shown;
	double drawn; /* monotonic seconds */
	double loss;  /* of the last step */
};

struct bar bar_create(void);
void bar_event(struct bar *, const char *type, const cJSON *data);
void bar_progress(struct bar *, const char *phase, int block, int blocks, double fraction, double eta_seconds);
void bar_line(struct bar *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bar_clear(struct bar *);

#endif
