#include "ctl/input.h"

#include <stdio.h>
#include <string.h>

enum status input_read(const char *path, size_t limit, struct buffer *ret, struct error *err)
{
	bool standard = strcmp(path, "-") == 0;
	const char *name = standard ? "standard input" : path;
	FILE *file = standard ? stdin : fopen(path, "re");
	struct buffer text = {0};
	char piece[16 << 10];
	size_t size;
	if (!file) return error_errno(err, "%s", path);
	buffer_append(&text, "", 0);
	while (text.size <= limit && (size = fread(piece, 1, sizeof piece, file)) > 0)
		buffer_append(&text, piece, size);
	enum status status = STATUS_OK;
	if (ferror(file))
		status = error_errno(err, "%s", name);
	else if (text.failed)
		status = error_set(err, STATUS_NO_MEMORY, "no memory for %s", name);
	else if (text.size > limit)
		status = error_set(err, STATUS_INVALID, "%s is larger than %zu bytes", name, limit);
	if (!standard) fclose(file);
	if (status) {
		buffer_free(&text);
		return status;
	}
	*ret = text;
	return STATUS_OK;
}
