/* Archives: every kind of tensor there and back, the smallest form of each, sizes, thousands of damaged archives, and what is
 * refused. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/archive/archive.h"
#include "engine/archive/archive_file.h"
#include "engine/archive/block.h"

/* ---- a file with everything ---------------------------------------------------------------------------------------------- */

static uint64_t generator;

static uint32_t draw(void)
{
	generator = generator * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(generator >> 33);
}

static uint16_t any_bits(int64_t i)
{
	(void)i;
	return (uint16_t)(draw() | 1);
}

/* A bf16 whose exponents are those of weights. */
static uint16_t normal(int64_t i)
{
	float sum = 0;
	uint32_t bits;
	(void)i;
	for (int j = 0; j < 12; j++)
		sum += (float)draw() / (float)(UINT32_C(1) << 31);
	sum = (sum - 6) * 0.02f;
	memcpy(&bits, &sum, sizeof bits);
	return (uint16_t)(bits >> 16 | 1); /* not zero */
}

static uint16_t half_of_normals(int64_t i)
{
	uint16_t value = normal(i);
	return draw() & 1 ? value : 0;
}

static uint16_t half_of_any(int64_t i)
{
	uint16_t value = any_bits(i);
	return draw() & 1 ? value : 0;
}

static uint16_t zero(int64_t i)
{
	(void)i;
	return 0;
}

/* Minus zero, infinities and NaNs of several kinds, with zeros between. */
static uint16_t special(int64_t i)
{
	static const uint16_t values[] = {0x8000, 0, 0x7f80, 0, 0xff80, 0, 0x7fc0, 0, 0xffff, 0, 0x7f81, 0, 0x0001, 0, 0, 0};
	return values[i % 16];
}

/* Rows of 150 that are empty, and rows that are full, and a row in between. */
static uint16_t by_rows(int64_t i)
{
	int64_t row = i / 150;
	return row % 3 == 0 ? 0 : row % 3 == 1 ? normal(i) : half_of_normals(i);
}

/* Codes of `bits` bits, of which half are `zero` and others are the rarer the further they are from it. */
static uint16_t half_of_codes(int bits, int zero)
{
	uint32_t result = 0;
	for (int at = 0; at < 16; at += bits) {
		int off = (int)(draw() % 6) - (int)(draw() % 6);
		result |= (uint32_t)(draw() & 1 ? zero : zero + (bits == 8 ? 9 * off : off)) % (1u << bits) << at;
	}
	return (uint16_t)result;
}

static uint16_t half_of_nibbles(int64_t i)
{
	(void)i;
	return half_of_codes(4, 8);
}

static uint16_t half_of_bytes(int64_t i)
{
	(void)i;
	return half_of_codes(8, 128);
}

static uint16_t around_another(int64_t i)
{
	(void)i;
	return half_of_codes(4, 13);
}

static uint16_t one_code(int64_t i)
{
	(void)i;
	return 0x5555;
}

/* In the order of the file, which is another than that of the types' widths. Values are drawn in pieces of 16 bits. */
static const struct given {
	const char *name, *dtype, *shape;
	int64_t bytes;
	uint16_t (*value)(int64_t);
	enum archive_encoding plain, coded; /* how it is to be kept without codes and with */
} all_given[] = {
	{"flags", "BOOL", "[3]", 3, zero, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"odd \\\"name\\\"", "BF16", "[37,131]", 2 * 37 * 131, half_of_normals, ARCHIVE_MASK, ARCHIVE_MASK_CODED},
	{"rows", "BF16", "[60,150]", 2 * 60 * 150, by_rows, ARCHIVE_MASK, ARCHIVE_MASK_CODED},
	{"zeros", "BF16", "[33,64]", 2 * 33 * 64, zero, ARCHIVE_MASK, ARCHIVE_MASK},
	{"specials", "BF16", "[40,96]", 2 * 40 * 96, special, ARCHIVE_MASK, ARCHIVE_MASK_CODED},
	{"noise", "BF16", "[48,100]", 2 * 48 * 100, any_bits, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"dense", "BF16", "[50,128]", 2 * 50 * 128, normal, ARCHIVE_PLAIN, ARCHIVE_CODED},
	{"wide", "F32", "[20,100]", 4 * 20 * 100, zero, ARCHIVE_MASK, ARCHIVE_MASK},
	{"halves", "F16", "[40,70]", 2 * 40 * 70, half_of_any, ARCHIVE_MASK, ARCHIVE_MASK},
	{"stacked", "BF16", "[3,17,65]", 2 * 3 * 17 * 65, half_of_normals, ARCHIVE_MASK, ARCHIVE_MASK_CODED},
	{"narrow", "BF16", "[900,3]", 2 * 900 * 3, zero, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"vector", "F32", "[5]", 20, any_bits, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"4 bits", "I32", "[101,37]", 4 * 101 * 37, half_of_nibbles, ARCHIVE_MASK, ARCHIVE_CODED},
	{"8 bits", "I32", "[3,17,37]", 4 * 3 * 17 * 37, half_of_bytes, ARCHIVE_MASK, ARCHIVE_CODED},
	{"few nibbles", "I32", "[400,12]", 4 * 400 * 12, around_another, ARCHIVE_MASK, ARCHIVE_CODED},
	{"one code", "I32", "[41,16]", 4 * 41 * 16, one_code, ARCHIVE_MASK, ARCHIVE_MASK},
	{"any codes", "I32", "[20,20]", 4 * 20 * 20, any_bits, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"short", "I32", "[90,7]", 4 * 90 * 7, one_code, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"indices", "I32", "[700]", 4 * 700, one_code, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"nothing", "BF16", "[0,64]", 0, zero, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
	{"scalar", "I64", "[]", 8, any_bits, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
};
enum { GIVEN = sizeof all_given / sizeof *all_given };

struct bytes {
	unsigned char *data;
	size_t size;
};

/* A safetensors file of the tensors given. */
static struct bytes make_file(const struct given *given, size_t count)
{
	char header[8192];
	size_t length = (size_t)snprintf(header, sizeof header, "{ \"__metadata__\": {\"format\": \"pt\"}");
	int64_t at = 0;
	for (size_t i = 0; i < count; at += given[i++].bytes)
		length += (size_t)snprintf(header + length, sizeof header - length,
					   ",\n\"%s\":{\"shape\":%s,\"dtype\":\"%s\",\"data_offsets\":[%lld,%lld]}", given[i].name,
					   given[i].shape, given[i].dtype, (long long)at, (long long)(at + given[i].bytes));
	length += (size_t)snprintf(header + length, sizeof header - length, " }  ");
	struct bytes file = {calloc(1, 8 + length + (size_t)at), 8 + length + (size_t)at};
	assert_non_null(file.data);
	for (int i = 0; i < 8; i++)
		file.data[i] = (unsigned char)(length >> (8 * i));
	memcpy(file.data + 8, header, length);
	unsigned char *to = file.data + 8 + length;
	generator = 1;
	for (size_t i = 0; i < count; to += given[i++].bytes)
		for (int64_t j = 0; 2 * j + 2 <= given[i].bytes; j++) {
			uint16_t value = given[i].value(j);
			memcpy(to + 2 * j, &value, 2);
		}
	return file;
}

/* model/ with that file, and others. */
static struct bytes make_model(struct scratch *s)
{
	struct bytes file = make_file(all_given, GIVEN);
	assert_int_equal(mkdir(scratch_path(s, "model"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(s, "model/sub"), 0700), 0);
	scratch_write(s, "model/model.safetensors", file.data, file.size);
	scratch_text(s, "model/config.json", "{\"a\": 1.0}\n");
	scratch_text(s, "model/sub/empty", "");
	scratch_text(s, "model/.hidden", "not packed");
	return file;
}

static struct place below(struct scratch *s, const char *name)
{
	struct place place;
	SUCCEEDS(place_below(&PLACE(s->directory), name, &place, &s->err));
	return place;
}

static void pack(struct scratch *s, bool coded)
{
	struct place model = below(s, "model"), archive = below(s, "archive");
	const struct archive_options options = {.coded = coded};
	SUCCEEDS(archive_pack(&model, &archive, &options, &s->err));
	place_free(&model);
	place_free(&archive);
}

static enum status unpack(struct scratch *s)
{
	struct place archive = below(s, "archive"), restored = below(s, "restored");
	enum status status = archive_unpack(&archive, &restored, NULL, &s->err);
	place_free(&archive);
	place_free(&restored);
	return status;
}

static enum status verify(struct scratch *s)
{
	struct place archive = below(s, "archive");
	enum status status = archive_verify(&archive, NULL, &s->err);
	place_free(&archive);
	return status;
}

static void expect_file(struct scratch *s, const char *name, const void *bytes, size_t size)
{
	char *text;
	size_t found;
	SUCCEEDS(file_slurp(scratch_path(s, name), size + 1, &text, &found, &s->err));
	assert_int_equal(found, size);
	assert_memory_equal(text, bytes, size);
	free(text);
}

static void expect_encodings(struct scratch *s, bool coded)
{
	struct file file;
	struct archive_file archive;
	SUCCEEDS(file_open_read(scratch_path(s, "archive/model.besad.safetensors"), &file, &s->err));
	SUCCEEDS(archive_file_open(&file, &archive, &s->err));
	assert_int_equal(archive.count, GIVEN);
	for (size_t i = 0; i < GIVEN; i++)
		for (size_t j = 0; j < GIVEN; j++) {
			const struct archived_tensor *tensor = &archive.tensors[j];
			if (strncmp(all_given[i].name, tensor->info.name, 3) != 0) continue;
			if (tensor->entry.encoding != (coded ? all_given[i].coded : all_given[i].plain))
				fail_msg("%s: encoding %d", tensor->info.name, tensor->entry.encoding);
			assert_int_equal(tensor->values_at % (int64_t)stored_width(&tensor->info), 0);
		}
	archive_file_close(&archive);
	file_close(&file);
}

static void there_and_back(void **state)
{
	struct scratch *s = *state;
	struct bytes model = make_model(s);
	for (int coded = 0; coded < 2; coded++) {
		pack(s, coded);
		expect_encodings(s, coded);
		SUCCEEDS(verify(s));
		SUCCEEDS(unpack(s));
		expect_file(s, "restored/model.safetensors", model.data, model.size);
		expect_file(s, "restored/config.json", "{\"a\": 1.0}\n", 11);
		expect_file(s, "restored/sub/empty", "", 0);
		assert_false(path_exists(scratch_path(s, "restored/.hidden")));
	}
	free(model.data);
}

static void the_bytes_depend_on_no_threads(void **state)
{
	struct scratch *s = *state;
	struct bytes model = make_model(s);
	char *one;
	size_t size;
	int before = omp_get_max_threads();
	omp_set_num_threads(1);
	pack(s, true);
	SUCCEEDS(file_slurp(scratch_path(s, "archive/model.besad.safetensors"), 1 << 24, &one, &size, &s->err));
	omp_set_num_threads(5);
	pack(s, true);
	omp_set_num_threads(before);
	expect_file(s, "archive/model.besad.safetensors", one, size);
	free(one);
	free(model.data);
}

/* Large enough that headers and alignment are little beside it, and in several pieces. */
static void sizes(void **state)
{
	struct scratch *s = *state;
	const struct given given = {"w", "BF16", "[1536,576]", 2 * 1536 * 576, half_of_normals, ARCHIVE_MASK, ARCHIVE_MASK_CODED};
	struct bytes file = make_file(&given, 1);
	struct stat st;
	assert_int_equal(mkdir(scratch_path(s, "model"), 0700), 0);
	scratch_write(s, "model/model.safetensors", file.data, file.size);
	pack(s, false);
	assert_int_equal(stat(scratch_path(s, "archive/model.besad.safetensors"), &st), 0);
	assert_true((double)st.st_size < 0.567 * (double)file.size);
	pack(s, true);
	assert_int_equal(stat(scratch_path(s, "archive/model.besad.safetensors"), &st), 0);
	assert_true((double)st.st_size < 0.42 * (double)file.size);
	SUCCEEDS(unpack(s));
	expect_file(s, "restored/model.safetensors", file.data, file.size);
	free(file.data);
}

static void expect_codes(struct scratch *s, const char *name, int bits, int zero)
{
	struct file file;
	struct archive_file archive;
	bool found = false;
	SUCCEEDS(file_open_read(scratch_path(s, "archive/model.besad.safetensors"), &file, &s->err));
	SUCCEEDS(archive_file_open(&file, &archive, &s->err));
	for (size_t i = 0; i < archive.count; i++) {
		const struct archived_tensor *tensor = &archive.tensors[i];
		if (strcmp(tensor->info.name, name) != 0) continue;
		found = true;
		assert_int_equal(tensor->entry.bits, bits);
		assert_int_equal(tensor->entry.zero, zero);
	}
	assert_true(found);
	archive_file_close(&archive);
	file_close(&file);
}

/* What is left out is the code that is there most often, and codes are taken for what they are. */
static void sizes_of_codes(void **state)
{
	struct scratch *s = *state;
	const struct {
		struct given given;
		int bits, zero;
		double plain, coded;
	} all[] = {
		{{"w", "I32", "[512,128]", 4 * 512 * 128, half_of_nibbles, ARCHIVE_MASK, ARCHIVE_CODED}, 4, 8, 0.76, 0.66},
		{{"w", "I32", "[512,128]", 4 * 512 * 128, around_another, ARCHIVE_MASK, ARCHIVE_CODED}, 4, 13, 0.76, 0.66},
		{{"w", "I32", "[512,128]", 4 * 512 * 128, half_of_bytes, ARCHIVE_MASK, ARCHIVE_CODED}, 8, 128, 0.60, 0.33},
	};
	assert_int_equal(mkdir(scratch_path(s, "model"), 0700), 0);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct bytes file = make_file(&all[i].given, 1);
		struct stat st;
		scratch_write(s, "model/model.safetensors", file.data, file.size);
		for (int coded = 0; coded < 2; coded++) {
			pack(s, coded);
			if (!coded) expect_codes(s, "w", all[i].bits, all[i].zero);
			assert_int_equal(stat(scratch_path(s, "archive/model.besad.safetensors"), &st), 0);
			double part = (double)st.st_size / (double)file.size;
			if (part > (coded ? all[i].coded : all[i].plain)) fail_msg("%zu, %d: %f", i, coded, part);
			SUCCEEDS(unpack(s));
			expect_file(s, "restored/model.safetensors", file.data, file.size);
		}
		free(file.data);
	}
}

/* ---- damage -------------------------------------------------------------------------------------------------------------- */

enum { DAMAGED = 3000 };

/* Restores the file of an archive alone, without the manifest: whether that failed, or gave what was packed. */
static bool is_safe(struct scratch *s, const struct bytes *model)
{
	struct file file, restored;
	struct archive_file archive;
	SUCCEEDS(file_open_read(scratch_path(s, "archive/model.besad.safetensors"), &file, &s->err));
	if (archive_file_open(&file, &archive, &s->err) != STATUS_OK) {
		file_close(&file);
		return true;
	}
	bool safe = true;
	if (archive.file_bytes == (int64_t)model->size) {
		SUCCEEDS(file_create(scratch_path(s, "alone"), archive.file_bytes, &restored, &s->err));
		if (archive_file_restore(&archive, &restored, NULL, &s->err) == STATUS_OK) {
			char *bytes;
			size_t size;
			SUCCEEDS(file_slurp(scratch_path(s, "alone"), 1 << 24, &bytes, &size, &s->err));
			safe = memcmp(bytes, model->data, model->size) == 0;
			free(bytes);
		}
		file_close(&restored);
	} else {
		safe = archive_file_restore(&archive, NULL, NULL, &s->err) != STATUS_OK;
	}
	archive_file_close(&archive);
	file_close(&file);
	return safe;
}

/* Writes over the byte at `at` in the archive's file; returns what was there. */
static unsigned char poke(struct scratch *s, size_t at, unsigned char byte)
{
	unsigned char before;
	int fd = open(scratch_path(s, "archive/model.besad.safetensors"), O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &before, 1, (off_t)at), 1);
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
	return before;
}

static void damage(struct scratch *s, bool coded)
{
	struct bytes model = make_model(s);
	char *bytes;
	size_t size;
	int before = omp_get_max_threads();
	omp_set_num_threads(1);
	pack(s, coded);
	SUCCEEDS(file_slurp(scratch_path(s, "archive/model.besad.safetensors"), 1 << 24, &bytes, &size, &s->err));
	uint64_t header = 0;
	memcpy(&header, bytes, 8);
	generator = 7;
	for (int i = 0; i < DAMAGED; i++) {
		/* Every other one in the header, where a byte says more. */
		size_t at = i % 2 ? draw() % size : draw() % (8 + header);
		unsigned char byte = (unsigned char)(bytes[at] ^ (i % 3 ? 1u << draw() % 8 : 1 + draw() % 255));
		poke(s, at, byte);
		if (verify(s) == STATUS_OK)
			fail_msg("byte %zu was %02x, is %02x, and the archive passes", at, bytes[at] & 0xff, byte);
		if (!is_safe(s, &model))
			fail_msg("byte %zu was %02x, is %02x, and another file comes out", at, bytes[at] & 0xff, byte);
		poke(s, at, (unsigned char)bytes[at]);
	}
	SUCCEEDS(verify(s));
	for (int i = 0; i < 200; i++) {
		assert_int_equal(truncate(scratch_path(s, "archive/model.besad.safetensors"), draw() % (off_t)size), 0);
		if (verify(s) == STATUS_OK) fail_msg("an archive that is cut short passes");
		scratch_write(s, "archive/model.besad.safetensors", bytes, size);
	}
	omp_set_num_threads(before);
	free(bytes);
	free(model.data);
}

static void damaged(void **state)
{
	damage(*state, false);
}

static void damaged_coded(void **state)
{
	damage(*state, true);
}

static void damaged_beside(void **state)
{
	struct scratch *s = *state;
	struct bytes model = make_model(s);
	char *manifest;
	size_t size;
	pack(s, false);
	SUCCEEDS(file_slurp(scratch_path(s, "archive/besad-archive.json"), 1 << 20, &manifest, &size, &s->err));
	scratch_text(s, "archive/config.json", "{\"a\": 2.0}\n");
	FAILS(STATUS_INVALID, "config.json: damaged: its checksum", verify(s));
	FAILS(STATUS_INVALID, "config.json: damaged: its checksum", unpack(s));
	scratch_text(s, "archive/config.json", "{\"a\": 1.0}");
	FAILS(STATUS_INVALID, "config.json: damaged: has 10 bytes, and had 11", verify(s));
	assert_int_equal(unlink(scratch_path(s, "archive/config.json")), 0);
	FAILS(STATUS_NOT_FOUND, "config.json", verify(s));
	scratch_text(s, "archive/config.json", "{\"a\": 1.0}\n");
	SUCCEEDS(verify(s));
	/* Names that lead elsewhere. */
	const char *names[] = {"../config.jn", "/config.json", "a//nfig.json", "a/../ig.json", "config.jso/"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *copy = strdup(manifest), *at = copy ? strstr(copy, "config.json\"") : NULL;
		assert_non_null(at);
		/* Over the quote where the name is longer. */
		memcpy(at, names[i], strlen(names[i]));
		if (strlen(names[i]) == 12) memmove(at + 12, at + 11, strlen(at + 11) - 1), at[12] = '"';
		scratch_write(s, "archive/besad-archive.json", copy, size);
		assert_int_not_equal(verify(s), STATUS_OK);
		assert_int_equal(s->err.status, STATUS_INVALID);
		free(copy);
	}
	scratch_text(s, "archive/besad-archive.json", "{\"format\":\"besad-archive\",\"version\":2,\"files\":[]}");
	FAILS(STATUS_UNSUPPORTED, "version 2", verify(s));
	free(manifest);
	free(model.data);
}

#define SUM "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FILES(files) "{\"format\":\"besad-archive\",\"version\":1,\"files\":[" files "]}"
#define ENTRY(name) "{\"name\":\"" name "\",\"bytes\":1,\"sha256\":\"" SUM "\"}"

static void refused_manifests(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *manifest, *part;
	} cases[] = {
		{"[]", "besad-archive.json: "},
		{"{}", "not the manifest of an archive"},
		{"{\"format\":5}", "'format'"},
		{"{\"format\":\"tar\",\"version\":1,\"files\":[]}", "not the manifest of an archive"},
		{"{\"format\":\"besad-archive\",\"version\":\"1\",\"files\":[]}", "'version'"},
		{"{\"format\":\"besad-archive\",\"version\":1,\"files\":{}}", "not the manifest of an archive"},
		{FILES("5"), "'files' holds what is no object"},
		{FILES("{}"), "the name '' cannot be"},
		{FILES("{\"name\":5}"), "'name'"},
		{FILES(ENTRY("")), "the name '' cannot be"},
		{FILES(ENTRY(".hidden")), "the name '.hidden' cannot be"},
		{FILES(ENTRY("/a")), "the name '/a' cannot be"},
		{FILES(ENTRY("a/")), "the name 'a/' cannot be"},
		{FILES("{\"name\":\"a\",\"archive\":5}"), "'archive'"},
		{FILES("{\"name\":\"a\",\"archive\":\"../b\"}"), "the name '../b' cannot be"},
		{FILES("{\"name\":\"a\",\"bytes\":-1}"), "'bytes'"},
		{FILES("{\"name\":\"a\",\"sha256\":\"" SUM "\"}"), "'a' lacks its size or checksum"},
		{FILES("{\"name\":\"a\",\"bytes\":1}"), "'a' lacks its size or checksum"},
		{FILES("{\"name\":\"a\",\"bytes\":1,\"sha256\":\"0\"}"), "'a' lacks its size or checksum"},
		{FILES("{\"name\":\"a\",\"bytes\":1,\"sha256\":1}"), "'sha256'"},
		{FILES("{\"name\":\"a\",\"archive\":\"b\",\"bytes\":1,\"sha256\":\"" SUM "\"}"), "lacks its size or checksum"},
		{FILES(ENTRY("b") "," ENTRY("a") "," ENTRY("b")), "'b' is there twice"},
	};
	SUCCEEDS(directory_make(scratch_path(s, "archive"), &s->err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, "archive/besad-archive.json", cases[i].manifest);
		FAILS(STATUS_INVALID, cases[i].part, verify(s));
	}
}

static enum status parse_entry(struct scratch *s, const struct tensor_info *info, const char *encoding, const char *values)
{
	struct packing_entry entry;
	char text[400];
	snprintf(text, sizeof text,
		 "{\"encoding\":\"%s\",\"dtype\":\"%s\",\"shape\":[20,64],\"crc32\":\"00000000\",\"block_rows\":16,"
		 "\"nonzeros\":5%s%s}",
		 encoding, stored_type_name(info), *values ? "," : "", values);
	return packing_parse(text, info, "archive", &entry, &s->err);
}

static void entries_of_codes(void **state)
{
	struct scratch *s = *state;
	const struct tensor_info codes = {.name = "w", .dtype = DTYPE_I32, .rank = 2, .shape = {20, 64}, .bytes = 4 * 20 * 64};
	const struct tensor_info floats = {.name = "w", .dtype = DTYPE_BF16, .rank = 2, .shape = {20, 64}, .bytes = 2 * 20 * 64};
	SUCCEEDS(parse_entry(s, &codes, "mask", "\"value_bits\":4,\"zero\":15"));
	SUCCEEDS(parse_entry(s, &codes, "huffman", "\"value_bits\":8,\"zero\":255"));
	SUCCEEDS(parse_entry(s, &floats, "mask", "\"value_bits\":16"));
	FAILS(STATUS_INVALID, "it lacks zero", parse_entry(s, &codes, "mask", "\"value_bits\":4"));
	FAILS(STATUS_INVALID, "it lacks zero", parse_entry(s, &codes, "mask", "\"value_bits\":8,\"Zero\":1"));
	FAILS(STATUS_INVALID, "from 0 to 15", parse_entry(s, &codes, "mask", "\"value_bits\":4,\"zero\":16"));
	FAILS(STATUS_INVALID, "from 0 to 255", parse_entry(s, &codes, "mask", "\"value_bits\":8,\"zero\":256"));
	FAILS(STATUS_INVALID, "from 0 to 255", parse_entry(s, &codes, "mask", "\"value_bits\":8,\"zero\":-1"));
	assert_int_equal(parse_entry(s, &codes, "mask", "\"value_bits\":8,\"zero\":null"), STATUS_INVALID);
	FAILS(STATUS_INVALID, "it has a zero", parse_entry(s, &floats, "mask", "\"value_bits\":16,\"zero\":0"));
	FAILS(STATUS_UNSUPPORTED, "have 16 bits", parse_entry(s, &codes, "mask", "\"value_bits\":16"));
	FAILS(STATUS_UNSUPPORTED, "have 2 bits", parse_entry(s, &codes, "mask", "\"value_bits\":2,\"zero\":1"));
	FAILS(STATUS_UNSUPPORTED, "have 8 bits", parse_entry(s, &floats, "mask", "\"value_bits\":8,\"zero\":0"));
}

/* Five codes of a row are kept; then one is that which is left out, and something is behind the last. */
static void damaged_codes(void **state)
{
	enum { WORDS = 8, COLUMNS = 8 * WORDS, BYTES = 4 * WORDS };
	struct scratch *s = *state;
	const struct tensor_info info = {.dtype = DTYPE_I32, .rank = 2, .shape = {1, WORDS}, .bytes = BYTES};
	const struct packing p = packing_of(&info, ARCHIVE_MASK, 4, 8, ARCHIVE_BLOCK_ROWS);
	uint8_t codes[BYTES], again[BYTES], mask[ARCHIVE_BLOCK_ROWS * COLUMNS / 8], values[COLUMNS * ARCHIVE_BLOCK_ROWS * 2 + 64];
	struct block_room room = {0};
	struct block_code code = {0};
	int64_t kept;
	memset(codes, 0x88, sizeof codes);
	codes[0] = 0x0f;
	codes[9] = 0x89;
	codes[31] = 0x12;
	SUCCEEDS(block_room_make(&p, &room, &s->err));
	assert_int_equal(block_pack(&p, 0, &code, codes, &room, mask, values), ARCHIVE_ALIGNMENT);
	assert_int_equal(mask[0], 3);
	assert_int_equal(mask[2], 4);
	assert_int_equal(mask[7], 0xc0);
	const uint8_t expected[] = {0x87, 0xa1, 0x09, 0};
	assert_memory_equal(values, expected, sizeof expected);
	assert_null(block_restore(&p, 0, &code, mask, values, ARCHIVE_ALIGNMENT, &room, again, &kept));
	assert_memory_equal(again, codes, sizeof codes);
	assert_int_equal(kept, 5);
	values[2] = 0x19;
	assert_string_equal(block_restore(&p, 0, &code, mask, values, ARCHIVE_ALIGNMENT, &room, again, &kept),
			    "has something behind its values");
	values[2] = 0x09;
	values[0] = 0x80;
	assert_string_equal(block_restore(&p, 0, &code, mask, values, ARCHIVE_ALIGNMENT, &room, again, &kept),
			    "has a zero among the values that are none");
	block_room_free(&room);
}

/* A code of 4 bits with a symbol that has more: the same lengths, of others. */
static void codes_of_no_symbols(void **state)
{
	struct scratch *s = *state;
	struct bytes model = make_model(s);
	struct file file;
	struct tensor_info *infos;
	size_t count, at = 0;
	pack(s, true);
	expect_codes(s, "few nibbles", 4, 13);
	SUCCEEDS(file_open_read(scratch_path(s, "archive/model.besad.safetensors"), &file, &s->err));
	SUCCEEDS(safetensors_read(&file, &infos, &count, &s->err));
	for (size_t i = 0; i < count; i++)
		if (strcmp(infos[i].name, "few nibbles:lengths") == 0) at = (size_t)infos[i].offset;
	tensor_infos_free(infos, count);
	file_close(&file);
	assert_int_not_equal(at, 0);
	poke(s, at + 20, poke(s, at + 1, 0));
	FAILS(STATUS_INVALID, "'few nibbles' are those of no code", verify(s));
	free(model.data);
}

/* ---- what is refused ----------------------------------------------------------------------------------------------------- */

static enum status try_pack(struct scratch *s, const char *from, const struct archive_options *options)
{
	struct place model = below(s, from), archive = below(s, "archive");
	enum status status = archive_pack(&model, &archive, options, &s->err);
	place_free(&model);
	place_free(&archive);
	return status;
}

static ssize_t full_disk(int fd, const void *buffer, size_t bytes, off_t offset)
{
	(void)fd, (void)buffer, (void)bytes, (void)offset;
	errno = ENOSPC;
	return -1;
}

static void raise_stop(void *context)
{
	atomic_store((atomic_bool *)context, true);
}

/* A file that is copied as it is may be long as well. */
static void stopped_in_a_copy(void **state)
{
	struct scratch *s = *state;
	atomic_bool stop = false;
	const struct archive_options options = {.stop = &stop, .progress = raise_stop, .context = &stop};
	assert_int_equal(mkdir(scratch_path(s, "copied"), 0700), 0);
	scratch_text(s, "copied/model.bin", "weights");
	FAILS(STATUS_CANCELLED, "stopped", try_pack(s, "copied", &options));
}

static void refused(void **state)
{
	struct scratch *s = *state;
	const struct archive_options options = {0};
	const struct given taken[] = {{"w", "BF16", "[64,64]", 8192, zero, ARCHIVE_PLAIN, ARCHIVE_PLAIN},
				      {"w:mask", "U8", "[2]", 2, zero, ARCHIVE_PLAIN, ARCHIVE_PLAIN}};
	struct bytes model = make_model(s);
	atomic_bool stop = true;
	const struct archive_options stopped = {.stop = &stop};
	FAILS(STATUS_CANCELLED, "stopped", try_pack(s, "model", &stopped));
	struct file_calls real = file_calls;
	file_calls.pwrite = full_disk;
	enum status status = try_pack(s, "model", &options);
	file_calls = real;
	FAILS(STATUS_NO_SPACE, "cannot write", status);
	pack(s, false);
	FAILS(STATUS_EXISTS, "an archive already", try_pack(s, "archive", &options));
	FAILS(STATUS_NOT_FOUND, "nowhere", try_pack(s, "nowhere", &options));
	scratch_write(s, "model/model.safetensors", model.data, model.size - 1);
	FAILS(STATUS_INVALID, "model.safetensors", try_pack(s, "model", &options));
	free(model.data);
	model = make_file(taken, 2);
	scratch_write(s, "model/model.safetensors", model.data, model.size);
	FAILS(STATUS_INVALID, "'w:mask' is there twice", try_pack(s, "model", &options));
	free(model.data);
	model = make_file(taken, 1);
	scratch_write(s, "model/model.safetensors", model.data, model.size);
	scratch_write(s, "model/model.besad.safetensors", model.data, model.size);
	FAILS(STATUS_INVALID, "lies where", try_pack(s, "model", &options));
	assert_int_equal(unlink(scratch_path(s, "model/model.besad.safetensors")), 0);
	assert_int_equal(unlink(scratch_path(s, "model/model.safetensors")), 0);
	assert_int_equal(symlink("sub", scratch_path(s, "model/link")), 0);
	FAILS(STATUS_INVALID, "a link to a directory", try_pack(s, "model", &options));
	free(model.data);
}

/* ---- Huffman codes ------------------------------------------------------------------------------------------------------- */

static void codes(void **state)
{
	uint64_t counts[HUFFMAN_SYMBOLS] = {0};
	uint8_t lengths[HUFFMAN_SYMBOLS];
	uint16_t bits[HUFFMAN_SYMBOLS], table[HUFFMAN_TABLE];
	(void)state;
	huffman_lengths(counts, lengths);
	assert_true(huffman_table(lengths, table));
	counts[9] = 5;
	huffman_lengths(counts, lengths);
	assert_int_equal(lengths[9], 1);
	assert_true(huffman_table(lengths, table));
	counts[3] = counts[200] = 1;
	counts[7] = 2;
	huffman_lengths(counts, lengths);
	assert_int_equal(lengths[9], 1);
	assert_int_equal(lengths[7], 2);
	assert_int_equal(lengths[3], 3);
	assert_int_equal(lengths[200], 3);
	huffman_codes(lengths, bits);
	/* 0, 10, 110, 111, the first bit lowest */
	assert_int_equal(bits[9], 0);
	assert_int_equal(bits[7], 1);
	assert_int_equal(bits[3], 3);
	assert_int_equal(bits[200], 7);
	lengths[200] = 2;
	assert_false(huffman_table(lengths, table));
	lengths[200] = 13;
	assert_false(huffman_table(lengths, table));
}

/* Counts for which the best code without a limit has words of 29 bits. */
static void long_codes(void **state)
{
	enum { USED = 30, COUNT = 5000 };
	uint64_t counts[HUFFMAN_SYMBOLS] = {0}, a = 1, b = 1, sum = 0;
	uint8_t lengths[HUFFMAN_SYMBOLS], symbols[COUNT], again[COUNT], stream[2 * COUNT];
	uint16_t bits[HUFFMAN_SYMBOLS], table[HUFFMAN_TABLE];
	size_t used;
	(void)state;
	for (int i = 0; i < USED; i++) {
		counts[3 * i] = a;
		b += a;
		a = b - a;
	}
	huffman_lengths(counts, lengths);
	for (int i = 0; i < USED; i++) {
		assert_in_range(lengths[3 * i], 1, HUFFMAN_MAX_BITS);
		sum += HUFFMAN_TABLE >> lengths[3 * i];
	}
	assert_int_equal(sum, HUFFMAN_TABLE);
	generator = 3;
	for (int i = 0; i < COUNT; i++)
		symbols[i] = (uint8_t)(3 * (draw() % USED));
	huffman_codes(lengths, bits);
	assert_true(huffman_table(lengths, table));
	size_t bytes = huffman_encode(bits, lengths, symbols, COUNT, stream);
	assert_true(huffman_decode(table, stream, bytes, COUNT, again, &used));
	assert_int_equal(used, bytes);
	assert_memory_equal(again, symbols, COUNT);
	for (size_t less = 1; less < 20; less++)
		assert_false(huffman_decode(table, stream, bytes - less, COUNT, again, &used));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(there_and_back),
		SCRATCH_TEST(the_bytes_depend_on_no_threads),
		SCRATCH_TEST(sizes),
		SCRATCH_TEST(sizes_of_codes),
		SCRATCH_TEST(damaged),
		SCRATCH_TEST(damaged_coded),
		SCRATCH_TEST(damaged_beside),
		SCRATCH_TEST(entries_of_codes),
		SCRATCH_TEST(damaged_codes),
		SCRATCH_TEST(codes_of_no_symbols),
		SCRATCH_TEST(refused_manifests),
		SCRATCH_TEST(refused),
		SCRATCH_TEST(stopped_in_a_copy),
		cmocka_unit_test(codes),
		cmocka_unit_test(long_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
