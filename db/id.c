/* Sortable job ids: a ULID (48 bits of milliseconds, 80 random bits) in Crockford's base 32, lower case. Within a millisecond,
 * or when the clock stepped back, the last id plus one is given, so ids always grow. */
#include "base/clock.h"
#include "db/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

bool job_id_is_valid(const char *id)
{
	if (strlen(id) != JOB_ID_BYTES - 1 || id[0] > '7') return false; /* 26 × 5 bits hold 128 and two 0 bits in front */
	return strspn(id, digits) == JOB_ID_BYTES - 1;
}

static void encode(const uint8_t value[16], char ret[JOB_ID_BYTES])
{
	for (int i = 0; i < JOB_ID_BYTES - 1; i++) {
		unsigned digit = 0;
		for (int bit = 0; bit < 5; bit++) {
			int position = i * 5 + bit - 2;
			unsigned set = position >= 0 ? value[position / 8] >> (7 - position % 8) & 1 : 0;
			digit = digit << 1 | set;
		}
		ret[i] = digits[digit];
	}
	ret[JOB_ID_BYTES - 1] = 0;
}

static void decode(const char *id, uint8_t ret[16])
{
	memset(ret, 0, 16);
	for (int i = 0; i < JOB_ID_BYTES - 1; i++) {
		unsigned digit = (unsigned)(strchr(digits, id[i]) - digits);
		for (int bit = 0; bit < 5; bit++) {
			int position = i * 5 + bit - 2;
			if (position >= 0 && digit >> (4 - bit) & 1) ret[position / 8] |= (uint8_t)(0x80 >> position % 8);
		}
	}
}

void id_init(struct db *db, const char *largest)
{
	memset(db->last_id, 0, sizeof db->last_id);
	if (largest && job_id_is_valid(largest)) decode(largest, db->last_id);
}

void db_new_id(struct db *db, char ret[JOB_ID_BYTES])
{
	uint8_t id[16];
	int64_t now = unix_milliseconds();
	for (int i = 0; i < 6; i++)
		id[i] = (uint8_t)(now >> (40 - 8 * i));
	arc4random_buf(id + 6, 10);

	pthread_mutex_lock(&db->id_lock);
	if (memcmp(id, db->last_id, 6) <= 0) {
		memcpy(id, db->last_id, sizeof id);
		for (int i = 15; i >= 0 && ++id[i] == 0; i--)
			;
	}
	memcpy(db->last_id, id, sizeof id);
	pthread_mutex_unlock(&db->id_lock);
	encode(id, ret);
}
