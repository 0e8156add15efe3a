/*
 * What both mock libraries know: the devices and faults in the JSON file that TENSORMESH_MOCK_GPU names. The file is read
 * again when it changes, so that faults come and go while a process runs. Replace it by a rename: a half-written file is not
 * valid, and an invalid file is ignored.
 */
#ifndef TENSORMESH_MOCK_GPU_H
#define TENSORMESH_MOCK_GPU_H

#include <stdbool.h>

enum { MAX_DEVICES = 64, MAX_FAULTS = 64, MAX_MIG = 8, MAX_LISTED = 64 };

struct mock_mig {
    char uuid[64];
    char name[96];
    long long memory_mib;
};

struct mock_process {
    unsigned pid;
    long long memory_mib;
};

struct mock_device {
    char uuid[64];
    char name[96];
    unsigned domain, bus, device;
    long long memory_mib, used_mib;
    int major, minor, multiprocessors;
    bool mig;
    int migs;
    struct mock_mig mig_list[MAX_MIG];
    bool ecc;
    long long ecc_corrected, ecc_uncorrected;
    unsigned retired_single, retired_double;
    bool retired_pending;
    unsigned remapped_corrected, remapped_uncorrected;
    bool remap_pending, remap_failed;
    unsigned power_mw, power_limit_mw, temperature, utilization, memory_utilization;
    unsigned long long throttle;
    int processes;
    struct mock_process process_list[MAX_LISTED];
    int xids;
    unsigned xid_list[MAX_LISTED];
};

/* A call that fails or hangs, for one device or for all. */
struct mock_fault {
    char call[64]; /* without a version suffix; a star at the end stands for the rest */
    int device;    /* -1 for all */
    int status;
    bool hang;
};

struct mock_state {
    char driver_version[80];
    int cuda_version;
    int devices;
    struct mock_device device_list[MAX_DEVICES];
    int faults;
    struct mock_fault fault_list[MAX_FAULTS];
};

/* Each library has its own copy of these. */
#pragma GCC visibility push(hidden)

/* The state as the file has it now. Not for use from several threads at once. */
const struct mock_state *mock_now(void);

/* The status that a call must fail with, or 0. Does not return from a call that must hang. */
int mock_fault(const char *call, int device);

#pragma GCC visibility pop

#endif
