/* The part of the CUDA driver API that needs no context, on mock devices. Statuses are CUresult's. */
#include "mock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUdevice;
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101 };

/* As with the real library, a process goes on seeing what it saw when it was initialised. */
static struct mock_state state;
static int visible[MAX_DEVICES], visible_count;
static bool initialised;

#define FAIL_IF_FAULTY(call, device)             \
    do {                                         \
        int status = mock_fault(call, device);   \
        if (status != SUCCESS) return status;    \
    } while (0)

#define FIND(call, ordinal)                                                  \
    if (!initialised) return NOT_INITIALIZED;                                \
    if (ordinal < 0 || ordinal >= visible_count) return INVALID_DEVICE;      \
    FAIL_IF_FAULTY(call, visible[ordinal]);                                  \
    const struct mock_device *found = &state.device_list[visible[ordinal]]

/* A device by its index, by its UUID, or by as much of the UUID's beginning as no other device has; -1 for none. */
static int named(const char *name) {
    char number[16];
    int found = -1;
    bool begins_uuid = strncmp(name, "GPU-", 4) == 0 && name[4] != '\0';
    for (int i = 0; i < state.devices; i++) {
        snprintf(number, sizeof number, "%d", i);
        if (strcmp(name, number) == 0) return i;
        if (!begins_uuid || strncmp(name, state.device_list[i].uuid, strlen(name)) != 0) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

/* Names of devices with commas between; the first that is nobody's ends the list. */
static void choose_visible(void) {
    const char *chosen = getenv("CUDA_VISIBLE_DEVICES");
    visible_count = 0;
    if (chosen == NULL) {
        while (visible_count < state.devices) {
            visible[visible_count] = visible_count;
            visible_count++;
        }
        return;
    }
    char list[4096];
    snprintf(list, sizeof list, "%s", chosen);
    for (char *rest = list, *one; (one = strsep(&rest, ",")) != NULL;) {
        int device = named(one);
        if (device < 0 || visible_count == MAX_DEVICES) return;
        visible[visible_count++] = device;
    }
}

int cuInit(unsigned flags) {
    (void)flags;
    FAIL_IF_FAULTY("cuInit", -1);
    if (initialised) return SUCCESS;
    state = *mock_now();
    choose_visible();
    /* Where MIG is on anywhere, devices without it are hidden; so are those with it that have no instance. */
    bool mig = false;
    for (int i = 0; i < visible_count; i++) mig = mig || state.device_list[visible[i]].mig;
    if (mig) {
        int first = -1;
        for (int i = 0; i < visible_count && first < 0; i++)
            if (state.device_list[visible[i]].migs > 0) first = visible[i];
        visible[0] = first;
        visible_count = first < 0 ? 0 : 1;
    }
    if (visible_count == 0) return NO_DEVICE;
    initialised = true;
    return SUCCESS;
}

int cuDriverGetVersion(int *version) {
    FAIL_IF_FAULTY("cuDriverGetVersion", -1);
    *version = mock_now()->cuda_version;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    if (!initialised) return NOT_INITIALIZED;
    FAIL_IF_FAULTY("cuDeviceGetCount", -1);
    *count = visible_count;
    return SUCCESS;
}

int cuDeviceGet(CUdevice *device, int ordinal) {
    FIND("cuDeviceGet", ordinal);
    (void)found;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char *name, int length, CUdevice device) {
    FIND("cuDeviceGetName", device);
    snprintf(name, (size_t)length, "%s", found->name);
    return SUCCESS;
}

static int uuid_bytes(const char *text, unsigned char *bytes) {
    int length = 0;
    text = strchr(text, '-');
    while (text != NULL && *text != '\0' && length < 16) {
        unsigned value;
        if (*text == '-') text++;
        if (sscanf(text, "%2x", &value) != 1) return INVALID_VALUE;
        bytes[length++] = (unsigned char)value;
        text += 2;
    }
    return length == 16 ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetUuid(unsigned char *uuid, CUdevice device) {
    FIND("cuDeviceGetUuid", device);
    return uuid_bytes(found->uuid, uuid);
}

#ifndef OLD_DRIVER
int cuDeviceGetUuid_v2(unsigned char *uuid, CUdevice device) {
    FIND("cuDeviceGetUuid", device);
    return uuid_bytes(found->mig && found->migs > 0 ? found->mig_list[0].uuid : found->uuid, uuid);
}
#endif

int cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    FIND("cuDeviceTotalMem", device);
    *bytes = (size_t)found->memory_mib << 20;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    FIND("cuDeviceGetAttribute", device);
    switch (attribute) {
        case 16: *value = found->multiprocessors; return SUCCESS;
        case 75: *value = found->major; return SUCCESS;
        case 76: *value = found->minor; return SUCCESS;
        default: return INVALID_VALUE;
    }
}

int cuDeviceGetPCIBusId(char *bus_id, int length, CUdevice device) {
    FIND("cuDeviceGetPCIBusId", device);
    snprintf(bus_id, (size_t)length, "%04x:%02x:%02x.0", found->domain, found->bus, found->device);
    return SUCCESS;
}

int cuGetErrorName(int status, const char **name) {
    static const struct { int status; const char *name; } names[] = {
        { 0, "CUDA_SUCCESS" }, { 1, "CUDA_ERROR_INVALID_VALUE" }, { 3, "CUDA_ERROR_NOT_INITIALIZED" }, { 100, "CUDA_ERROR_NO_DEVICE" },
        { 101, "CUDA_ERROR_INVALID_DEVICE" }, { 719, "CUDA_ERROR_LAUNCH_FAILED" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].status != status) continue;
        *name = names[i].name;
        return SUCCESS;
    }
    return INVALID_VALUE;
}
