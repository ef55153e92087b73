#include "engine/methods/method.h"

#define DECLARE(enumerator, name, ...) extern const struct method method_##name;
METHODS(DECLARE)

const struct method *method_find(enum method_id method)
{
#define ROW(enumerator, name, ...) [METHOD_##enumerator] = &method_##name,
	static const struct method *const methods[] = {METHODS(ROW)};
	return method == METHOD_NONE ? &method_magnitude : methods[method];
}
