/* Every stage, a line each, in the order in which they follow a method: STAGE(name). `stage_<name>` lies in a file or folder of
 * that name here; engine/stages/stage.h says what it must give. What they take of a spec are the sections of settings.c. */
#ifndef BESAD_ENGINE_STAGES_LIST_H
#define BESAD_ENGINE_STAGES_LIST_H

#define STAGES(STAGE) STAGE(least_squares) STAGE(block_refit) STAGE(quantize)

#endif
