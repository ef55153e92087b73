/* Every byte that the engine reads from or writes to a disk goes through here: whole-transfer reads and writes with errors that
 * name the file, and one table of system calls that a fault test replaces. */
#ifndef BESAD_BASE_FILE_H
#define BESAD_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct open_how;

/* The seam for fault injection: tests swap entries to make the n-th call fail. */
struct file_calls {
	ssize_t (*pread)(int fd, void *buffer, size_t bytes, off_t offset);
	ssize_t (*pwrite)(int fd, const void *buffer, size_t bytes, off_t offset);
	int (*fsync)(int fd);
	int (*renameat2)(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
	int (*fallocate)(int fd, off_t offset, off_t bytes); /* posix_fallocate: returns the error number */
	int (*openat2)(int directory, const char *path, const struct open_how *how, size_t size);
};
extern struct file_calls file_calls;

struct file {
	int fd;     /* -1 when closed */
	char *path; /* for messages */
	int64_t size;
};

/* Takes over an open descriptor and `path`, which names it in messages; closes and frees both when it is not a regular file. */
enum status file_adopt(int fd, char *path, struct file *ret, struct error *err);
enum status file_open_read(const char *path, struct file *ret, struct error *err); /* a regular file, or STATUS_INVALID */
enum status file_create(const char *path, int64_t size, struct file *ret,
			struct error *err);                               /* replaces, but no link; allocates `size` bytes */
enum status file_reserve(struct file *, int64_t size, struct error *err); /* allocates a new file's room */
enum status file_open_write(const char *path, struct file *ret, struct error *err); /* an existing file, and no link */
enum status file_read(const struct file *, void *buffer, size_t bytes, int64_t offset, struct error *err); /* all, or an error */
enum status file_write(const struct file *, const void *buffer, size_t bytes, int64_t offset, struct error *err);
enum status file_sync(const struct file *, struct error *err);
void file_close(struct file *); /* idempotent */

/* The whole of a file of at most `limit` bytes, with a 0 byte behind it. The caller frees it. */
enum status file_slurp(const char *path, size_t limit, char **ret_text, size_t *ret_bytes, struct error *err);
enum status file_slurp_open(const struct file *, size_t limit, char **ret_text, size_t *ret_bytes, struct error *err);

/* Without fsync. */
enum status file_copy_bytes(const struct file *from, int64_t from_offset, const struct file *to, int64_t to_offset, int64_t bytes,
			    struct error *err);

enum status directory_sync(const char *path, struct error *err);
enum status directory_make(const char *path, struct error *err);   /* like mkdir -p */
enum status directory_remove(const char *path, struct error *err); /* with its contents; no error when it is not there */
bool path_exists(const char *path);

/* The same, where what cannot be found out must not be taken for absence. */
enum status path_look(const char *path, bool *ret, struct error *err);

#endif
