/* The one place where besad writes to its log, standard error: a line per event, `key=value` where it helps. Under systemd lines
 * begin with the journal's priority, else with time and level. */
#ifndef BESAD_DAEMON_LOG_H
#define BESAD_DAEMON_LOG_H

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6 }; /* syslog's numbers */

void log_write(enum log_level, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *log_level_name(enum log_level);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
