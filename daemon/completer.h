/* Texts from models for clients (--serve-models). One model is in memory at a time, and makes one text at a time: it is loaded when
 * it is asked for, and goes when another one is, when its files have changed, or when nobody has asked for it for a while. */
#ifndef BESAD_DAEMON_COMPLETER_H
#define BESAD_DAEMON_COMPLETER_H

#include "api/api.h"
#include "daemon/options.h"

struct completer;

/* The options stay. */
enum status completer_create(const struct options *, struct completer **ret, struct error *err);

/* The hook `complete` of the API. */
enum status completer_run(struct completer *, const struct api_completion *, struct api_completed *ret, struct error *err);

void completer_tick(struct completer *); /* about once a second; takes NULL */
void completer_stop(struct completer *); /* what is under way, and whatever is asked for later, is cancelled; takes NULL */
void completer_free(struct completer *); /* takes NULL */

#endif
