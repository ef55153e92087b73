# The CUDA backend's own code, built for the host over tests/cuda/emulator/: the conformance suite runs it where there is no GPU, and no
# nvcc either. Included by the Makefile.

WITHOUT_CUDA     := $(shell cat tests/cuda/without-cuda) # programs of tests/backend/ that are the CPU's alone
EMULATED         := $(BUILD)/tests/emulated
EMULATED_SOURCES := $(filter-out cuda/cublaslt.cc,$(wildcard cuda/*.cu cuda/*.cc)) $(wildcard tests/cuda/emulator/*.cc)
EMULATED_OBJECTS := $(EMULATED_SOURCES:%=$(EMULATED)/%.o)
# Not under a sanitizer: it does not follow the emulator's coroutines.
ifndef SANITIZE
EMULATED_TESTS   := $(patsubst tests/backend/test_%.c,$(EMULATED)/test_cuda_%,\
                      $(filter-out $(patsubst %,tests/backend/test_%.c,$(WITHOUT_CUDA)),$(wildcard tests/backend/test_*.c))) \
                    $(patsubst tests/cuda/test_%.c,$(EMULATED)/test_cuda_%,$(wildcard tests/cuda/test_*.c)) \
                    $(EMULATED)/test_cuda_fault_drill $(EMULATED)/besad
endif

# Which of it is run nobody counts (make coverage), and what it computes takes long enough as it is.
ifdef COVERAGE
EMULATED_FLAGS   := -O2
endif

# -ffp-contract=off: __fmul_rn and the like must round where the device rounds.
$(EMULATED)/%.o: % $(COMPILE)
	@mkdir -p $(@D)
	$(call say,CXX,$< for the emulator)
	$(Q)$(CXX) -x c++ -Itests/cuda/emulator $(CPPFLAGS) $(filter-out --coverage,$(CXXFLAGS)) $(EMULATED_FLAGS) \
		-ffp-contract=off -Wno-unknown-pragmas -Wno-maybe-uninitialized -MMD -MP -c -o $@ $<

# The emulated backend comes first, so that the archive's own (or its stand-in) is not taken.
$(EMULATED)/test_cuda_%: tests/backend/test_%.c $(EMULATED_OBJECTS) $(TEST_HELPERS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(EMULATED_OBJECTS) $(TEST_HELPERS) $(BUILD)/libengine.a -lcmocka \
		$(LDLIBS) $(CUDA_LIBS)

$(EMULATED)/test_cuda_%: tests/cuda/test_%.c $(EMULATED_OBJECTS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(EMULATED_OBJECTS) $(BUILD)/libengine.a -lcmocka $(LDLIBS) $(CUDA_LIBS)

# What bench/cuda_fault.c does on a device, an access to no memory, the emulator does as well.
$(EMULATED)/test_cuda_fault_drill: bench/cuda_fault.c $(EMULATED_OBJECTS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(EMULATED_OBJECTS) $(BUILD)/libengine.a $(LDLIBS) $(CUDA_LIBS)

# The whole program on the emulated backend, for tests/cuda/compare.py.
$(EMULATED)/besad: $(DAEMON_OBJECTS) $(SERVER_OBJECTS) $(EMULATED_OBJECTS) $(BUILD)/libengine.a $(LINK)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS) $(CUDA_LIBS)

.SECONDARY: $(EMULATED_OBJECTS)

include cuda/kit.mk
