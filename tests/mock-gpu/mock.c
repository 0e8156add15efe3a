#define _GNU_SOURCE
#include "mock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A JSON reader that hands each value to the function for its key, and skips what nobody asked for. */
struct reader {
    const char *at;
    bool failed;
};

static void blanks(struct reader *json) {
    while (isspace((unsigned char)*json->at)) json->at++;
}

static bool eat(struct reader *json, char expected) {
    blanks(json);
    if (*json->at != expected) return false;
    json->at++;
    return true;
}

static void expect(struct reader *json, char expected) {
    if (!eat(json, expected)) json->failed = true;
}

static void read_text(struct reader *json, char *text, size_t room) {
    size_t length = 0;
    expect(json, '"');
    while (!json->failed && *json->at != '"') {
        if (*json->at == '\\') json->at++;
        if (*json->at == '\0') {
            json->failed = true;
            return;
        }
        if (length + 1 < room) text[length++] = *json->at;
        json->at++;
    }
    if (room > 0) text[length] = '\0';
    expect(json, '"');
}

static long long read_number(struct reader *json) {
    char *end;
    blanks(json);
    long long value = strtoll(json->at, &end, 10);
    if (end == json->at) json->failed = true;
    json->at = end;
    return value;
}

static bool read_truth(struct reader *json) {
    blanks(json);
    if (strncmp(json->at, "true", 4) == 0) {
        json->at += 4;
        return true;
    }
    if (strncmp(json->at, "false", 5) == 0) json->at += 5;
    else json->failed = true;
    return false;
}

static void skip(struct reader *json);

/* Calls each(target, key) for every member, placed at its value. */
static void read_object(struct reader *json, void *target, void (*each)(struct reader *, void *, const char *)) {
    char key[64];
    expect(json, '{');
    if (eat(json, '}')) return;
    do {
        read_text(json, key, sizeof key);
        expect(json, ':');
        if (!json->failed) each(json, target, key);
    } while (!json->failed && eat(json, ','));
    expect(json, '}');
}

static void skip_member(struct reader *json, void *target, const char *key) {
    (void)target, (void)key;
    skip(json);
}

/* Calls each(list, number) for every element, placed at it. */
static int read_array(struct reader *json, void *list, int most, void (*each)(struct reader *, void *, int)) {
    int count = 0;
    expect(json, '[');
    if (eat(json, ']')) return 0;
    do {
        if (count < most) each(json, list, count++);
        else skip(json);
    } while (!json->failed && eat(json, ','));
    expect(json, ']');
    return count;
}

static void skip_element(struct reader *json, void *list, int number) {
    (void)list, (void)number;
    skip(json);
}

static void skip(struct reader *json) {
    blanks(json);
    if (*json->at == '{') read_object(json, NULL, skip_member);
    else if (*json->at == '[') read_array(json, NULL, 1 << 20, skip_element);
    else if (*json->at == '"') read_text(json, NULL, 0);
    else if (strncmp(json->at, "null", 4) == 0) json->at += 4;
    else if (*json->at == 't' || *json->at == 'f') read_truth(json);
    else read_number(json);
}

static void mig_member(struct reader *json, void *target, const char *key) {
    struct mock_mig *mig = target;
    if (!strcmp(key, "uuid")) read_text(json, mig->uuid, sizeof mig->uuid);
    else if (!strcmp(key, "name")) read_text(json, mig->name, sizeof mig->name);
    else if (!strcmp(key, "memoryMiB")) mig->memory_mib = read_number(json);
    else skip(json);
}

static void mig_element(struct reader *json, void *list, int number) {
    read_object(json, (struct mock_mig *)list + number, mig_member);
}

static void process_member(struct reader *json, void *target, const char *key) {
    struct mock_process *process = target;
    if (!strcmp(key, "pid")) process->pid = (unsigned)read_number(json);
    else if (!strcmp(key, "memoryMiB")) process->memory_mib = read_number(json);
    else skip(json);
}

static void process_element(struct reader *json, void *list, int number) {
    struct mock_process *process = (struct mock_process *)list + number;
    process->memory_mib = -1;
    read_object(json, process, process_member);
}

static void xid_element(struct reader *json, void *list, int number) {
    ((unsigned *)list)[number] = (unsigned)read_number(json);
}

static void device_member(struct reader *json, void *target, const char *key) {
    struct mock_device *device = target;
    char pci[32];
    if (!strcmp(key, "uuid")) read_text(json, device->uuid, sizeof device->uuid);
    else if (!strcmp(key, "name")) read_text(json, device->name, sizeof device->name);
    else if (!strcmp(key, "pci")) {
        read_text(json, pci, sizeof pci);
        if (sscanf(pci, "%x:%x:%x", &device->domain, &device->bus, &device->device) != 3) json->failed = true;
    }
    else if (!strcmp(key, "memoryMiB")) device->memory_mib = read_number(json);
    else if (!strcmp(key, "usedMiB")) device->used_mib = read_number(json);
    else if (!strcmp(key, "major")) device->major = (int)read_number(json);
    else if (!strcmp(key, "minor")) device->minor = (int)read_number(json);
    else if (!strcmp(key, "multiprocessors")) device->multiprocessors = (int)read_number(json);
    else if (!strcmp(key, "migEnabled")) device->mig = read_truth(json);
    else if (!strcmp(key, "mig")) device->migs = read_array(json, device->mig_list, MAX_MIG, mig_element);
    else if (!strcmp(key, "ecc")) device->ecc = read_truth(json);
    else if (!strcmp(key, "eccCorrected")) device->ecc_corrected = read_number(json);
    else if (!strcmp(key, "eccUncorrected")) device->ecc_uncorrected = read_number(json);
    else if (!strcmp(key, "retiredSingle")) device->retired_single = (unsigned)read_number(json);
    else if (!strcmp(key, "retiredDouble")) device->retired_double = (unsigned)read_number(json);
    else if (!strcmp(key, "retiredPending")) device->retired_pending = read_truth(json);
    else if (!strcmp(key, "remappedCorrected")) device->remapped_corrected = (unsigned)read_number(json);
    else if (!strcmp(key, "remappedUncorrected")) device->remapped_uncorrected = (unsigned)read_number(json);
    else if (!strcmp(key, "remapPending")) device->remap_pending = read_truth(json);
    else if (!strcmp(key, "remapFailed")) device->remap_failed = read_truth(json);
    else if (!strcmp(key, "powerMilliwatts")) device->power_mw = (unsigned)read_number(json);
    else if (!strcmp(key, "powerLimitMilliwatts")) device->power_limit_mw = (unsigned)read_number(json);
    else if (!strcmp(key, "temperature")) device->temperature = (unsigned)read_number(json);
    else if (!strcmp(key, "utilization")) device->utilization = (unsigned)read_number(json);
    else if (!strcmp(key, "memoryUtilization")) device->memory_utilization = (unsigned)read_number(json);
    else if (!strcmp(key, "throttle")) device->throttle = (unsigned long long)read_number(json);
    else if (!strcmp(key, "processes")) device->processes = read_array(json, device->process_list, MAX_LISTED, process_element);
    else if (!strcmp(key, "xids")) device->xids = read_array(json, device->xid_list, MAX_LISTED, xid_element);
    else skip(json);
}

static void device_element(struct reader *json, void *list, int number) {
    read_object(json, (struct mock_device *)list + number, device_member);
}

static void fault_member(struct reader *json, void *target, const char *key) {
    struct mock_fault *fault = target;
    if (!strcmp(key, "call")) read_text(json, fault->call, sizeof fault->call);
    else if (!strcmp(key, "device")) fault->device = (int)read_number(json);
    else if (!strcmp(key, "status")) fault->status = (int)read_number(json);
    else if (!strcmp(key, "hang")) fault->hang = read_truth(json);
    else skip(json);
}

static void fault_element(struct reader *json, void *list, int number) {
    struct mock_fault *fault = (struct mock_fault *)list + number;
    fault->device = -1;
    read_object(json, fault, fault_member);
}

static void state_member(struct reader *json, void *target, const char *key) {
    struct mock_state *state = target;
    if (!strcmp(key, "driverVersion")) read_text(json, state->driver_version, sizeof state->driver_version);
    else if (!strcmp(key, "cudaVersion")) state->cuda_version = (int)read_number(json);
    else if (!strcmp(key, "devices")) state->devices = read_array(json, state->device_list, MAX_DEVICES, device_element);
    else if (!strcmp(key, "faults")) state->faults = read_array(json, state->fault_list, MAX_FAULTS, fault_element);
    else skip(json);
}

static struct mock_state current, next;

const struct mock_state *mock_now(void) {
    static struct stat read_last;
    struct stat found;
    const char *path = getenv("TENSORMESH_MOCK_GPU");
    if (path == NULL || stat(path, &found) != 0) return &current;
    if (found.st_ino == read_last.st_ino && found.st_size == read_last.st_size
        && found.st_mtim.tv_sec == read_last.st_mtim.tv_sec && found.st_mtim.tv_nsec == read_last.st_mtim.tv_nsec) return &current;

    FILE *file = fopen(path, "r");
    char *text = file == NULL ? NULL : malloc((size_t)found.st_size + 1);
    if (text != NULL) {
        text[fread(text, 1, (size_t)found.st_size, file)] = '\0';
        struct reader json = { .at = text };
        memset(&next, 0, sizeof next);
        read_object(&json, &next, state_member);
        if (json.failed) fprintf(stderr, "mock-gpu: %s is not valid near '%.40s'\n", path, json.at);
        else current = next;
        read_last = found;
    }
    free(text);
    if (file != NULL) fclose(file);
    return &current;
}

int mock_fault(const char *call, int device) {
    const struct mock_state *state = mock_now();
    for (int i = 0; i < state->faults; i++) {
        const struct mock_fault *fault = &state->fault_list[i];
        size_t length = strlen(fault->call);
        bool named = length > 0 && fault->call[length - 1] == '*' ? strncmp(fault->call, call, length - 1) == 0 : strcmp(fault->call, call) == 0;
        if (!named || (fault->device >= 0 && fault->device != device)) continue;
        while (fault->hang) sleep(3600);
        return fault->status;
    }
    return 0;
}
