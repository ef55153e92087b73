/* Files and directories that a client names, below the directories that the operator has opened to clients.
 *
 * Each call opens what it needs below the root's descriptor (openat2 with RESOLVE_BENEATH; where the kernel lacks it, component
 * by component without following a link unseen). So links are followed as long as they stay inside the root, as those of a
 * Hugging Face cache do, and no link leads out of it, however often one is put in place between two calls: that is
 * STATUS_INVALID, and says what to do. What is outside is not told. */
#ifndef BESAD_BASE_PLACE_H
#define BESAD_BASE_PLACE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"

struct place {
	char *root; /* a real path; NULL where nothing confines: then `path` is opened as it is */
	char *path; /* below the root, without "." and ".." */
};

/* A place without bounds, for what the operator or a test names; borrows `name`. */
#define PLACE(name)                                                                                                                \
	(struct place)                                                                                                             \
	{                                                                                                                          \
		.path = (char *)(name)                                                                                             \
	}

/* The place of `text` in the first of the NULL-terminated `roots` that has it; an absolute path must lie in one of them, a
 * relative one is taken from each root, or from `here` where that is not NULL. STATUS_INVALID for ".." and what leads out of its
 * root, STATUS_NOT_FOUND.
 * *ret is freed with place_free. */
enum status place_find(char *const *roots, const char *here, const char *text, struct place *ret, struct error *err);

/* `name`, a path without "..", below `place`; `place` itself where it is NULL. *ret is freed with place_free. */
enum status place_below(const struct place *, const char *name, struct place *ret, struct error *err);
void place_free(struct place *);

/* The whole path, for messages. The caller frees it; NULL without memory. */
char *place_text(const struct place *, const char *name);

/* Takes the operator's paths out of a message for a client: names below the place stay, and its own last component. */
void place_hide(const struct place *, struct error *err);
void place_hide_roots(char *const *roots, struct error *err); /* the NULL-terminated roots; takes NULL */

/* In all of these `name` is a file or directory below the place; the place itself where it is NULL. What is written is no link. */

enum status place_open(const struct place *, const char *name, struct file *ret, struct error *err);       /* a regular file */
enum status place_open_write(const struct place *, const char *name, struct file *ret, struct error *err); /* that exists */
enum status place_create(const struct place *, const char *name, int64_t size, struct file *ret,
			 struct error *err); /* as file_create */
enum status place_slurp(const struct place *, const char *name, size_t limit, char **ret_text, size_t *ret_bytes,
			struct error *err);

/* Replaces a file by the bytes given: written beside it, under its name and PLACE_UNFINISHED, fsync, rename, fsync of the
 * directory. */
#define PLACE_UNFINISHED ".tmp"
enum status place_replace(const struct place *, const char *name, const void *bytes, size_t size, struct error *err);

enum status place_list(const struct place *, const char *name, DIR **ret, struct error *err); /* for readdir, closedir */

/* Calls `use` for each entry of a directory but "." and "..", in no order, with its name below the place, whose last component
 * is `entry`. */
typedef enum status (*place_entry_fn)(void *context, const char *name, const char *entry, struct error *err);
enum status place_each(const struct place *, const char *name, place_entry_fn use, void *context, struct error *err);

enum status place_stat(const struct place *, const char *name, struct stat *ret, struct error *err); /* of what a link leads to */

enum status place_lstat(const struct place *, const char *name, struct stat *ret, struct error *err); /* of a link itself */

/* Is there anything of that name, be it a link that leads nowhere? */
bool place_has(const struct place *, const char *name);

/* The same, where what cannot be found out must not be taken for absence. */
enum status place_look(const struct place *, const char *name, bool *ret, struct error *err);

enum status place_make(const struct place *, const char *name,
		       struct error *err); /* directories, like mkdir -p; the root must be there */
enum status place_sync(const struct place *, const char *name, struct error *err); /* a directory */
enum status place_remove(const struct place *, const char *name,
			 struct error *err); /* with its contents; no error when it is not there */

/* Makes the file `path`, of `bytes` bytes, or replaces it: it is filled under another name, "<path>.new", synced, and renamed
 * durably. `fill` may be NULL, for zeros. On failure the other name is gone, and what was there before stays. */
typedef enum status (*file_fill_fn)(void *context, const struct file *, struct error *err);
enum status place_fill(const char *path, int64_t bytes, file_fill_fn fill, void *context, struct error *err);

/* Renames durably, both below their roots. The last component is renamed itself, be it a link. */
enum place_rename {
	PLACE_REPLACE, /* the target is replaced */
	PLACE_NEW,     /* the target must not exist: STATUS_EXISTS */
	PLACE_SWAP,    /* the target must exist and gets the other's name; STATUS_UNSUPPORTED where the file system cannot do it */
};
enum status place_rename(const struct place *from, const char *from_name, const struct place *to, const char *to_name,
			 enum place_rename how, struct error *err);

#endif
