/* What a data file is: its bytes say.
 *
 * The first 64 KiB decide, unpacked where the file is gzip or zstd. The name, as the client wrote it (a Hugging Face cache
 * links c4.json.gz to a blob without a suffix), counts only where the bytes leave it open. In this order:
 *
 *   1. Formats that besad does not read are refused by name, with what to do: Parquet, Arrow, bzip2, xz, zip, NumPy,
 *      PyTorch, pickle, HDF5 and so on, by their first bytes; git-lfs pointers and HTML pages that were saved in the file's
 *      place; UTF-16 and UTF-32; other binary data, which a zero byte or many control characters betray; other encodings than
 *      UTF-8, see census.h. safetensors is DATA_TOKENS.
 *   2. A JSON array: "[" and values parted by commas, with nothing behind its "]"; the first value may be longer than the
 *      64 KiB. JSON Lines: at least half of the first 32 lines that are not blank are whole JSON objects with a member; or the
 *      file begins with one such object that is longer than the 64 KiB. JSON objects over several lines each: what follows
 *      each of them is the next one's "{" or the end.
 *   3. A name in .json, .jsonl or .ndjson (in any case, a .gz or .zst behind it) makes JSON of what is none of these, so
 *      that a broken file is told as such. .safetensors, .csv and .tsv are refused.
 *   4. All else is plain text: "[ edit ]", "{\em LaTeX}", code. */
#ifndef BESAD_ENGINE_KIND_H
#define BESAD_ENGINE_KIND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/text/unpack.h"

enum data_kind {
	DATA_TEXT,         /* plain UTF-8 text: one document */
	DATA_JSON_LINES,   /* a JSON object a line */
	DATA_JSON_OBJECTS, /* JSON objects one behind the other, of several lines each */
	DATA_JSON_ARRAY,   /* one JSON array of rows, on however many lines */
	DATA_TOKENS,       /* safetensors */
};

/* "text", "json_lines", "json_objects", "json_array", "tokens". */
const char *data_kind_name(enum data_kind);

/* `file` is open; a head of it is read. `name` is the path as the client wrote it. An empty file and what besad does not read are
 * STATUS_INVALID, what it knows but cannot read STATUS_UNSUPPORTED; the message begins with the file's path and says what to do.
 * `ret_compression` may be NULL. */
enum status data_kind_find(const struct file *file, const char *name, enum data_kind *ret, enum compression *ret_compression,
			   struct error *err);

#endif
