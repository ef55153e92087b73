/* Every method, a line each: METHOD(enumerator, name in a spec, whether it needs calibration data, whether it can keep N of each M weights).
 * The first is the default. Their code is in a file or folder of that name here; engine/methods/method.h says what that must give. */
#ifndef BESAD_ENGINE_METHODS_LIST_H
#define BESAD_ENGINE_METHODS_LIST_H

#define METHODS(METHOD)                                                                                                            \
	METHOD(BESA, besa, true, false)                                                                                            \
	METHOD(WANDA, wanda, true, true)                                                                                           \
	METHOD(MAGNITUDE, magnitude, false, true)

#endif
