/*
 * Prints the UUID of each device that CUDA shows to this process, in the order of their ordinals: what a workload itself would
 * find. It goes by the driver's stable ABI alone, so it asks a real driver as it asks the mock one.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void *driver;

static void *entry_point(const char *name) {
    void *found = dlsym(driver, name);
    if (found != NULL) return found;
    fprintf(stderr, "cuda-uuids: the driver has no %s\n", name);
    exit(2);
}

static void check(const char *call, int status) {
    if (status == 0) return;
    int (*error_name)(int, const char **) = entry_point("cuGetErrorName");
    const char *name = NULL;
    if (error_name(status, &name) != 0 || name == NULL) name = "an unknown status";
    fprintf(stderr, "cuda-uuids: %s failed: %s (%d)\n", call, name, status);
    exit(1);
}

int main(void) {
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == NULL) {
        fprintf(stderr, "cuda-uuids: %s\n", dlerror());
        return 2;
    }
    int (*init)(unsigned) = entry_point("cuInit");
    int (*get_count)(int *) = entry_point("cuDeviceGetCount");
    int (*get)(int *, int) = entry_point("cuDeviceGet");
    int (*get_uuid)(unsigned char *, int) = entry_point("cuDeviceGetUuid_v2");

    int count, device;
    unsigned char uuid[16];
    check("cuInit", init(0));
    check("cuDeviceGetCount", get_count(&count));
    for (int ordinal = 0; ordinal < count; ordinal++) {
        check("cuDeviceGet", get(&device, ordinal));
        check("cuDeviceGetUuid", get_uuid(uuid, device));
        printf("GPU-");
        for (int i = 0; i < 16; i++) printf(i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
        putchar('\n');
    }
    return 0;
}
