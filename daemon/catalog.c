#include "daemon/catalog.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>

#include "base/json.h"
#include "engine/text/string_map.h"

enum { BUDGET = 256 << 20 };

/* One object of the list, as JSON. */
struct entry {
	char *json;
	struct identity identity;
};

struct entries {
	struct entry *items;
	size_t count, room, bytes;
	struct string_map names; /* places in `items` */
};

struct catalog {
	const struct catalog_kind *kind;
	char *const *roots;
	pthread_mutex_t lock;
	struct entries known; /* of the last listing */

	/* Of the one under way. */
	struct entries found;
	bool truncated, no_memory;
	size_t budget;
};

static void entries_free(struct entries *entries)
{
	for (size_t i = 0; i < entries->count; i++)
		free(entries->items[i].json);
	free(entries->items);
	string_map_free(&entries->names);
	*entries = (struct entries){0};
}

enum status catalog_create(const struct catalog_kind *kind, char *const *roots, struct catalog **ret, struct error *err)
{
	struct catalog *catalog = calloc(1, sizeof *catalog);
	if (!catalog) return error_set(err, STATUS_NO_MEMORY, "no memory for a list");
	catalog->kind = kind;
	catalog->roots = roots;
	pthread_mutex_init(&catalog->lock, NULL);
	*ret = catalog;
	return STATUS_OK;
}

void catalog_free(struct catalog *catalog)
{
	if (!catalog) return;
	entries_free(&catalog->known);
	pthread_mutex_destroy(&catalog->lock);
	free(catalog);
}

void identity_of(const struct tree_entry *const *files, size_t count, struct identity *ret)
{
	gnutls_hash_hd_t hash;
	memset(ret, 0, sizeof *ret);
	if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256)) return; /* of nothing: never equal to that of a file */
	for (size_t i = 0; i < count; i++) {
		const struct stat *info = &files[i]->info;
		const int64_t facts[] = {(int64_t)info->st_dev, (int64_t)info->st_ino, info->st_size,        info->st_mtim.tv_sec,
					 info->st_mtim.tv_nsec, info->st_ctim.tv_sec,  info->st_ctim.tv_nsec};
		gnutls_hash(hash, files[i]->name, strlen(files[i]->name) + 1);
		gnutls_hash(hash, facts, sizeof facts);
	}
	gnutls_hash_deinit(hash, ret->digest);
}

static bool is_known(const struct identity *a, const struct identity *b)
{
	static const struct identity none;
	return memcmp(a, b, sizeof *a) == 0 && memcmp(a, &none, sizeof *a) != 0;
}

/* The object's text. *identity becomes that of nothing when it is not to be kept. NULL: no memory. */
static char *read_object(struct catalog *catalog, const char *name, struct identity *identity, catalog_read *read,
			 const void *context)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "name", name);
	if (!read(catalog, context, object)) memset(identity, 0, sizeof *identity);
	char *text = json_ran_out() ? NULL : cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

static bool make_room(struct entries *entries)
{
	if (entries->count < entries->room) return true;
	struct entry *more = realloc(entries->items, (2 * entries->room + 64) * sizeof *more);
	if (!more) return false;
	entries->items = more;
	entries->room = 2 * entries->room + 64;
	return true;
}

void catalog_offer(struct catalog *catalog, const char *name, const struct identity *identity, catalog_read *read,
		   const void *context)
{
	struct entries *found = &catalog->found, *known = &catalog->known;
	struct error ignored;
	if (string_map_get(&found->names, name, strlen(name)) >= 0) return;
	if (found->count == catalog->kind->most || found->bytes > catalog->kind->most_bytes) {
		catalog->truncated = true;
		return;
	}
	struct entry entry = {.identity = *identity};
	int32_t before = string_map_get(&known->names, name, strlen(name));
	if (before >= 0 && is_known(&known->items[before].identity, identity)) {
		entry.json = known->items[before].json;
		known->items[before].json = NULL;
	} else {
		entry.json = read_object(catalog, name, &entry.identity, read, context);
	}
	if (!entry.json || !make_room(found) ||
	    string_map_put(&found->names, name, strlen(name), (int32_t)found->count, &ignored)) {
		catalog->no_memory = true;
		free(entry.json);
		return;
	}
	found->bytes += strlen(entry.json);
	found->items[found->count++] = entry;
}

void catalog_add_text(cJSON *object, const char *key, const char *text)
{
	cJSON_AddItemToObject(object, key, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

void catalog_ran_out(struct catalog *catalog)
{
	catalog->no_memory = true;
}

size_t *catalog_budget(struct catalog *catalog)
{
	return &catalog->budget;
}

/* What was found becomes what is known. */
static void look(struct catalog *catalog)
{
	struct tree_limits limits = catalog->kind->limits;
	catalog->truncated = catalog->no_memory = false;
	catalog->budget = BUDGET;
	for (char *const *root = catalog->roots; root && *root; root++)
		if (!tree_walk(*root, &limits, catalog->kind->visit, catalog)) catalog->truncated = true;
	entries_free(&catalog->known);
	catalog->known = catalog->found;
	catalog->found = (struct entries){0};
}

enum status catalog_list(struct catalog *catalog, cJSON **ret, bool *ret_truncated, struct error *err)
{
	cJSON *list = cJSON_CreateArray();
	pthread_mutex_lock(&catalog->lock);
	look(catalog);
	bool whole = list && !catalog->no_memory;
	for (size_t i = 0; i < catalog->known.count && whole; i++) {
		cJSON *item = cJSON_CreateRaw(catalog->known.items[i].json);
		whole = item && cJSON_AddItemToArray(list, item);
	}
	*ret_truncated = catalog->truncated;
	pthread_mutex_unlock(&catalog->lock);
	if (!whole) {
		cJSON_Delete(list);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the list");
	}
	*ret = list;
	return STATUS_OK;
}
