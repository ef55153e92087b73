#include "engine/roots.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool climbs(const char *path)
{
	for (const char *s = path; s; s = strchr(s, '/')) {
		s += *s == '/';
		if (strncmp(s, "..", 2) == 0 && (s[2] == '/' || s[2] == 0)) return true;
	}
	return false;
}

static bool is_inside(const char *root, const char *path)
{
	size_t length = strlen(root);
	while (length > 0 && root[length - 1] == '/')
		length--;
	return strncmp(root, path, length) == 0 && (path[length] == '/' || path[length] == 0);
}

enum status roots_resolve(char *const *roots, const char *path, char **ret, struct error *err)
{
	if (!*path) return error_set(err, STATUS_INVALID, "must not be empty");
	if (climbs(path)) return error_set(err, STATUS_INVALID, "'%.200s' has '..'", path);
	bool absolute = *path == '/', leaves = false, outside = true;
	for (; roots && *roots; roots++) {
		char root[PATH_MAX], real[PATH_MAX], joined[PATH_MAX];
		if (!realpath(*roots, root)) continue;
		if (snprintf(joined, sizeof joined, "%s%s%s", absolute ? "" : root, absolute ? "" : "/", path) >=
		    (int)sizeof joined)
			return error_set(err, STATUS_INVALID, "the path is too long");
		bool below = !absolute || is_inside(*roots, path) || is_inside(root, path);
		if (below) outside = false;
		if (!realpath(joined, real)) continue;
		if (!is_inside(root, real)) {
			if (below) leaves = true;
			continue;
		}
		char *copy = strdup(real);
		if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory to look up a path");
		*ret = copy;
		return STATUS_OK;
	}
	if (leaves) return error_set(err, STATUS_INVALID, "'%.200s' leads out of its root", path);
	if (absolute && outside) return error_set(err, STATUS_INVALID, "'%.200s' is outside the roots", path);
	return error_set(err, STATUS_NOT_FOUND, "'%.200s' is not there", path);
}
