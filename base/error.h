/* Status codes and the error object that every fallible engine function fills.
 *
 * Convention: a function that can fail returns an `enum status` (0 is success) and takes a `struct error *` as its last
 * parameter, which it fills with context before it returns anything else than STATUS_OK. Outputs are named `ret_*` and stay
 * untouched on failure. Nothing in engine/ prints or exits; the daemon logs an error once, where the job ends. */
#ifndef BESAD_BASE_ERROR_H
#define BESAD_BASE_ERROR_H

enum status {
	STATUS_OK = 0,
	STATUS_CANCELLED,   /* the stop flag was raised */
	STATUS_INVALID,     /* bad input: a spec field, a file's content */
	STATUS_UNSUPPORTED, /* well-formed input that asks for what besad lacks */
	STATUS_NOT_FOUND,   /* a file or directory that is not there */
	STATUS_EXISTS,      /* an output that is already there */
	STATUS_IO,          /* a system call on a file failed */
	STATUS_NO_SPACE,    /* the disk or a quota is full */
	STATUS_BUSY,        /* another process has locked what is needed; later it may be free */
	STATUS_NO_MEMORY,   /* host or device memory ran out */
	STATUS_BACKEND,     /* the compute library or the device failed */
	STATUS_NUMERIC,     /* a NaN or infinity where a finite number is needed */
	STATUS_SELF_CHECK,  /* an output on disk is not what was computed (engine/job/self_check.h) */
	STATUS_INTERNAL,    /* a broken invariant of our own */
};

struct error {
	enum status status;
	int number;         /* errno, where the system refused something; else 0 */
	char message[2048]; /* one line, names the file, tensor or field, what was expected and what to do */
};

/* Fills `err` (may be NULL) and returns `status`, so that callers write `return error_set(err, STATUS_IO, "...")`. */
enum status error_set(struct error *err, enum status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Like error_set for a failed system call: appends `: strerror(errno)` and picks STATUS_NO_SPACE, STATUS_NOT_FOUND,
 * STATUS_NO_MEMORY or STATUS_IO by errno. */
enum status error_errno(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts `context: ` in front of the message and returns err->status. */
enum status error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The stable, lower-case name that goes into a job's error code: "invalid", "no_space" … */
const char *status_name(enum status status);

/* Returns from the calling function when `call` fails. */
#define TRY(call)                                                                                                                  \
	do {                                                                                                                       \
		enum status try_status_ = (call);                                                                                  \
		if (try_status_ != STATUS_OK) return try_status_;                                                                  \
	} while (0)

#endif
