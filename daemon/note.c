#include "daemon/note.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"

void note_of_job(struct db *db, const char *id, enum log_level level, const char *format, ...)
{
	struct error ignored;
	char *text;
	va_list args;
	va_start(args, format);
	int length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) return;
	utf8_mask(text);
	db_job_note(db, id, log_level_name(level), text, &ignored);
	free(text);
}
