// Faults for launch/sanitize to catch: a check that finds nothing must be seen to find something. Only its build has them
// (TFREC_PLANTED_FAULTS), and only where the variable TFREC_PLANTED_FAULT names one.
#ifndef TFREC_COMMON_PLANTED_FAULT_H_
#define TFREC_COMMON_PLANTED_FAULT_H_

#ifdef TFREC_PLANTED_FAULTS
#include <stdlib.h>
#include <string.h>

static inline bool PlantedFault(const char* name) {
  const char* wanted = getenv("TFREC_PLANTED_FAULT");
  return wanted != nullptr && strcmp(wanted, name) == 0;
}
#endif

#endif  // TFREC_COMMON_PLANTED_FAULT_H_
