/* The part of NVML that the probe asks for, on mock devices. Statuses are nvmlReturn_t's. */
#include "mock.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
};

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_v3;

typedef struct {
    char busId[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId, reserved[4];
} pci_v2;

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; } process_v1;
typedef struct { unsigned pid; unsigned long long used; unsigned gpuInstance, computeInstance; } process_v2;
typedef struct { nvmlDevice_t device; unsigned long long type, data; } event_v1;
typedef struct { nvmlDevice_t device; unsigned long long type, data; unsigned gpuInstance, computeInstance; } event_v2;

static const unsigned long long event_xid = 0x8;
static bool initialised;

/* A handle is a number: the device's, and in the last two digits that of its MIG instance. */
static nvmlDevice_t handle(int device, int mig) { return (nvmlDevice_t)(uintptr_t)(0x10000 + device * 0x100 + mig + 1); }
static int device_of(nvmlDevice_t of) { return ((int)(uintptr_t)of - 0x10000) / 0x100; }
static int mig_of(nvmlDevice_t of) { return ((int)(uintptr_t)of - 0x10000) % 0x100 - 1; }

#define FAIL_IF_FAULTY(call, device)             \
    do {                                         \
        int status = mock_fault(call, device);   \
        if (status != SUCCESS) return status;    \
    } while (0)

#define FIND(call, device)                                                                                    \
    if (!initialised) return UNINITIALIZED;                                                                   \
    if (device_of(device) < 0 || device_of(device) >= mock_now()->devices) return INVALID_ARGUMENT;           \
    FAIL_IF_FAULTY(call, device_of(device));                                                                  \
    const struct mock_device *found = &mock_now()->device_list[device_of(device)]

int nvmlInit(void) {
    FAIL_IF_FAULTY("nvmlInit", -1);
    initialised = true;
    return SUCCESS;
}

int nvmlShutdown(void) {
    initialised = false;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    if (!initialised) return UNINITIALIZED;
    FAIL_IF_FAULTY("nvmlSystemGetDriverVersion", -1);
    snprintf(version, length, "%s", mock_now()->driver_version);
    return SUCCESS;
}

int nvmlDeviceGetCount(unsigned *count) {
    if (!initialised) return UNINITIALIZED;
    FAIL_IF_FAULTY("nvmlDeviceGetCount", -1);
    *count = (unsigned)mock_now()->devices;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    if (!initialised) return UNINITIALIZED;
    if (index >= (unsigned)mock_now()->devices) return INVALID_ARGUMENT;
    FAIL_IF_FAULTY("nvmlDeviceGetHandleByIndex", (int)index);
    *device = handle((int)index, -1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    FIND("nvmlDeviceGetUUID", device);
    snprintf(uuid, length, "%s", mig_of(device) >= 0 ? found->mig_list[mig_of(device)].uuid : found->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    FIND("nvmlDeviceGetName", device);
    snprintf(name, length, "%s", mig_of(device) >= 0 ? found->mig_list[mig_of(device)].name : found->name);
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, pci_v2 *pci) {
    FIND("nvmlDeviceGetPciInfo", device);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%04X:%02X:%02X.0", found->domain & 0xffff, found->bus & 0xff, found->device & 0xff);
    pci->domain = found->domain, pci->bus = found->bus, pci->device = found->device;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_v1 *memory) {
    FIND("nvmlDeviceGetMemoryInfo", device);
    long long total = mig_of(device) >= 0 ? found->mig_list[mig_of(device)].memory_mib : found->memory_mib;
    long long used = mig_of(device) >= 0 ? 0 : found->used_mib;
    memory->total = (unsigned long long)total << 20;
    memory->used = (unsigned long long)used << 20;
    memory->free = (unsigned long long)(total - used) << 20;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    FIND("nvmlDeviceGetCudaComputeCapability", device);
    *major = found->major, *minor = found->minor;
    return SUCCESS;
}

int nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    FIND("nvmlDeviceGetEccMode", device);
    *current = *pending = found->ecc;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int type, int counter, unsigned long long *count) {
    FIND("nvmlDeviceGetTotalEccErrors", device);
    if (!found->ecc) return NOT_SUPPORTED;
    if (type < 0 || type > 1 || counter < 0 || counter > 1) return INVALID_ARGUMENT;
    *count = (unsigned long long)(type == 0 ? found->ecc_corrected : found->ecc_uncorrected);
    return SUCCESS;
}

int nvmlDeviceGetRetiredPages(nvmlDevice_t device, int cause, unsigned *count, unsigned long long *addresses) {
    FIND("nvmlDeviceGetRetiredPages", device);
    unsigned pages = cause == 0 ? found->retired_single : found->retired_double, room = *count;
    *count = pages;
    if (pages > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < pages; i++) addresses[i] = i * 0x10000ull;
    return SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned *pending) {
    FIND("nvmlDeviceGetRetiredPagesPendingStatus", device);
    *pending = found->retired_pending;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    FIND("nvmlDeviceGetPowerUsage", device);
    *milliwatts = found->power_mw;
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts) {
    FIND("nvmlDeviceGetEnforcedPowerLimit", device);
    *milliwatts = found->power_limit_mw;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    FIND("nvmlDeviceGetTemperature", device);
    if (sensor != 0) return INVALID_ARGUMENT;
    *celsius = found->temperature;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization *rates) {
    FIND("nvmlDeviceGetUtilizationRates", device);
    if (found->mig) return NOT_SUPPORTED;
    rates->gpu = found->utilization, rates->memory = found->memory_utilization;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
    FIND("nvmlDeviceGetCurrentClocksThrottleReasons", device);
    *reasons = found->throttle;
    return SUCCESS;
}

static unsigned long long used_by(const struct mock_process *process) {
    return process->memory_mib < 0 ? ~0ull : (unsigned long long)process->memory_mib << 20;
}

int nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count, process_v1 *processes) {
    FIND("nvmlDeviceGetComputeRunningProcesses", device);
    unsigned room = *count;
    *count = (unsigned)found->processes;
    if (*count > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) processes[i] = (process_v1){ found->process_list[i].pid, used_by(&found->process_list[i]) };
    return SUCCESS;
}

/* One set is all that anybody makes. A device tells of what happens after it was registered. */
static bool registered[MAX_DEVICES];
static int delivered[MAX_DEVICES];

int nvmlEventSetCreate(nvmlEventSet_t *set) {
    if (!initialised) return UNINITIALIZED;
    *set = (nvmlEventSet_t)registered;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    FIND("nvmlDeviceRegisterEvents", device);
    if (set != (nvmlEventSet_t)registered || types != event_xid) return INVALID_ARGUMENT;
    registered[device_of(device)] = true;
    delivered[device_of(device)] = found->xids;
    return SUCCESS;
}

static int next_event(nvmlEventSet_t set, event_v1 *event) {
    if (set != (nvmlEventSet_t)registered) return INVALID_ARGUMENT;
    const struct mock_state *state = mock_now();
    for (int device = 0; device < state->devices; device++) {
        const struct mock_device *found = &state->device_list[device];
        if (delivered[device] > found->xids) delivered[device] = found->xids;
        if (!registered[device] || delivered[device] == found->xids) continue;
        *event = (event_v1){ handle(device, -1), event_xid, found->xid_list[delivered[device]++] };
        return SUCCESS;
    }
    return TIMEOUT;
}

int nvmlEventSetWait(nvmlEventSet_t set, event_v1 *event, unsigned milliseconds) {
    (void)milliseconds;
    return next_event(set, event);
}

#ifndef OLD_DRIVER
int nvmlInit_v2(void) { return nvmlInit(); }
int nvmlDeviceGetCount_v2(unsigned *count) { return nvmlDeviceGetCount(count); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) { return nvmlDeviceGetHandleByIndex(index, device); }

int nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_v3 *pci) {
    FIND("nvmlDeviceGetPciInfo", device);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", found->domain & 0xffff, found->bus & 0xff, found->device & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", found->domain, found->bus & 0xff, found->device & 0xff);
    pci->domain = found->domain, pci->bus = found->bus, pci->device = found->device;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, process_v2 *processes) {
    FIND("nvmlDeviceGetComputeRunningProcesses", device);
    unsigned room = *count;
    *count = (unsigned)found->processes;
    if (*count > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++)
        processes[i] = (process_v2){ found->process_list[i].pid, used_by(&found->process_list[i]), ~0u, ~0u };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, process_v2 *processes) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, processes);
}

int nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}

int nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    FIND("nvmlDeviceGetMigMode", device);
    *current = *pending = found->mig;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    FIND("nvmlDeviceGetMaxMigDeviceCount", device);
    (void)found;
    *count = MAX_MIG - 1;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *instance) {
    FIND("nvmlDeviceGetMigDeviceHandleByIndex", device);
    if (index >= (unsigned)found->migs) return NOT_FOUND;
    *instance = handle(device_of(device), (int)index);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    FIND("nvmlDeviceGetRemappedRows", device);
    *corrected = found->remapped_corrected, *uncorrected = found->remapped_uncorrected;
    *pending = found->remap_pending, *failed = found->remap_failed;
    return SUCCESS;
}

int nvmlEventSetWait_v2(nvmlEventSet_t set, event_v2 *event, unsigned milliseconds) {
    (void)milliseconds;
    event_v1 first;
    int status = next_event(set, &first);
    if (status == SUCCESS) *event = (event_v2){ first.device, first.type, first.data, ~0u, ~0u };
    return status;
}
#endif
