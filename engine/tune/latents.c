/* Of a section: "BESALAT1", I64 block, bytes of the section, U32 CRC-32 of the parts, all in the machine's byte order, padding to
 * 64 bytes, then the parts. All sections have the same bytes. */
#include "engine/tune/latents.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/place.h"
#include "engine/tune/parts.h"

enum { HEADER_BYTES = 64, PARTS = 2 * FUSED_COUNT };
static const char MAGIC[8] = "BESALAT1";

struct header {
	char magic[8];
	int64_t block, bytes;
	uint32_t crc32;
	char padding[HEADER_BYTES - 28];
};

struct section {
	struct part parts[PARTS];
	int64_t bytes; /* with its header */
};

static struct section section_of(const struct tensor *master, const struct tensor *strength)
{
	struct section section = {0};
	for (int f = 0; f < FUSED_COUNT; f++) {
		section.parts[2 * f] = part_of(&master[f]);
		section.parts[2 * f + 1] = part_of(&strength[f]);
	}
	section.bytes = HEADER_BYTES + parts_bytes(section.parts, PARTS);
	return section;
}

bool latents_wanted(const struct spec *spec)
{
	return spec->quantization.bits && spec->refit.method == REFIT_GLOBAL;
}

enum status latents_path(const struct savepoint *savepoint, char path[4096], struct error *err)
{
	if (snprintf(path, 4096, "%s/latents.bin", savepoint->directory) < 4096) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "path too long: %s", savepoint->directory);
}

static enum status open_or_make(const char *path, int64_t bytes, struct file *ret, struct error *err)
{
	enum status status = file_open_write(path, ret, err);
	if (status == STATUS_OK && ret->size == bytes) return STATUS_OK;
	if (status == STATUS_OK) file_close(ret);
	if (status != STATUS_OK && status != STATUS_NOT_FOUND) return status;
	TRY(place_fill(path, bytes, NULL, NULL, err));
	return file_open_write(path, ret, err);
}

enum status latents_save(const struct block *block, const struct quantizer *quantizer, int index, int64_t layers, const char *path,
			 struct error *err)
{
	const struct section section = section_of(block->master, quantizer->strength);
	struct header header = {.block = index, .bytes = section.bytes};
	int64_t at = index * section.bytes;
	struct file file;
	memcpy(header.magic, MAGIC, sizeof header.magic);
	TRY(open_or_make(path, layers * section.bytes, &file, err));
	enum status status = parts_write(block->backend, section.parts, PARTS, &file, at + HEADER_BYTES, &header.crc32, err);
	if (status == STATUS_OK) status = file_write(&file, &header, sizeof header, at, err);
	if (status == STATUS_OK) status = file_sync(&file, err);
	file_close(&file);
	return status;
}

static enum status read_section(struct backend *backend, const struct section *section, int index, const struct file *file,
				struct error *err)
{
	struct header header;
	uint32_t crc;
	int64_t at = index * section->bytes;
	TRY(file_read(file, &header, sizeof header, at, err));
	if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0 || header.block != index || header.bytes != section->bytes)
		return error_set(err, STATUS_INVALID, "%s: has no weights of block %d; submit the job again", file->path, index);
	TRY(parts_read(backend, section->parts, PARTS, file, at + HEADER_BYTES, &crc, err));
	if (crc == header.crc32) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: is damaged: the checksum of block %d is %08" PRIx32 ", and was %08" PRIx32
			 " when it was written; the job cannot go on from it: look after the disk, and submit the job again",
			 file->path, index, crc, header.crc32);
}

enum status latents_load(struct backend *backend, const struct tensor *master, const struct tensor *strength, int index,
			 const char *path, struct error *err)
{
	const struct section section = section_of(master, strength);
	struct file file;
	TRY(file_open_read(path, &file, err));
	enum status status = read_section(backend, &section, index, &file, err);
	file_close(&file);
	return status;
}
