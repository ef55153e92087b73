#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A message of `length` bytes that had no room ends so that this is seen, and with a whole character. */
static void end_message(struct error *err, size_t length)
{
	static const char dots[] = "…";
	if (length < sizeof err->message) return;
	size_t end = sizeof err->message - sizeof dots;
	while (end > 0 && ((unsigned char)err->message[end] & 0xc0) == 0x80)
		end--;
	memcpy(err->message + end, dots, sizeof dots);
}

enum status error_set(struct error *err, enum status status, const char *format, ...)
{
	if (!err) return status;
	va_list args;
	va_start(args, format);
	int length = vsnprintf(err->message, sizeof err->message, format, args);
	va_end(args);
	end_message(err, length < 0 ? 0 : (size_t)length);
	err->status = status;
	err->number = 0;
	return status;
}

static enum status status_of_errno(int number)
{
	switch (number) {
	case ENOSPC:
	case EDQUOT:
		return STATUS_NO_SPACE;
	case ENOENT:
	case ENOTDIR:
		return STATUS_NOT_FOUND;
	case ENOMEM:
		return STATUS_NO_MEMORY;
	case EEXIST:
		return STATUS_EXISTS;
	default:
		return STATUS_IO;
	}
}

enum status error_errno(struct error *err, const char *format, ...)
{
	int number = errno;
	enum status status = status_of_errno(number);
	if (!err) return status;
	va_list args;
	va_start(args, format);
	int used = vsnprintf(err->message, sizeof err->message, format, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof err->message)
		used += snprintf(err->message + used, sizeof err->message - (size_t)used, ": %s", strerror(number));
	end_message(err, used < 0 ? 0 : (size_t)used);
	err->status = status;
	err->number = number;
	return status;
}

enum status error_prefix(struct error *err, const char *format, ...)
{
	char text[sizeof err->message], old[sizeof err->message];
	memcpy(old, err->message, sizeof old);
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	size_t used = strnlen(text, sizeof text);
	memcpy(err->message, text, used);
	int more = snprintf(err->message + used, sizeof err->message - used, ": %s", old);
	end_message(err, used + (more < 0 ? 0 : (size_t)more));
	return err->status;
}

const char *status_name(enum status status)
{
	switch (status) {
	case STATUS_OK:
		return "ok";
	case STATUS_CANCELLED:
		return "cancelled";
	case STATUS_INVALID:
		return "invalid";
	case STATUS_UNSUPPORTED:
		return "unsupported";
	case STATUS_NOT_FOUND:
		return "not_found";
	case STATUS_EXISTS:
		return "exists";
	case STATUS_IO:
		return "io";
	case STATUS_NO_SPACE:
		return "no_space";
	case STATUS_BUSY:
		return "busy";
	case STATUS_NO_MEMORY:
		return "no_memory";
	case STATUS_BACKEND:
		return "backend";
	case STATUS_NUMERIC:
		return "numeric";
	case STATUS_SELF_CHECK:
		return "self_check";
	case STATUS_INTERNAL:
		break;
	}
	return "internal";
}
