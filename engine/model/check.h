/* Do config.json and the tensors of a model agree? */
#ifndef BESAD_ENGINE_CHECK_H
#define BESAD_ENGINE_CHECK_H

#include "engine/model/model.h"

/* Checks that every tensor which config.json asks for is there with the shape and a type that can be used. Tensors that it does
 * not ask for (of more blocks, of biases that are said not to be there) are a warning: they have no part in what the model
 * computes. */
enum status model_check_all(struct model *, struct warnings *, struct error *err);

#endif
