#include "base/watch.h"

#include <stddef.h>

static _Thread_local const struct watch *current;

void watch_set(const struct watch *watch)
{
	current = watch;
}

enum status watch_look(const char *what, struct error *err)
{
	if (!current) return STATUS_OK;
	if (current->beat) current->beat(current->context);
	return atomic_load(current->stop) ? error_set(err, STATUS_CANCELLED, "stopped at %s", what) : STATUS_OK;
}
