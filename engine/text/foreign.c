#include "engine/text/foreign.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/lfs.h"

static const char
	as_lines[] = "write its rows as JSON Lines, one object with a text field a line",
	unpack_it[] = "unpack it first", as_tokens[] = "store token ids as a safetensors file with a tensor 'input_ids'",
	as_utf8[] = "write it as UTF-8 text (iconv -t UTF-8)",
	tables[] = "write its rows as JSON Lines (pandas: read_parquet or read_feather, then to_json(path, orient='records', "
		   "lines=True); datasets: Dataset.to_json)",
	fetch_page[] = "it was saved in the file's place, so download the file itself";

struct format {
	const char *magic;
	unsigned bytes, at;
	const char *name, *advice;
};

static const struct format formats[] = {
	{"ARROW1\0\0", 8, 0, "an Arrow file", tables},
	{"\xff\xff\xff\xff", 4, 0, "an Arrow stream", tables},
	{"Obj\x01", 4, 0, "an Avro file", as_lines},
	{"SQLite format 3\0", 16, 0, "an SQLite database", as_lines},
	{"\x89HDF\r\n\x1a\n", 8, 0, "an HDF5 file", as_tokens},
	{"\x93NUMPY", 6, 0, "a NumPy array", as_tokens},
	{"MMIDIDX\0\0", 9, 0, "an index of a Megatron data set", as_tokens},
	{"\x80\x02", 2, 0, "a Python pickle, as torch.save wrote it", as_tokens},
	{"\x80\x03", 2, 0, "a Python pickle", as_tokens},
	{"\x80\x04\x95", 3, 0, "a Python pickle", as_tokens},
	{"\x80\x05\x95", 3, 0, "a Python pickle", as_tokens},
	{"\xfd"
	 "7zXZ\0",
	 6, 0, "packed with xz", "unpack it (unxz), or pack it with gzip or zstd"},
	{"\x5d\0\0", 3, 0, "packed with lzma", "unpack it (unlzma), or pack it with gzip or zstd"},
	{"\x04\x22\x4d\x18", 4, 0, "packed with lz4", "unpack it (unlz4), or pack it with gzip or zstd"},
	{"\xff\x06\0\0sNaPpY", 10, 0, "packed with snappy", "unpack it, or pack it with gzip or zstd"},
	{"7z\xbc\xaf\x27\x1c", 6, 0, "a 7z archive", unpack_it},
	{"Rar!\x1a\x07", 6, 0, "a RAR archive", unpack_it},
	{"ustar", 5, 257, "a tar archive", "unpack it (tar -x) and name a file of it"},
	{"%PDF-", 5, 0, "a PDF document", "extract its text first"},
	{"\x1f\x8b", 2, 0, "packed with gzip", unpack_it},
	{"\x28\xb5\x2f\xfd", 4, 0, "packed with zstd", unpack_it},
	{"# xet version", 13, 0, "a git-xet pointer, not the file that it stands for", "download the file itself"},
	{"\xff\xfe\0\0", 4, 0, "UTF-32 text", as_utf8},
	{"\0\0\xfe\xff", 4, 0, "UTF-32 text", as_utf8},
	{"\xff\xfe", 2, 0, "UTF-16 text", as_utf8},
	{"\xfe\xff", 2, 0, "UTF-16 text", as_utf8},
};

/* A text might begin so: a control character must be there too. */
static const struct format lettered[] = {
	{"PAR1", 4, 0, "a Parquet file", tables},
	{"PARE", 4, 0, "an encrypted Parquet file", tables},
	{"FEA1", 4, 0, "a Feather file", tables},
	{"DUCK", 4, 8, "a DuckDB database", as_lines},
	{"GGUF", 4, 0, "a GGUF model", "give a file with text or token ids"},
	{"BZh", 3, 0, "packed with bzip2", "unpack it (bunzip2), or pack it with gzip or zstd"},
};

/* A zip archive's first entry tells what program it is for: its name is 30 bytes in, and its length at 26. */
static bool is_zip(const char *head, size_t bytes, struct format *ret)
{
	if (bytes < 4 || head[0] != 'P' || head[1] != 'K' || (memcmp(head + 2, "\3\4", 2) && memcmp(head + 2, "\5\6", 2)))
		return false;
	*ret = (struct format){.name = "a zip archive", .advice = "unpack it (unzip) and name a file of it"};
	if (bytes < 30) return true;
	size_t length = (unsigned char)head[26] | (size_t)(unsigned char)head[27] << 8;
	if (length > bytes - 30) length = bytes - 30;
	if (memmem(head + 30, length, "data.pkl", 8) || memmem(head + 30, length, ".format_version", 15))
		*ret = (struct format){.name = "a PyTorch file, as torch.save writes it", .advice = as_tokens};
	else if (length > 4 && memcmp(head + 30 + length - 4, ".npy", 4) == 0)
		*ret = (struct format){.name = "NumPy arrays (.npz)", .advice = as_tokens};
	return true;
}

/* UTF-16 or UTF-32 without a mark: most characters of a text are ASCII, so that one byte in two, or in four, is printable and
 * the others are zero. Token ids of two or four bytes are not so. */
static bool is_wide_text(const char *head, size_t bytes, struct format *ret)
{
	for (size_t width = 2; width <= 4; width += 2)
		for (size_t at = 0; at < width; at += width - 1) {
			size_t units = (bytes < 4096 ? bytes : 4096) / width, ascii = 0;
			for (size_t i = 0; i < units; i++) {
				size_t zeros = 0;
				for (size_t j = 0; j < width; j++)
					zeros += head[i * width + j] == 0;
				unsigned char c = (unsigned char)head[i * width + at];
				ascii += zeros == width - 1 && (isprint(c) || isspace(c));
			}
			if (units < 4 || ascii * 10 < units * 9) continue;
			*ret = (struct format){.name = width == 2 ? "UTF-16 text" : "UTF-32 text", .advice = as_utf8};
			return true;
		}
	return false;
}

/* A page that says why there is no file: HTML, or the XML of an object store. */
static bool is_page(const char *head, size_t bytes, struct format *ret)
{
	static const char *const begins[] = {"<!doctype html", "<html"};
	if (bytes >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0) head += 3, bytes -= 3;
	while (bytes && isspace((unsigned char)*head))
		head++, bytes--;
	bool found = bytes > 5 && memcmp(head, "<?xml", 5) == 0 && memmem(head, bytes < 200 ? bytes : 200, "<Error>", 7);
	for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
		found = found || (bytes >= strlen(begins[i]) && strncasecmp(head, begins[i], strlen(begins[i])) == 0);
	*ret = (struct format){.name = "a web page, such as a server's error message", .advice = fetch_page};
	return found;
}

/* A link into a Hugging Face cache that a copy turned into a file with the link's target as its text. */
static bool is_former_link(const char *head, size_t bytes, struct format *ret)
{
	*ret = (struct format){.name = "a link that became a text file when it was copied",
			       .advice = "copy the cache with its links, or name the file in blobs/"};
	if (bytes < 3 || bytes >= 512 || memcmp(head, "../", 3) != 0) return false;
	for (size_t i = 0; i < bytes; i++)
		if (!isgraph((unsigned char)head[i])) return false;
	return memmem(head, bytes, "/blobs/", 7) != NULL;
}

static bool has_control(const char *head, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)head[i] < ' ' && !isspace((unsigned char)head[i])) return true;
	return false;
}

static bool find_in(const struct format *table, size_t count, const char *head, size_t bytes, struct format *ret)
{
	for (size_t i = 0; i < count; i++) {
		*ret = table[i];
		if (bytes >= ret->at + ret->bytes && memcmp(head + ret->at, ret->magic, ret->bytes) == 0) return true;
	}
	return false;
}

static bool find(const char *head, size_t bytes, struct format *ret)
{
	return find_in(formats, sizeof formats / sizeof *formats, head, bytes, ret) ||
	       (has_control(head, bytes < 512 ? bytes : 512) &&
		find_in(lettered, sizeof lettered / sizeof *lettered, head, bytes, ret)) ||
	       is_zip(head, bytes, ret) || is_wide_text(head, bytes, ret) || is_page(head, bytes, ret) ||
	       is_former_link(head, bytes, ret);
}

enum status foreign_refuse(const struct file *file, const char *head, size_t bytes, enum compression compression, struct error *err)
{
	struct format format;
	if (is_lfs_pointer(head, bytes)) return lfs_pointer_error(file->path, err);
	if (!find(head, bytes, &format)) return STATUS_OK;
	if (compression == COMPRESSION_NONE)
		return error_set(err, STATUS_UNSUPPORTED, "%s: is %s, which besad does not read; %s", file->path, format.name,
				 format.advice);
	return error_set(err, STATUS_UNSUPPORTED, "%s: within its %s is %s, which besad does not read; %s", file->path,
			 compression_name(compression), format.name, format.advice);
}
