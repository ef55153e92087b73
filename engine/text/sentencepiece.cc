#include "engine/text/sentencepiece.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

/* Not in the public header: the library would print what it also returns. */
namespace sentencepiece
{
namespace logging
{
void SetMinLogLevel(int);
}
} // namespace sentencepiece

struct piece_model {
	sentencepiece::SentencePieceProcessor processor;
	bool splittable; /* see is_splittable */
};

namespace
{

const int silent = 5; /* above FATAL */
const size_t chunk_bytes = 8192;
const char space_mark[] = "\xe2\x96\x81"; /* U+2581, what a space becomes */

/* Whether "… a b …" may be cut into "… a" and "b …", dropping the space, and gives the same ids. Encoding one long text takes
 * more than linear time, so this matters. It holds when
 *  - pieces are merged in a fixed order (BPE: scores are whole numbers, the negated rank), so that far-off text has no influence,
 *  - a text is given a space in front, which stands for the dropped one, and spaces belong to the word behind them,
 *  - no piece reaches over such a space. */
bool is_splittable(const sentencepiece::SentencePieceProcessor &processor)
{
	std::vector<std::string> pieces;
	std::string joined;
	const std::string mark = space_mark;
	if (!processor.Encode("a b", &pieces).ok()) return false;
	for (const auto &piece : pieces)
		joined += piece;
	if (joined != mark + "a" + mark + "b" || processor.IsUnknown(processor.PieceToId(mark))) return false;
	for (int id = 0; id < processor.GetPieceSize(); id++) {
		const std::string &piece = processor.IdToPiece(id);
		if (processor.GetScore(id) != std::floor(processor.GetScore(id))) return false;
		if (piece.find(' ') != std::string::npos) return false;
		size_t at = 0;
		while (piece.compare(at, mark.size(), mark) == 0)
			at += mark.size();
		if (piece.find(mark, at) != std::string::npos) return false;
	}
	return true;
}

bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The place of the first space from `start` on that stands between two plain characters, or text.size(). */
size_t find_cut(absl::string_view text, size_t start)
{
	for (size_t i = start; i + 1 < text.size(); i++)
		if (text[i] == ' ' && is_plain(text[i - 1]) && is_plain(text[i + 1])) return i;
	return text.size();
}

/* Runs `body` and turns what it throws into a status. */
template <typename Body> enum status guarded(struct error *err, const char *what, Body body)
{
	try {
		return body();
	} catch (const std::bad_alloc &) {
		return error_set(err, STATUS_NO_MEMORY, "%s: no memory", what);
	} catch (const std::exception &e) {
		return error_set(err, STATUS_INVALID, "%s: %s", what, e.what());
	}
}

} // namespace

enum status sentencepiece_load(const char *bytes, size_t size, const char *path, struct piece_model **ret, struct error *err)
{
	sentencepiece::logging::SetMinLogLevel(silent);
	struct piece_model *loaded = nullptr;
	enum status status = guarded(err, path, [&] {
		loaded = new struct piece_model;
		const auto result = loaded->processor.LoadFromSerializedProto(absl::string_view(bytes, size));
		if (!result.ok())
			return error_set(err, STATUS_INVALID, "%s: not a SentencePiece model: %s", path, result.error_message());
		loaded->splittable = is_splittable(loaded->processor);
		return STATUS_OK;
	});
	if (status == STATUS_OK)
		*ret = loaded;
	else
		delete loaded;
	return status;
}

void sentencepiece_free(struct piece_model *s)
{
	delete s;
}

int64_t sentencepiece_count(const struct piece_model *s)
{
	return s->processor.GetPieceSize();
}

int32_t sentencepiece_bos(const struct piece_model *s)
{
	return s->processor.bos_id();
}

int32_t sentencepiece_id(const struct piece_model *s, const char *piece)
{
	try {
		const int id = s->processor.PieceToId(piece);
		return id >= 0 && s->processor.IdToPiece(id) == piece ? id : -1;
	} catch (const std::exception &) {
		return -1;
	}
}

enum status sentencepiece_encode(const struct piece_model *s, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count,
				 struct error *err)
{
	return guarded(err, "sentencepiece", [&] {
		std::vector<int> ids, chunk;
		const absl::string_view whole(text, bytes);
		for (size_t at = 0, cut; at < bytes || at == 0; at = cut + 1) {
			cut = s->splittable && bytes - at > chunk_bytes ? find_cut(whole, at + chunk_bytes) : bytes;
			const auto result = s->processor.Encode(whole.substr(at, cut - at), &chunk);
			if (!result.ok()) return error_set(err, STATUS_INVALID, "sentencepiece: %s", result.error_message());
			ids.insert(ids.end(), chunk.begin(), chunk.end());
		}
		int32_t *copy = static_cast<int32_t *>(std::malloc((ids.size() + 1) * sizeof *copy));
		if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu ids", ids.size());
		if (!ids.empty()) std::memcpy(copy, ids.data(), ids.size() * sizeof *copy);
		*ret_ids = copy;
		*ret_count = ids.size();
		return STATUS_OK;
	});
}
