// A CUDA driver without a device: libcuda.so.1 for tests of src/engine/cuda/real, whose calls it answers from the CPU's
// memory. Graphs copy what they are told to copy; kernels do nothing. Set by environment variables:
//
//   STAND_IN_CAPABILITY=90     of the device              STAND_IN_VERSION=13000   of the driver
//   STAND_IN_DEVICES=1
//   STAND_IN_FAIL=n            every call after the n-th fails as on a lost device; what is given back is taken
//   STAND_IN_HANG=n            the n-th launch and all after it do not end; whatever waits for them does not return
//   STAND_IN_REFUSE_EARLY=1    graphs in which a kernel starts before another has ended
//   STAND_IN_REPORT=FILE       where the calls made, the edges over which a kernel starts early, the most launches before the first
//                              of them was waited for, and what was not given back are written at the end
//
// Compiled with LACKS_GRAPHS it is a driver without them, with LACKS_EARLY one before 12.3. Signatures are those of the CUDA driver API, 12.0.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Result;
typedef unsigned long long Device;

enum { OK = 0, INVALID = 1, NOT_READY = 600, LOST = 719 };

static int calls, contexts, memory, modules, streams, events, graphs, executables, early, launches, running, together;

static int number(const char* name, int usual) {
    const char* text = getenv(name);
    return text ? atoi(text) : usual;
}

#define CALL()                                                       \
    do {                                                             \
        if (++calls > number("STAND_IN_FAIL", 1 << 30)) return LOST; \
    } while (0)

static int hangs(void) { return launches >= number("STAND_IN_HANG", 1 << 30); }
// As the driver does where it has to wait for the device.
static void end(void) {
    while (hangs()) pause();
    running = 0;
}

__attribute__((destructor)) static void report(void) {
    const char* path = getenv("STAND_IN_REPORT");
    FILE* file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "calls %d\nearly %d\nlaunches %d\ntogether %d\nheld %d %d %d %d %d %d %d\n", calls, early, launches, together, contexts, memory, modules,
            streams, events, graphs, executables);
    fclose(file);
}

Result cuInit(unsigned flags) { CALL(); return flags ? INVALID : OK; }
Result cuDriverGetVersion(int* version) { *version = number("STAND_IN_VERSION", 13000); return OK; }
Result cuDeviceGetCount(int* count) { CALL(); *count = number("STAND_IN_DEVICES", 1); return OK; }
Result cuDeviceGet(int* device, int ordinal) { CALL(); *device = ordinal; return OK; }
Result cuDeviceGetName(char* name, int room, int device) { CALL(); snprintf(name, room, "a stand-in %d", device); return OK; }
Result cuDeviceGetAttribute(int* value, int attribute, int device) {
    CALL();
    const int capability = number("STAND_IN_CAPABILITY", 90);
    switch (attribute) {
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 16: *value = 132; break;                // multiprocessors
        case 18: *value = capability == 87; break;   // integrated
        default: return INVALID;
    }
    return device < number("STAND_IN_DEVICES", 1) ? OK : INVALID;
}
Result cuDeviceGetPCIBusId(char* address, int room, int device) { CALL(); snprintf(address, room, "0000:%02x:00.0", device + 1); return OK; }
// NVRTC asks for the driver's private functions, and does without.
Result cuGetExportTable(const void** table, const void* id) { *table = NULL; return id ? 500 : INVALID; }
Result cuGetErrorName(Result error, const char** name) { *name = error == LOST ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR"; return OK; }
Result cuGetErrorString(Result error, const char** text) { *text = error == LOST ? "lost in a test" : "an error"; return OK; }
Result cuDevicePrimaryCtxRetain(void** context, int device) { CALL(); contexts++; *context = &contexts; return device < number("STAND_IN_DEVICES", 1) ? OK : INVALID; }
Result cuDevicePrimaryCtxRelease_v2(int device) { end(); contexts--; return OK + 0 * device; }
Result cuCtxSetCurrent(void* context) { CALL(); return context == &contexts ? OK : INVALID; }
Result cuCtxSynchronize(void) { CALL(); end(); return OK; }
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) { CALL(); *least = 0; *greatest = -5; return OK; }

static Result give(void** address, size_t bytes) {
    *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*address || !bytes) return INVALID;
    memset(*address, 0, bytes);
    memory++;
    return OK;
}
Result cuMemAlloc_v2(Device* address, size_t bytes) { CALL(); return give((void**)address, bytes); }
Result cuMemFree_v2(Device address) { end(); memory--; free((void*)address); return OK; }
Result cuMemHostAlloc(void** address, size_t bytes, unsigned flags) { CALL(); return flags & 2 ? give(address, bytes) : INVALID; }
Result cuMemFreeHost(void* address) { end(); memory--; free(address); return OK; }
Result cuMemHostGetDevicePointer_v2(Device* device, void* host, unsigned flags) { CALL(); *device = (Device)host; return flags; }
Result cuMemcpyHtoD_v2(Device to, const void* from, size_t bytes) { CALL(); end(); memcpy((void*)to, from, bytes); return OK; }
Result cuMemcpyDtoH_v2(void* to, Device from, size_t bytes) { CALL(); end(); memcpy(to, (void*)from, bytes); return OK; }
Result cuMemGetInfo_v2(size_t* free, size_t* total) { CALL(); *free = 1 << 30, *total = 2u << 30; return OK; }

Result cuModuleLoadData(void** module, const void* image) { CALL(); modules++; *module = &modules; return memcmp(image, "\x7f" "ELF", 4) ? INVALID : OK; }
Result cuModuleUnload(void* module) { end(); modules--; return module == &modules ? OK : INVALID; }
Result cuModuleGetFunction(void** function, void* module, const char* name) { CALL(); *function = module; return *name ? OK : INVALID; }

Result cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
    CALL();
    if (flags != 1 || priority > 0 || priority < -5) return INVALID;
    streams++;
    *stream = malloc(1);
    return OK;
}
Result cuStreamSynchronize(void* stream) { CALL(); end(); return stream ? OK : INVALID; }
Result cuStreamDestroy_v2(void* stream) { streams--; free(stream); return OK; }
Result cuEventCreate(void** event, unsigned flags) { CALL(); *event = malloc(1); events++; return flags & ~3u ? INVALID : OK; }
Result cuEventRecord(void* event, void* stream) { CALL(); return event && stream ? OK : INVALID; }
Result cuEventSynchronize(void* event) { CALL(); end(); return event ? OK : INVALID; }
Result cuEventQuery(void* event) {
    CALL();
    if (hangs()) return NOT_READY;
    running = 0;
    return event ? OK : INVALID;
}
Result cuEventElapsedTime(float* milliseconds, void* start, void* end) { CALL(); *milliseconds = 1; return start && end ? OK : INVALID; }
Result cuEventDestroy_v2(void* event) { events--; free(event); return OK; }

#ifndef LACKS_GRAPHS
// CUDA_MEMCPY3D and CUDA_KERNEL_NODE_PARAMS, version 2.
typedef struct {
    size_t src_x, src_y, src_z, src_lod;
    int src_kind;
    const void* src_host;
    Device src_device;
    void *src_array, *unused;
    size_t src_pitch, src_height;
    size_t dst_x, dst_y, dst_z, dst_lod;
    int dst_kind;
    void* dst_host;
    Device dst_device;
    void *dst_array, *unused2;
    size_t dst_pitch, dst_height, width, height, depth;
} Copy;
typedef struct {
    void* function;
    unsigned x, y, z, bx, by, bz, shared;
    void **parameters, **extra, *kernel, *context;
} Kernel;

typedef struct {
    Copy copies[8];
    int count, nodes;
    char is_kernel[256];
} Graph;

Result cuGraphCreate(Graph** graph, unsigned flags) { CALL(); graphs++; *graph = calloc(1, sizeof **graph); return flags; }
Result cuGraphDestroy(Graph* graph) { graphs--; free(graph); return OK; }
Result cuGraphAddKernelNode_v2(void** node, Graph* graph, void* const* before, size_t count, const Kernel* kernel) {
    CALL();
    for (size_t i = 0; i < count; i++)
        if ((size_t)before[i] < 1 || (size_t)before[i] > (size_t)graph->nodes) return INVALID;
    *node = (void*)(size_t)++graph->nodes;
    if (graph->nodes < 256) graph->is_kernel[graph->nodes] = 1;
    return kernel->function && kernel->x && kernel->bx && kernel->parameters[0] && !kernel->extra ? OK : INVALID;
}
Result cuGraphAddMemcpyNode(void** node, Graph* graph, void* const* before, size_t count, const Copy* copy, void* context) {
    CALL();
    for (size_t i = 0; i < count; i++)
        if ((size_t)before[i] < 1 || (size_t)before[i] > (size_t)graph->nodes) return INVALID;
    *node = (void*)(size_t)++graph->nodes;
    const int host = 1, device = 2;
    const int up = copy->src_kind == host && copy->dst_kind == device && copy->src_host && copy->dst_device;
    const int down = copy->src_kind == device && copy->dst_kind == host && copy->src_device && copy->dst_host;
    if (!(up || down) || copy->height != 1 || copy->depth != 1 || graph->count == 8 || context != &contexts) return INVALID;
    graph->copies[graph->count++] = *copy;
    return OK;
}
#ifndef LACKS_EARLY
typedef struct {
    unsigned char from_port, to_port, type, reserved[5];
} Edge;
Result cuGraphAddDependencies_v2(Graph* graph, void* const* from, void* const* to, const Edge* edges, size_t count) {
    CALL();
    for (size_t i = 0; i < count; i++) {
        const size_t before = (size_t)from[i], after = (size_t)to[i];
        if (before < 1 || before >= after || after > (size_t)graph->nodes || after > 255) return INVALID;
        if (!graph->is_kernel[before] || !graph->is_kernel[after]) return INVALID;
        if (edges[i].from_port != 1 || edges[i].to_port != 0 || edges[i].type != 1) return INVALID;
    }
    early += count;
    return number("STAND_IN_REFUSE_EARLY", 0) ? INVALID : OK;
}
#endif
Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long flags) {
    CALL();
    executables++;
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    return flags ? INVALID : OK;
}
Result cuGraphUpload(Graph* executable, void* stream) { CALL(); return executable && stream ? OK : INVALID; }
Result cuGraphLaunch(Graph* executable, void* stream) {
    CALL();
    launches++;
    if (++running > together) together = running;
    for (int i = 0; i < executable->count; i++) {
        const Copy* c = &executable->copies[i];
        if (c->src_kind == 1)
            memcpy((void*)c->dst_device, c->src_host, c->width);
        else
            memcpy(c->dst_host, (void*)c->src_device, c->width);
    }
    return stream ? OK : INVALID;
}
Result cuGraphExecDestroy(Graph* executable) { executables--; free(executable); return OK; }
#endif
