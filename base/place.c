#include "base/place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/openat2.h>

enum { MAX_LINKS = 40, MAX_DEPTH = 128, MAX_TRIES = 8, MAX_NESTED = 64 };

/* ---- paths as text ------------------------------------------------------------------------------------------------------- */

static bool climbs(const char *path)
{
	for (const char *s = path; s; s = strchr(s, '/')) {
		s += *s == '/';
		if (strncmp(s, "..", 2) == 0 && (s[2] == '/' || s[2] == 0)) return true;
	}
	return false;
}

/* What of an absolute path lies below `root`, or NULL when it does not. */
static const char *below_root(const char *root, const char *path)
{
	size_t length = strlen(root);
	while (length > 0 && root[length - 1] == '/')
		length--;
	if (strncmp(root, path, length) != 0 || (path[length] != '/' && path[length] != 0)) return NULL;
	return path + length;
}

/* "a//./b/" → "a/b"; what is left of nothing is ".". */
static char *normal(const char *path)
{
	char *text = malloc(strlen(path) + 2), *to = text;
	if (!text) return NULL;
	while (*path) {
		size_t length = strcspn(path, "/");
		if (length > 0 && !(length == 1 && *path == '.')) {
			if (to != text) *to++ = '/';
			memcpy(to, path, length);
			to += length;
		}
		path += length + (path[length] == '/');
	}
	if (to == text) *to++ = '.';
	*to = 0;
	return text;
}

/* `path` with `name` behind it, as the system calls get it. */
static char *join(const struct place *place, const char *name)
{
	char *text;
	if (!name) return strdup(place->path);
	if (strcmp(place->path, ".") == 0) return strdup(name);
	return asprintf(&text, "%s/%s", place->path, name) < 0 ? NULL : text;
}

char *place_text(const struct place *place, const char *name)
{
	char *text, *below = join(place, name);
	if (!below || !place->root) return below;
	bool itself = strcmp(below, ".") == 0, bare = strcmp(place->root, "/") == 0;
	int made = asprintf(&text, "%s%s%s", place->root, itself || bare ? "" : "/", itself ? "" : below);
	free(below);
	return made < 0 ? NULL : text;
}

/* Takes `path` out of the message: before a name in it altogether, else up to its last component. */
static void hide(struct error *err, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t length = strlen(path), parent = slash ? (size_t)(slash + 1 - path) : 0;
	for (char *at = err->message; length > 1 && (at = strstr(at, path));) {
		size_t cut = at[length] == '/' ? length + 1 : parent;
		memmove(at, at + cut, strlen(at + cut) + 1);
		if (cut < length) at += length - cut;
	}
}

void place_hide(const struct place *place, struct error *err)
{
	char *path = place_text(place, NULL);
	if (path) hide(err, path);
	if (place->root) hide(err, place->root);
	free(path);
}

void place_hide_roots(char *const *roots, struct error *err)
{
	for (; roots && *roots; roots++)
		hide(err, *roots);
}

/* ---- opening below a root ------------------------------------------------------------------------------------------------ */

/* A walk from the root: the directories from it down to where it stands, and what is left of the way. */
struct walk {
	const char *root;
	int directories[MAX_DEPTH];
	int depth; /* directories[0] is the root's */
	char rest[2 * PATH_MAX];
	int links;
};

static void walk_up_to(struct walk *walk, int depth)
{
	while (walk->depth > depth)
		close(walk->directories[--walk->depth]);
}

/* Puts a link's target in front of what is left. Absolute ones are gone from the root, when they lie in it. */
static int follow(struct walk *walk, const char *component, const char *rest)
{
	char target[PATH_MAX], joined[2 * PATH_MAX];
	ssize_t length = readlinkat(walk->directories[walk->depth - 1], component, target, sizeof target - 1);
	if (length < 0) return -1;
	target[length] = 0;
	const char *way = target;
	if (++walk->links > MAX_LINKS) {
		errno = ELOOP;
		return -1;
	}
	if (*target == '/') {
		way = below_root(walk->root, target);
		if (!way) {
			errno = EXDEV;
			return -1;
		}
		walk_up_to(walk, 1);
	}
	if (snprintf(joined, sizeof joined, "%s/%s", way, rest) >= (int)sizeof joined) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(walk->rest, joined);
	return 0;
}

/* One component: up, down into a directory, along a link, or the last one, which is opened into *ret. */
static int step(struct walk *walk, int flags, mode_t mode, int *ret)
{
	char component[NAME_MAX + 1];
	const char *rest = walk->rest + strspn(walk->rest, "/");
	size_t length = strcspn(rest, "/");
	if (length > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(component, rest, length);
	component[length] = 0;
	rest += length;
	bool last = rest[strspn(rest, "/")] == 0;
	int here = walk->directories[walk->depth - 1];
	if (length == 0 || strcmp(component, ".") == 0) {
		if (last) {
			*ret = openat(here, ".", (flags & ~O_CREAT) | O_CLOEXEC);
			return *ret < 0 ? -1 : 0;
		}
	} else if (strcmp(component, "..") == 0) {
		if (walk->depth == 1) {
			errno = EXDEV;
			return -1;
		}
		walk_up_to(walk, walk->depth - 1);
		if (last) {
			strcpy(walk->rest, ".");
			return 0;
		}
	} else {
		struct stat st;
		if (fstatat(here, component, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) && !(last && flags & O_NOFOLLOW))
			return follow(walk, component, rest);
		/* A link that was put here just now makes this fail: O_NOFOLLOW. */
		int fd = openat(here, component,
				last ? flags | O_NOFOLLOW | O_CLOEXEC : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, mode);
		if (fd < 0) return -1;
		if (last) {
			*ret = fd;
			return 0;
		}
		if (walk->depth == MAX_DEPTH) {
			close(fd);
			errno = ENAMETOOLONG;
			return -1;
		}
		walk->directories[walk->depth++] = fd;
	}
	memmove(walk->rest, rest, strlen(rest) + 1);
	return 0;
}

static int walk_beneath(int top, const char *root, const char *path, int flags, mode_t mode)
{
	struct walk *walk = calloc(1, sizeof *walk);
	int fd = -1, failed = 0;
	if (!walk) return -1;
	walk->root = root;
	if (strlen(path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		failed = -1;
	} else {
		strcpy(walk->rest, path);
		walk->directories[0] = dup(top);
		if (walk->directories[0] < 0)
			failed = -1;
		else
			walk->depth = 1;
	}
	while (!failed && fd < 0)
		failed = step(walk, flags, mode, &fd);
	int number = errno;
	walk_up_to(walk, 0);
	free(walk);
	errno = number;
	return failed ? -1 : fd;
}

static int open_beneath(const char *root, const char *path, int flags, mode_t mode)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
			       .mode = flags & O_CREAT ? mode : 0,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	int top = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), fd, tries = 0;
	if (top < 0) return -1;
	do
		fd = file_calls.openat2(top, path, &how, sizeof how);
	while (fd < 0 && errno == EAGAIN && ++tries < MAX_TRIES);
	/* The kernel lacks the call, a filter of the service manager forbids it, or there was an absolute link, which may lie
	 * inside. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EXDEV || errno == EAGAIN))
		fd = walk_beneath(top, root, path, flags, mode);
	int number = errno;
	close(top);
	errno = number;
	return fd;
}

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to look up a path");
}

/* Fails with what errno says of the place, and still does. */
static enum status failed(const struct place *place, const char *name, struct error *err)
{
	int number = errno;
	char *text = place_text(place, name);
	enum status status;
	errno = number;
	if (!text)
		status = no_memory(err);
	else if (number == EXDEV)
		status = error_set(
			err, STATUS_INVALID,
			"%s: a link leads out of the root %s; links are followed inside a root only: copy what it leads to, or "
			"make a directory that holds both a root",
			text, place->root);
	else
		status = error_errno(err, "%s", text);
	free(text);
	errno = number;
	return status;
}

/* A descriptor of the place, or -1 with errno set. */
static int open_place(const struct place *place, const char *name, int flags, mode_t mode)
{
	char *path = join(place, name);
	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	int fd = place->root ? open_beneath(place->root, path, flags, mode) : open(path, flags | O_CLOEXEC, mode);
	int number = errno;
	free(path);
	errno = number;
	return fd;
}

/* The directory that holds the place, and the name in it, which points into *ret_path, freed by the caller. -1 with errno set. */
static int open_parent(const struct place *place, const char *name, char **ret_path, const char **ret_last)
{
	char *path = join(place, name);
	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path, *parent = slash ? path : ".";
	if (slash == path) parent = "/";
	if (slash) *slash = 0;
	struct place holder = {place->root, (char *)parent};
	int fd = open_place(&holder, NULL, O_PATH | O_DIRECTORY, 0), number = errno;
	if (fd < 0) free(path);
	errno = number;
	if (fd < 0) return -1;
	*ret_path = path;
	*ret_last = last;
	return fd;
}

/* ---- finding --------------------------------------------------------------------------------------------------------------- */

/* The place of `path` below one root. *ret_problem is STATUS_OK, or why it is not there. */
static enum status try_root(const char *root, const char *path, struct place *ret, enum status *ret_problem, struct error *err)
{
	struct place place = {strdup(root), normal(path)};
	struct stat st;
	if (!place.root || !place.path) {
		place_free(&place);
		return no_memory(err);
	}
	*ret_problem = place_stat(&place, NULL, &st, err);
	if (*ret_problem && errno == ENAMETOOLONG) *ret_problem = STATUS_NOT_FOUND; /* no file has such a name */
	if (*ret_problem)
		place_free(&place);
	else
		*ret = place;
	return *ret_problem == STATUS_NO_MEMORY ? STATUS_NO_MEMORY : STATUS_OK;
}

enum status place_find(char *const *roots, const char *here, const char *text, struct place *ret, struct error *err)
{
	if (!*text) return error_set(err, STATUS_INVALID, "must not be empty");
	if (climbs(text)) return error_set(err, STATUS_INVALID, "'%s' has '..'", text);
	char whole[PATH_MAX];
	const char *path = text;
	bool leaves = false, outside = true;
	enum status problem = STATUS_OK;
	if (here && *text != '/') {
		if (snprintf(whole, sizeof whole, "%s/%s", here, text) >= (int)sizeof whole)
			return error_set(err, STATUS_INVALID, "the path is too long");
		path = whole;
	}
	for (; roots && *roots; roots++) {
		const char *below = *path == '/' ? below_root(*roots, path) : path;
		if (!below) continue;
		outside = false;
		TRY(try_root(*roots, below, ret, &problem, err));
		if (problem == STATUS_OK) return STATUS_OK;
		if (problem != STATUS_NOT_FOUND && problem != STATUS_INVALID) return problem;
		leaves = leaves || problem == STATUS_INVALID;
	}
	if (leaves)
		return error_set(err, STATUS_INVALID,
				 "'%s' leads out of its root by a link; links are followed inside a root only: copy what it "
				 "leads to, or "
				 "make a directory that holds both a root",
				 text);
	if (outside && *path == '/') return error_set(err, STATUS_INVALID, "'%s' is outside the roots", text);
	return error_set(err, STATUS_NOT_FOUND, "'%s' is not there", text);
}

enum status place_below(const struct place *place, const char *name, struct place *ret, struct error *err)
{
	struct place below = {place->root ? strdup(place->root) : NULL, join(place, name)};
	if (below.path && (below.root || !place->root)) {
		*ret = below;
		return STATUS_OK;
	}
	place_free(&below);
	return no_memory(err);
}

void place_free(struct place *place)
{
	free(place->root);
	free(place->path);
	*place = (struct place){0};
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

static enum status open_file(const struct place *place, const char *name, int flags, struct file *ret, struct error *err)
{
	/* O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for a regular file. */
	int fd = open_place(place, name, flags | O_NONBLOCK, 0666);
	if (fd < 0) return failed(place, name, err);
	char *text = place_text(place, name);
	if (!text) {
		close(fd);
		return no_memory(err);
	}
	return file_adopt(fd, text, ret, err);
}

enum status place_open(const struct place *place, const char *name, struct file *ret, struct error *err)
{
	return open_file(place, name, O_RDONLY, ret, err);
}

enum status place_open_write(const struct place *place, const char *name, struct file *ret, struct error *err)
{
	return open_file(place, name, O_RDWR | O_NOFOLLOW, ret, err);
}

static enum status unlink_place(const struct place *place, const char *name)
{
	char *path;
	const char *last;
	int parent = open_parent(place, name, &path, &last);
	if (parent < 0) return STATUS_IO;
	int result = unlinkat(parent, last, 0);
	close(parent);
	free(path);
	return result == 0 ? STATUS_OK : STATUS_IO;
}

enum status place_create(const struct place *place, const char *name, int64_t size, struct file *ret, struct error *err)
{
	struct file file;
	TRY(open_file(place, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, &file, err));
	enum status status = file_reserve(&file, size, err);
	if (status == STATUS_OK) {
		*ret = file;
		return STATUS_OK;
	}
	file_close(&file);
	unlink_place(place, name);
	return status;
}

enum status place_slurp(const struct place *place, const char *name, size_t limit, char **ret_text, size_t *ret_bytes,
			struct error *err)
{
	struct file file;
	TRY(place_open(place, name, &file, err));
	enum status status = file_slurp_open(&file, limit, ret_text, ret_bytes, err);
	file_close(&file);
	return status;
}

enum status place_replace(const struct place *place, const char *name, const void *bytes, size_t size, struct error *err)
{
	struct file file;
	struct place whole = {0}, beside = {.root = place->root};
	TRY(place_below(place, name, &whole, err));
	if (asprintf(&beside.path, "%s" PLACE_UNFINISHED, whole.path) < 0) {
		place_free(&whole);
		return no_memory(err);
	}
	enum status status = place_create(&beside, NULL, (int64_t)size, &file, err);
	if (status == STATUS_OK) {
		status = file_write(&file, bytes, size, 0, err);
		if (status == STATUS_OK) status = file_sync(&file, err);
		file_close(&file);
		if (status == STATUS_OK) status = place_rename(&beside, NULL, &whole, NULL, PLACE_REPLACE, err);
		if (status != STATUS_OK) unlink_place(&beside, NULL);
	}
	free(beside.path);
	place_free(&whole);
	return status;
}

enum status place_fill(const char *path, int64_t bytes, file_fill_fn fill, void *context, struct error *err)
{
	char temporary[PATH_MAX];
	struct file file;
	if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary)
		return error_set(err, STATUS_INVALID, "path too long: %s", path);
	TRY(file_create(temporary, bytes, &file, err));
	enum status status = fill ? fill(context, &file, err) : STATUS_OK;
	if (status == STATUS_OK) status = file_sync(&file, err);
	file_close(&file);
	if (status == STATUS_OK) status = place_rename(&PLACE(temporary), NULL, &PLACE(path), NULL, PLACE_REPLACE, err);
	if (status != STATUS_OK) unlink(temporary);
	return status;
}

enum status place_stat(const struct place *place, const char *name, struct stat *ret, struct error *err)
{
	int fd = open_place(place, name, O_PATH, 0);
	if (fd < 0) return failed(place, name, err);
	int result = fstat(fd, ret), number = errno;
	close(fd);
	errno = number;
	return result == 0 ? STATUS_OK : failed(place, name, err);
}

enum status place_lstat(const struct place *place, const char *name, struct stat *ret, struct error *err)
{
	char *path;
	const char *last;
	int parent = open_parent(place, name, &path, &last);
	if (parent < 0) return failed(place, name, err);
	int result = fstatat(parent, last, ret, AT_SYMLINK_NOFOLLOW), number = errno;
	close(parent);
	free(path);
	errno = number;
	return result == 0 ? STATUS_OK : failed(place, name, err);
}

enum status place_look(const struct place *place, const char *name, bool *ret, struct error *err)
{
	struct stat st;
	enum status status = place_lstat(place, name, &st, err);
	*ret = status == STATUS_OK;
	return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

bool place_has(const struct place *place, const char *name)
{
	struct stat st;
	struct error ignored;
	return place_lstat(place, name, &st, &ignored) == STATUS_OK;
}

/* ---- directories --------------------------------------------------------------------------------------------------------- */

enum status place_list(const struct place *place, const char *name, DIR **ret, struct error *err)
{
	int fd = open_place(place, name, O_RDONLY | O_DIRECTORY, 0);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (directory) {
		*ret = directory;
		return STATUS_OK;
	}
	enum status status = failed(place, name, err);
	if (fd >= 0) close(fd);
	return status;
}

static enum status use_entry(const char *directory, const char *entry, place_entry_fn use, void *context, struct error *err)
{
	char *name;
	if (!directory) return use(context, entry, entry, err);
	if (asprintf(&name, "%s/%s", directory, entry) < 0) return no_memory(err);
	enum status status = use(context, name, name + strlen(directory) + 1, err);
	free(name);
	return status;
}

enum status place_each(const struct place *place, const char *name, place_entry_fn use, void *context, struct error *err)
{
	DIR *stream;
	TRY(place_list(place, name, &stream, err));
	enum status status = STATUS_OK;
	while (status == STATUS_OK) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry) {
			if (errno) status = failed(place, name, err);
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			status = use_entry(name, entry->d_name, use, context, err);
	}
	closedir(stream);
	return status;
}

enum status place_sync(const struct place *place, const char *name, struct error *err)
{
	struct file directory = {.fd = open_place(place, name, O_RDONLY | O_DIRECTORY, 0)};
	if (directory.fd < 0) return failed(place, name, err);
	directory.path = place_text(place, name);
	enum status status = directory.path ? file_sync(&directory, err) : no_memory(err);
	close(directory.fd);
	free(directory.path);
	return status;
}

static enum status sync_parent(const struct place *place, const char *name, struct error *err)
{
	char *path = join(place, name);
	if (!path) return no_memory(err);
	char *slash = strrchr(path, '/');
	if (slash) *slash = 0;
	struct place parent = {place->root, slash == path ? (char *)"/" : slash ? path : (char *)"."};
	enum status status = place_sync(&parent, NULL, err);
	free(path);
	return status;
}

/* One directory, whose parent is there. */
static enum status make_one(const struct place *place, struct error *err)
{
	char *path;
	const char *last;
	struct stat st;
	int parent = open_parent(place, NULL, &path, &last);
	if (parent < 0) return failed(place, NULL, err);
	int result = mkdirat(parent, last, 0777), number = errno;
	close(parent);
	free(path);
	errno = number;
	if (result == 0) return sync_parent(place, NULL, err);
	if (errno != EEXIST) return failed(place, NULL, err);
	TRY(place_stat(place, NULL, &st, err));
	if (S_ISDIR(st.st_mode)) return STATUS_OK;
	errno = ENOTDIR;
	return failed(place, NULL, err);
}

enum status place_make(const struct place *place, const char *name, struct error *err)
{
	char *path = join(place, name);
	if (!path) return no_memory(err);
	enum status status = STATUS_OK;
	struct place partial = {place->root, path};
	for (char *slash = strchr(path + (*path == '/'), '/'); slash && status == STATUS_OK; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		status = make_one(&partial, err);
		*slash = '/';
	}
	if (status == STATUS_OK && strcmp(path, ".") != 0) status = make_one(&partial, err);
	free(path);
	return status;
}

/* Removes `name` in the directory `parent`, and all below it; follows no link. -1 with errno set. */
static int remove_in(int parent, const char *name, int depth)
{
	struct dirent *entry;
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return 0;
	if (errno != EISDIR && errno != EPERM) return -1;
	if (depth == MAX_NESTED) {
		errno = ELOOP;
		return -1;
	}
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), result = 0;
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		if (fd >= 0) close(fd);
		return -1;
	}
	while (result == 0 && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			result = remove_in(fd, entry->d_name, depth + 1);
	int number = errno;
	closedir(directory);
	errno = number;
	if (result == 0 && unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT) result = -1;
	return result;
}

enum status place_remove(const struct place *place, const char *name, struct error *err)
{
	char *path;
	const char *last;
	int parent = open_parent(place, name, &path, &last);
	if (parent < 0) return errno == ENOENT ? STATUS_OK : failed(place, name, err);
	int result = remove_in(parent, last, 0), number = errno;
	close(parent);
	free(path);
	errno = number;
	return result == 0 ? STATUS_OK : failed(place, name, err);
}

/* ---- renaming -------------------------------------------------------------------------------------------------------------- */

static int rename_at(int from, const char *from_last, int to, const char *to_last, enum place_rename how)
{
	static const unsigned flags[] = {[PLACE_REPLACE] = 0, [PLACE_NEW] = RENAME_NOREPLACE, [PLACE_SWAP] = RENAME_EXCHANGE};
	struct stat st;
	int result = file_calls.renameat2(from, from_last, to, to_last, flags[how]);
	if (result == 0 || errno != EINVAL || how != PLACE_NEW) return result;
	/* NFS and others know no flags. */
	if (fstatat(to, to_last, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return file_calls.renameat2(from, from_last, to, to_last, 0);
}

/* Why a rename failed. */
static enum status rename_failed(const struct place *from, const char *from_name, const struct place *to, const char *to_name,
				 enum place_rename how, struct error *err)
{
	int number = errno;
	char *source = place_text(from, from_name), *target = place_text(to, to_name);
	enum status status;
	errno = number;
	if (!source || !target)
		status = no_memory(err);
	else if (how == PLACE_SWAP && (number == EINVAL || number == ENOSYS))
		status = error_set(err, STATUS_UNSUPPORTED, "%s: the file system cannot exchange two directories", target);
	else if (number == EXDEV)
		status = error_set(err, STATUS_INVALID, "%s: is not on the file system of %s, or a link leads there", target,
				   source);
	else if (number == EEXIST)
		status = error_set(err, STATUS_EXISTS, "%s: exists already", target);
	else
		status = error_errno(err, "cannot rename %s to %s", source, target);
	free(source);
	free(target);
	return status;
}

static bool same_directory(int a, int b)
{
	struct stat of_a, of_b;
	return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

enum status place_rename(const struct place *from, const char *from_name, const struct place *to, const char *to_name,
			 enum place_rename how, struct error *err)
{
	char *from_path, *to_path;
	const char *from_last, *to_last;
	int from_parent = open_parent(from, from_name, &from_path, &from_last);
	if (from_parent < 0) return failed(from, from_name, err);
	int to_parent = open_parent(to, to_name, &to_path, &to_last);
	if (to_parent < 0) {
		enum status status = failed(to, to_name, err);
		close(from_parent);
		free(from_path);
		return status;
	}
	int result = rename_at(from_parent, from_last, to_parent, to_last, how), number = errno;
	bool same = same_directory(from_parent, to_parent);
	close(from_parent);
	close(to_parent);
	free(from_path);
	free(to_path);
	errno = number;
	if (result != 0) return rename_failed(from, from_name, to, to_name, how, err);
	/* The new name first: after a power cut there may be both, but never none. */
	TRY(sync_parent(to, to_name, err));
	return same ? STATUS_OK : sync_parent(from, from_name, err);
}
