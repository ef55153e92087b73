#include "daemon/secret.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

enum { MAX_GROUPS = 256 };

/* What systemd passes on (LoadCredential=) is in a directory of the service alone, and may have it read by an access list, which
 * looks like a group's bits. */
static bool is_credential(const char *path)
{
	char file[PATH_MAX], directory[PATH_MAX];
	const char *named = getenv("CREDENTIALS_DIRECTORY");
	if (!named || !realpath(named, directory) || !realpath(path, file)) return false;
	size_t length = strlen(directory);
	return text_starts_with(file, directory) && file[length] == '/';
}

static bool in_group(gid_t group)
{
	gid_t groups[MAX_GROUPS];
	int n = getgroups(MAX_GROUPS, groups);
	bool found = group == getegid();
	for (int i = 0; i < n; i++)
		found |= groups[i] == group;
	return found;
}

/* A group may read what is root's where that is how besad, which is in it, comes to read it at all, as in root:besad 0640. */
static bool is_private(const char *path, const struct stat *file)
{
	const mode_t read_or_write = 06;
	if (!S_ISREG(file->st_mode) || is_credential(path)) return true;
	bool lent = file->st_uid == 0 && geteuid() != 0 && !(file->st_mode & S_IWGRP) && in_group(file->st_gid);
	return !(file->st_mode & (read_or_write | (lent ? 0 : read_or_write << 3)));
}

enum status secret_check(const char *path, struct error *err)
{
	struct stat file;
	if (stat(path, &file) != 0) return error_errno(err, "%s", path);
	if (is_private(path, &file)) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: others can read or write it (mode %03o), and it is a secret: chmod 600", path,
			 (unsigned)file.st_mode & 0777);
}
