/* Every method, a line each: METHOD(enumerator, name in a spec, whether it needs calibration data, whether it can keep N of each
 * M weights). The first is the default. Their code is in a file or folder of that name here; engine/methods/method.h says what
 * that must give. */
#ifndef BESAD_ENGINE_METHODS_LIST_H
#define BESAD_ENGINE_METHODS_LIST_H

#define METHODS(METHOD)                                                                                                            \
	METHOD(BESA, besa, true, true)                                                                                             \
	METHOD(WANDA, wanda, true, true)                                                                                           \
	METHOD(MAGNITUDE, magnitude, false, true)                                                                                  \
	METHOD(ONE_SHOT, one_shot, true, true)                                                                                     \
	METHOD(SPARSEGPT, sparsegpt, true, true)                                                                                   \
	METHOD(ADMM, admm, true, true)

/* The methods among them with settings of their own, a line each, SETTINGS(name): `method_<name>_settings`
 * (engine/spec/descriptor.h), which lies with the method in a file settings.c that needs nothing of the method's other files.
 * They come in a spec in the object `name`, and the method gets them by spec_settings. besa's are older than that, and a member
 * of struct spec. */
#define METHOD_SETTINGS(SETTINGS) SETTINGS(one_shot) SETTINGS(sparsegpt) SETTINGS(admm)

#endif
