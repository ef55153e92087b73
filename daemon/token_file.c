#include "daemon/token_file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

/* What systemd passes on (LoadCredential=) is in a directory of the service alone, and may have it read by an access list, which looks like a
 * group's bits. */
static bool is_credential(const char *path)
{
	char file[PATH_MAX], directory[PATH_MAX];
	const char *named = getenv("CREDENTIALS_DIRECTORY");
	if (!named || !realpath(named, directory) || !realpath(path, file)) return false;
	size_t length = strlen(directory);
	return text_starts_with(file, directory) && file[length] == '/';
}

/* A group's bits are fine where it is besad's own and they are how it comes to read the file at all: root's, as in root:besad 0640. */
static bool is_private(const char *path, const struct stat *file)
{
	const mode_t read_or_write = 06;
	if (!S_ISREG(file->st_mode) || is_credential(path)) return true;
	bool lent = file->st_uid == 0 && geteuid() != 0 && file->st_gid == getegid() && !(file->st_mode & S_IWGRP);
	return !(file->st_mode & (read_or_write | (lent ? 0 : read_or_write << 3)));
}

enum status token_file_read(const char *path, struct tokens **ret, struct error *err)
{
	struct stat file;
	char *text;
	size_t bytes;
	if (stat(path, &file) != 0) return error_errno(err, "%s", path);
	if (!is_private(path, &file))
		return error_set(err, STATUS_INVALID,
				 "%s: others can read or write it (mode %03o); chmod 600, as it holds what they would need", path,
				 (unsigned)file.st_mode & 0777);
	TRY(file_slurp(path, TOKENS_MAX_BYTES, &text, &bytes, err));
	enum status status =
		strlen(text) == bytes ? tokens_parse(text, path, ret, err) : error_set(err, STATUS_INVALID, "%s: is no text", path);
	explicit_bzero(text, bytes);
	free(text);
	return status;
}
