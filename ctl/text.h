/* Values as people read them, and JSON members with a fallback. */
#ifndef BESAD_CTL_TEXT_H
#define BESAD_CTL_TEXT_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"

/* What comes from the daemon was written by others: control characters, which could steer a terminal, are shown as '?'. */
void text_put(FILE *, const char *text);
void text_append(struct buffer *, const char *text);

/* The columns that UTF-8 text takes on a terminal. */
size_t text_width(const char *text);

/* Members of a JSON object that may be NULL: a string or NULL, a number or NAN. */
const char *text_member(const cJSON *object, const char *key);
const char *text_member_or(const cJSON *object, const char *key, const char *fallback);
double number_member(const cJSON *object, const char *key);

enum { TEXT_ROOM = 32 };

/* Each fills `ret` and returns it; "-" for NAN. */
const char *format_seconds(double seconds, char ret[TEXT_ROOM]);   /* "4.2 s", "3 min 12 s", "2 h 05 min" */
const char *format_percent(double fraction, char ret[TEXT_ROOM]);  /* "49.8 %" */
const char *format_bytes(double bytes, char ret[TEXT_ROOM]);       /* "13.5 GB" */
const char *format_number(double number, char ret[TEXT_ROOM]);     /* four significant digits or more */
const char *format_time(const char *rfc3339, char ret[TEXT_ROOM]); /* "2024-05-06 07:08:09", still UTC */

/* The member `score` ("acc") of a task's scores and its standard error: "62.5 % ± 4.8 %". "-" where there are none. */
enum { SCORE_ROOM = 2 * TEXT_ROOM + 8 };
const char *format_score(const cJSON *scores, const char *score, char ret[SCORE_ROOM]);

#endif
