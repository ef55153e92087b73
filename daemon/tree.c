#include "daemon/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { MAX_NAME_BYTES = 1000 }; /* of a path below the root: what fits into a spec's limit whatever its characters */

struct walk {
	const char *root;
	struct tree_limits *limits;
	tree_visit *visit;
	void *context;
	bool whole;
};

static void free_entries(struct tree_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(entries[i].name);
	free(entries);
}

static bool is_nameable(const char *name)
{
	for (const char *s = name; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
	return *name != '.' && utf8_valid(name, strlen(name));
}

/* Fills *ret but for its name; false for what is not listed. */
static bool look_at(const struct place *directory, int fd, const char *name, struct tree_entry *ret)
{
	struct error ignored;
	struct stat target;
	ret->lost = false;
	if (!is_nameable(name) || fstatat(fd, name, &ret->info, AT_SYMLINK_NOFOLLOW) != 0) return false;
	if (S_ISREG(ret->info.st_mode) || S_ISDIR(ret->info.st_mode)) return true;
	if (!S_ISLNK(ret->info.st_mode)) return false;
	ret->lost = place_stat(directory, name, &target, &ignored) != STATUS_OK;
	if (ret->lost) return true;
	ret->info = target;
	return S_ISREG(target.st_mode);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct tree_entry *)a)->name, ((const struct tree_entry *)b)->name);
}

/* All entries of an open directory that are listed. */
static void read_entries(struct walk *walk, struct tree_directory *directory, DIR *stream)
{
	size_t room = 0;
	for (struct dirent *entry; (entry = readdir(stream));) {
		struct tree_entry found;
		if (walk->limits->entries == 0) {
			walk->whole = false;
			break;
		}
		walk->limits->entries--;
		if (!look_at(&directory->place, dirfd(stream), entry->d_name, &found)) continue;
		if (directory->count == room) {
			struct tree_entry *more = realloc(directory->entries, (2 * room + 16) * sizeof *more);
			if (more) {
				directory->entries = more;
				room = 2 * room + 16;
			}
		}
		found.name = directory->count < room ? strdup(entry->d_name) : NULL;
		if (!found.name) {
			walk->whole = false;
			break;
		}
		directory->entries[directory->count++] = found;
	}
	if (directory->count) qsort(directory->entries, directory->count, sizeof *directory->entries, by_name);
}

static bool has_directory(const struct tree_directory *directory, const char *name)
{
	for (size_t i = 0; i < directory->count; i++)
		if (S_ISDIR(directory->entries[i].info.st_mode) && strcmp(directory->entries[i].name, name) == 0) return true;
	return false;
}

static void visit(struct walk *walk, const char *name, int depth);

static void visit_below(struct walk *walk, const struct tree_directory *directory)
{
	bool repository = has_directory(directory, "snapshots") && has_directory(directory, "blobs");
	for (size_t i = 0; i < directory->count; i++) {
		const struct tree_entry *entry = &directory->entries[i];
		if (!S_ISDIR(entry->info.st_mode) || (repository && strcmp(entry->name, "snapshots") != 0)) continue;
		char *name;
		if (directory->depth == walk->limits->depth ||
		    asprintf(&name, "%s%s%s", directory->name, *directory->name ? "/" : "", entry->name) < 0) {
			walk->whole = false;
			return;
		}
		if (strlen(name) <= MAX_NAME_BYTES) visit(walk, name, directory->depth + 1);
		free(name);
	}
}

static void visit(struct walk *walk, const char *name, int depth)
{
	struct error err;
	DIR *stream = NULL;
	struct tree_directory directory = {
		.place = {(char *)walk->root, (char *)(*name ? name : ".")}, .name = name, .depth = depth};
	if (place_list(&directory.place, NULL, &stream, &err) == STATUS_OK) {
		read_entries(walk, &directory, stream);
		closedir(stream);
	} else if (err.status == STATUS_NO_MEMORY) {
		walk->whole = false;
		return;
	} else {
		place_hide(&directory.place, &err);
		directory.failure = err.message;
	}
	if (walk->visit(walk->context, &directory)) visit_below(walk, &directory);
	free_entries(directory.entries, directory.count);
}

bool tree_walk(const char *root, struct tree_limits *limits, tree_visit *callback, void *context)
{
	struct walk walk = {.root = root, .limits = limits, .visit = callback, .context = context, .whole = true};
	visit(&walk, "", 0);
	return walk.whole;
}
