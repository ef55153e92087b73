/* A walk through the directories below an operator's root, for the lists of models and data. */
#ifndef BESAD_DAEMON_TREE_H
#define BESAD_DAEMON_TREE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/place.h"

/* A regular file, or a directory. Links to files are followed as far as they stay below the root; links to directories are left
 * out, since what they lead to is listed where it lies; and so is what begins with a dot, or has a name that no spec can give. */
struct tree_entry {
	char *name;
	struct stat info; /* of a link: of what it leads to */
	bool lost;        /* a link that leads nowhere, or out of the root: `info` is its own */
};

struct tree_directory {
	struct place place;
	const char *name; /* below the root; "" for the root itself, whose depth is 0 */
	int depth;
	struct tree_entry *entries; /* by name */
	size_t count;
	const char *failure; /* why it cannot be listed, or NULL */
};

/* What a walk stops at. */
struct tree_limits {
	int depth;      /* of directories: what lies deeper is not looked at */
	size_t entries; /* seen in all: counts down, so that it holds for several roots */
};

/* Returns whether the directories in this one are to be visited. */
typedef bool tree_visit(void *context, const struct tree_directory *);

/* Visits the root and, in the order of their names, the directories below it. In a repository of a Hugging Face cache only its
 * snapshots are visited: they link to all the rest. False when a limit, or lack of memory, has left something out. */
bool tree_walk(const char *root, struct tree_limits *, tree_visit *, void *context);

#endif
