#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *log_level_name(enum log_level level)
{
	return level == LOG_LEVEL_ERROR ? "error" : level == LOG_LEVEL_WARNING ? "warning" : "info";
}

void log_write(enum log_level level, const char *format, ...)
{
	char line[4096]; /* a message of struct error, and what is said of it */
	int used;
	if (getenv("JOURNAL_STREAM")) {
		used = snprintf(line, sizeof line, "<%d>", level);
	} else {
		time_t now = time(NULL);
		struct tm utc;
		gmtime_r(&now, &utc);
		used = (int)strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%SZ ", &utc);
		used += snprintf(line + used, sizeof line - (size_t)used, "%s: ", log_level_name(level));
	}
	size_t start = (size_t)used;
	va_list args;
	va_start(args, format);
	vsnprintf(line + start, sizeof line - start - 1, format, args);
	va_end(args);
	/* A client's text must not be able to look like a line of ours. */
	size_t length = strlen(line);
	for (size_t i = start; i < length; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
	line[length++] = '\n';
	/* One write, so that lines of several threads do not mix. There is nowhere to report that it failed. */
	ssize_t written = write(STDERR_FILENO, line, length);
	(void)written;
}
