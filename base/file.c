#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/watch.h"

enum { COPY_CHUNK = 1 << 20, KERNEL_CHUNK = 16 << 20, REMOVE_MAX_OPEN = 16 };

static int call_openat2(int directory, const char *path, const struct open_how *how, size_t size)
{
	return (int)syscall(SYS_openat2, directory, path, how, size);
}

struct file_calls file_calls = {pread, pwrite, fsync, renameat2, posix_fallocate, call_openat2};

enum status file_adopt(int fd, char *path, struct file *ret, struct error *err)
{
	struct stat st;
	enum status status = STATUS_OK;
	if (fstat(fd, &st) != 0)
		status = error_errno(err, "%s", path);
	else if (!S_ISREG(st.st_mode))
		status = error_set(err, STATUS_INVALID, "%s: not a regular file", path);
	if (status != STATUS_OK) {
		close(fd);
		free(path);
		return status;
	}
	*ret = (struct file){fd, path, st.st_size};
	return STATUS_OK;
}

static enum status adopt(int fd, const char *path, struct file *ret, struct error *err)
{
	char *copy = strdup(path);
	if (copy) return file_adopt(fd, copy, ret, err);
	close(fd);
	return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", path);
}

enum status file_open_read(const char *path, struct file *ret, struct error *err)
{
	/* O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for a regular file. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) return error_errno(err, "%s", path);
	return adopt(fd, path, ret, err);
}

enum status file_open_write(const char *path, struct file *ret, struct error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0) return error_errno(err, "%s", path);
	return adopt(fd, path, ret, err);
}

enum status file_reserve(struct file *file, int64_t size, struct error *err)
{
	int number;
	if (size <= 0) return STATUS_OK;
	do
		number = file_calls.fallocate(file->fd, 0, size);
	while (number == EINTR);
	if (number != 0) {
		errno = number;
		return error_errno(err, "%s: cannot allocate %" PRId64 " bytes", file->path, size);
	}
	file->size = size;
	return STATUS_OK;
}

enum status file_create(const char *path, int64_t size, struct file *ret, struct error *err)
{
	struct file file;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
	if (fd < 0) return error_errno(err, "cannot create %s", path);
	TRY(adopt(fd, path, &file, err));
	enum status status = file_reserve(&file, size, err);
	if (status == STATUS_OK) {
		*ret = file;
		return STATUS_OK;
	}
	file_close(&file);
	unlink(path);
	return status;
}

enum status file_read(const struct file *file, void *buffer, size_t bytes, int64_t offset, struct error *err)
{
	char *to = buffer;
	while (bytes > 0) {
		ssize_t n = file_calls.pread(file->fd, to, bytes, offset);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return error_errno(err, "cannot read %s at byte %" PRId64, file->path, offset);
		if (n == 0)
			return error_set(err, STATUS_IO, "%s ends at byte %" PRId64 ", %zu bytes short", file->path, offset, bytes);
		to += n;
		bytes -= (size_t)n;
		offset += n;
	}
	return STATUS_OK;
}

enum status file_write(const struct file *file, const void *buffer, size_t bytes, int64_t offset, struct error *err)
{
	const char *from = buffer;
	while (bytes > 0) {
		ssize_t n = file_calls.pwrite(file->fd, from, bytes, offset);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return error_errno(err, "cannot write %zu bytes to %s at byte %" PRId64, bytes, file->path, offset);
		from += n;
		bytes -= (size_t)n;
		offset += n;
	}
	return STATUS_OK;
}

/* No retry but for a signal: after a failed fsync the kernel may have dropped the pages, and a second call would lie. */
static enum status sync_fd(int fd, const char *path, struct error *err)
{
	int result;
	do
		result = file_calls.fsync(fd);
	while (result != 0 && errno == EINTR);
	return result == 0 ? STATUS_OK : error_errno(err, "cannot sync %s", path);
}

enum status file_sync(const struct file *file, struct error *err)
{
	return sync_fd(file->fd, file->path, err);
}

void file_close(struct file *file)
{
	/* A zeroed struct has no path; its fd 0 is not ours. */
	if (file->path && file->fd >= 0) close(file->fd);
	free(file->path);
	*file = (struct file){.fd = -1};
}

enum status file_slurp(const char *path, size_t limit, char **ret_text, size_t *ret_bytes, struct error *err)
{
	struct file file;
	TRY(file_open_read(path, &file, err));
	enum status status = file_slurp_open(&file, limit, ret_text, ret_bytes, err);
	file_close(&file);
	return status;
}

enum status file_slurp_open(const struct file *file, size_t limit, char **ret_text, size_t *ret_bytes, struct error *err)
{
	size_t bytes = (size_t)file->size;
	if (bytes > limit)
		return error_set(err, STATUS_INVALID, "%s: %zu bytes are more than the %zu allowed", file->path, bytes, limit);
	char *text = malloc(bytes + 1);
	if (!text) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s (%zu bytes)", file->path, bytes);
	enum status status = file_read(file, text, bytes, 0, err);
	if (status != STATUS_OK) {
		free(text);
		return status;
	}
	text[bytes] = 0;
	*ret_text = text;
	*ret_bytes = bytes;
	return STATUS_OK;
}

/* Can the kernel not copy between these two itself? Then it is done by hand. */
static bool cannot_copy(int number)
{
	return number == EXDEV || number == EINVAL || number == ENOSYS || number == EOPNOTSUPP || number == EPERM ||
	       number == ETXTBSY;
}

/* As much as the kernel copies itself, which may only share what is there (reflinks); *ret_bytes says how much that was. */
static enum status copy_in_kernel(const struct file *from, int64_t from_offset, const struct file *to, int64_t to_offset,
				  int64_t bytes, int64_t *ret_bytes, struct error *err)
{
	off64_t in = from_offset, out = to_offset;
	*ret_bytes = 0;
	/* A fault test that has put its own calls in place wants to see each. */
	if (file_calls.pwrite != pwrite) return STATUS_OK;
	while (*ret_bytes < bytes) {
		TRY(watch_look(to->path, err));
		int64_t left = bytes - *ret_bytes;
		ssize_t n = copy_file_range(from->fd, &in, to->fd, &out, left < KERNEL_CHUNK ? (size_t)left : KERNEL_CHUNK, 0);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && !cannot_copy(errno)) return error_errno(err, "cannot copy %s to %s", from->path, to->path);
		if (n <= 0) return STATUS_OK;
		*ret_bytes += n;
		sync_file_range(to->fd, out - n, n,
				SYNC_FILE_RANGE_WRITE); /* so that the sync behind it has little left to wait for */
	}
	return STATUS_OK;
}

enum status file_copy_bytes(const struct file *from, int64_t from_offset, const struct file *to, int64_t to_offset, int64_t bytes,
			    struct error *err)
{
	int64_t done;
	TRY(copy_in_kernel(from, from_offset, to, to_offset, bytes, &done, err));
	if (done == bytes) return STATUS_OK;
	char *chunk = malloc(COPY_CHUNK);
	if (!chunk) return error_set(err, STATUS_NO_MEMORY, "no memory to copy %s", from->path);
	enum status status = STATUS_OK;
	for (int64_t at = done; status == STATUS_OK && at < bytes; at += COPY_CHUNK) {
		size_t n = bytes - at < COPY_CHUNK ? (size_t)(bytes - at) : COPY_CHUNK;
		status = watch_look(to->path, err);
		if (status == STATUS_OK) status = file_read(from, chunk, n, from_offset + at, err);
		if (status == STATUS_OK) status = file_write(to, chunk, n, to_offset + at, err);
	}
	free(chunk);
	return status;
}

/* fsync of the directory that holds `path`. */
static enum status parent_sync(const char *path, struct error *err)
{
	size_t length = strlen(path);
	while (length > 1 && path[length - 1] == '/')
		length--;
	while (length > 0 && path[length - 1] != '/')
		length--;
	if (length == 0) return directory_sync(".", err);
	char *parent = strndup(path, length);
	if (!parent) return error_set(err, STATUS_NO_MEMORY, "no memory to sync the directory of %s", path);
	enum status status = directory_sync(parent, err);
	free(parent);
	return status;
}

enum status directory_sync(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return error_errno(err, "%s", path);
	enum status status = sync_fd(fd, path, err);
	close(fd);
	return status;
}

static enum status make_one(const char *path, struct error *err)
{
	struct stat st;
	if (mkdir(path, 0777) == 0) return parent_sync(path, err);
	if (errno != EEXIST) return error_errno(err, "cannot make directory %s", path);
	if (stat(path, &st) != 0) return error_errno(err, "%s", path);
	return S_ISDIR(st.st_mode) ? STATUS_OK : error_set(err, STATUS_EXISTS, "%s: exists and is not a directory", path);
}

enum status directory_make(const char *path, struct error *err)
{
	char *partial = strdup(path);
	if (!partial) return error_set(err, STATUS_NO_MEMORY, "no memory to make directory %s", path);
	enum status status = STATUS_OK;
	for (char *slash = strchr(partial + (*partial == '/'), '/'); slash && status == STATUS_OK; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		status = make_one(partial, err);
		*slash = '/';
	}
	if (status == STATUS_OK) status = make_one(partial, err);
	free(partial);
	return status;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *place)
{
	(void)st;
	(void)type;
	(void)place;
	return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

enum status directory_remove(const char *path, struct error *err)
{
	if (nftw(path, remove_entry, REMOVE_MAX_OPEN, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
		return error_errno(err, "cannot remove %s", path);
	return STATUS_OK;
}

enum status path_look(const char *path, bool *ret, struct error *err)
{
	struct stat st;
	*ret = lstat(path, &st) == 0;
	return *ret || errno == ENOENT ? STATUS_OK : error_errno(err, "%s", path);
}

bool path_exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}
