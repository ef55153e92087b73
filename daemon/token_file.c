#include "daemon/token_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "daemon/secret.h"

enum status token_file_read(const char *path, struct tokens **ret, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(secret_check(path, err));
	TRY(file_slurp(path, TOKENS_MAX_BYTES, &text, &bytes, err));
	enum status status =
		strlen(text) == bytes ? tokens_parse(text, path, ret, err) : error_set(err, STATUS_INVALID, "%s: is no text", path);
	explicit_bzero(text, bytes);
	free(text);
	return status;
}
