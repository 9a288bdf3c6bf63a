// A libcuda.so.1 of the version in BOXOPS_FAKE_DRIVER (12000 is CUDA 12.0) that has no device: shows which drivers a
// CUDA runtime takes.
#include <stdlib.h>
#include <string.h>

enum { kSuccess = 0, kNoDevice = 100, kNotSufficient = 2 };

static int driver(void) { return atoi(getenv("BOXOPS_FAKE_DRIVER")); }

int cuDriverGetVersion(int* version) {
  *version = driver();
  return kSuccess;
}

static int no_device(void) { return kNoDevice; }

// A runtime asks for each function with the version that introduced it.
static int find(const char* name, void** function, int version, unsigned long long flags, int* status) {
  (void)flags;
  if (status != NULL) *status = version > driver() ? kNotSufficient : kSuccess;
  if (version > driver()) *function = NULL;
  else if (strcmp(name, "cuDriverGetVersion") == 0) *function = (void*)cuDriverGetVersion;
  else if (strcmp(name, "cuGetProcAddress") == 0) *function = (void*)find;
  else *function = (void*)no_device;
  return kSuccess;
}

int cuInit(unsigned flags) { return (void)flags, kNoDevice; }

int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return find(name, function, version, flags, NULL);
}
