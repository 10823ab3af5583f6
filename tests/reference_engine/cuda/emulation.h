// Runs CUDA kernels on a CPU, for their correctness: a block's threads are fibres, one block after the other.
//
// Covers what the kernels under src/engine/cuda/kernels use: block barriers, tensor-core products (which bring a warp
// together), shared memory, atomics, half precision. A fibre gives way only where it waits, so that a block's work is in
// the same order each time. The tensor cores' fragments are those of the PTX ISA 8.8, sections 9.7.14.5.8 and .10.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <sys/mman.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
template <typename T> static inline T __ldg(const T* p) { return *p; }
static inline void know(long long&) {}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
// Each rounded by itself, as -ffp-contract=off sees to.
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static inline unsigned atomicAdd(unsigned* p, unsigned v) {
    const unsigned before = *p;
    *p += v;
    return before;
}

// ---- half precision ----

static float half_values[65536];

static inline float to_float(unsigned short h) { return half_values[h]; }

static float widen(unsigned h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    const float magnitude = exponent ? ldexpf(1024.0f + fraction, (int)exponent - 25) : ldexpf((float)fraction, -24);
    return sign ? -magnitude : magnitude;
}

// To the nearest, and to the even one of two as near.
static inline unsigned short to_half(float f) {
    const unsigned bits = __float_as_uint(f), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return 0x7fff;
    if (rest >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);  // 65520 and above
    if (rest < 0x38800000u) {                                          // below 2^-14: in steps of 2^-24
        return (unsigned short)(sign | (unsigned)nearbyintf(ldexpf(__uint_as_float(rest), 24)));
    }
    const unsigned rebased = rest - 0x38000000u;
    return (unsigned short)(sign | (rebased + 0xfffu + (rebased >> 13 & 1)) >> 13);
}

// ---- fibres ----

static const int MOST_THREADS = 1024;
static const size_t STACK = 64 * 1024;

enum State { READY, AT_BARRIER, IN_WARP, DONE };
static State states[MOST_THREADS];
static int current, threads, alive, waiting;
static bool waited[MOST_THREADS];  // for the inputs
static int warp_waiting[MOST_THREADS / 32];
static char* stacks;
static void (*body)(const void*);
static const void* body_argument;

#if defined(__x86_64__)
static void *scheduler_sp, *fibre_sp[MOST_THREADS];
// Saves what the ABI says a callee keeps, and changes stacks.
extern "C" void peregrine_switch(void** save, void* to);
asm(R"(
.text
.hidden peregrine_switch
.globl peregrine_switch
peregrine_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
static void leave() { peregrine_switch(&fibre_sp[current], scheduler_sp); }
static void enter(int i) { peregrine_switch(&scheduler_sp, fibre_sp[i]); }
static void entry() {
    body(body_argument);
    states[current] = DONE;
    leave();
    abort();
}
static void prepare(int i) {
    void** top = (void**)(stacks + (size_t)(i + 1) * STACK);
    *--top = nullptr;  // keeps the stack aligned as after a call
    *--top = (void*)entry;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    fibre_sp[i] = top;
}
#else
#include <ucontext.h>
static ucontext_t scheduler_context, fibre_context[MOST_THREADS];
static void leave() { swapcontext(&fibre_context[current], &scheduler_context); }
static void enter(int i) { swapcontext(&scheduler_context, &fibre_context[i]); }
static void entry() {
    body(body_argument);
    states[current] = DONE;
    leave();
}
static void prepare(int i) {
    getcontext(&fibre_context[i]);
    fibre_context[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
    fibre_context[i].uc_stack.ss_size = STACK;
    fibre_context[i].uc_link = nullptr;
    makecontext(&fibre_context[i], entry, 0);
}
#endif

static inline void waited_for_inputs() { waited[current] = true; }

static void wait_as(State state) {
    states[current] = state;
    leave();
}

static void __syncthreads() {
    waiting++;
    if (waiting == alive) {
        waiting = 0;
        for (int i = 0; i < threads; i++)
            if (states[i] == AT_BARRIER) states[i] = READY;
        return;
    }
    wait_as(AT_BARRIER);
}

// Whether this lane came last: it goes on before the others.
static bool warp_barrier() {
    const int warp = current / 32;
    if (++warp_waiting[warp] == min(32, threads - warp * 32)) {
        warp_waiting[warp] = 0;
        for (int i = warp * 32; i < min(threads, warp * 32 + 32); i++)
            if (states[i] == IN_WARP) states[i] = READY;
        return true;
    }
    wait_as(IN_WARP);
    return false;
}

// Runs one block; false if its threads wait for one another for ever, or one of them not for its inputs.
static bool run_block() {
    alive = threads, waiting = 0;
    memset(warp_waiting, 0, sizeof warp_waiting);
    memset(waited, 0, sizeof waited);
    for (int i = 0; i < threads; i++) states[i] = READY, prepare(i);
    while (alive) {
        bool moved = false;
        for (int i = 0; i < threads; i++) {
            if (states[i] != READY) continue;
            moved = true;
            current = i;
            threadIdx = {(unsigned)i, 0, 0};
            enter(i);
            if (states[i] == DONE && --alive && waiting == alive) {
                // Those that have ended are not waited for.
                waiting = 0;
                for (int k = 0; k < threads; k++)
                    if (states[k] == AT_BARRIER) states[k] = READY;
            }
        }
        if (!moved) return fprintf(stderr, "emulation: threads wait for ever\n"), false;
    }
    for (int i = 0; i < threads; i++)
        if (!waited[i]) return fprintf(stderr, "emulation: thread %d did not wait for its inputs\n", i), false;
    return true;
}

// ---- tensor cores ----

// 16 rows of `a` by 8 columns of `b`; a row of `b`, and of the sums, is two vectors.
template <typename V, typename Half, int DEPTH> struct Matrices {
    V a[16][DEPTH];
    Half b[DEPTH][2], sums[16][2];
};

// Of each warp two, taken in turn: a lane can't be two products ahead of another. The lane that comes last computes all.
template <typename V, typename Half, int DEPTH>
static void product(V (&d)[4], const V* a, const V* b) {
    static Matrices<V, Half, DEPTH> shared[MOST_THREADS / 32][2];
    static unsigned turn[MOST_THREADS];
    const int warp = current / 32, lane = current % 32, group = lane / 4, quad = lane % 4;
    Matrices<V, Half, DEPTH>& m = shared[warp][turn[current]++ & 1];
    const int per_register = DEPTH / 8;  // values in 32 bits
    for (int late = 0; late < 2; late++)
        for (int at = 0; at < per_register; at++) {
            const int k = late * (DEPTH / 2) + quad * per_register + at;
            for (int lower = 0; lower < 2; lower++) m.a[lower * 8 + group][k] = a[(late * 2 + lower) * per_register + at];
            m.b[k][group / 4][group % 4] = b[late * per_register + at];
        }
    if (warp_barrier()) {
        for (int row = 0; row < 16; row++) {
            Half left = {}, right = {};
            for (int k = 0; k < DEPTH; k++) left += m.a[row][k] * m.b[k][0], right += m.a[row][k] * m.b[k][1];
            m.sums[row][0] = left, m.sums[row][1] = right;
        }
    }
    for (int i = 0; i < 4; i++) d[i] += m.sums[i / 2 * 8 + group][quad / 2][quad % 2 * 2 + i % 2];
}

typedef float Floats __attribute__((vector_size(16)));
typedef int Ints __attribute__((vector_size(16)));

static void mma_f16(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    float a[8], b[4];
    int n = 0;
    for (unsigned r : {a0, a1, a2, a3}) a[n++] = to_float(r & 0xffff), a[n++] = to_float(r >> 16);
    n = 0;
    for (unsigned r : {b0, b1}) b[n++] = to_float(r & 0xffff), b[n++] = to_float(r >> 16);
    product<float, Floats, 16>(d, a, b);
}

static void mma_u8s8(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    int a[16], b[8], n = 0;
    for (unsigned r : {a0, a1, a2, a3})
        for (int i = 0; i < 4; i++) a[n++] = (unsigned char)(r >> 8 * i);
    n = 0;
    for (unsigned r : {b0, b1})
        for (int i = 0; i < 4; i++) b[n++] = (signed char)(r >> 8 * i);
    product<int, Ints, 32>(d, a, b);
}

static inline int dot4(unsigned a, unsigned b, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(unsigned char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
    return sum;
}

// ---- what the test calls ----

struct Kernel {
    const char* name;
    void (*run)(const void* argument);
};

static bool launch(const Kernel* kernels, const char* name, const unsigned grid[3], unsigned block, const void* argument) {
    if (!stacks) {
        void* p = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return false;
        stacks = (char*)p;
        for (unsigned h = 0; h < 65536; h++) half_values[h] = widen(h);
    }
    for (; kernels->name; kernels++) {
        if (strcmp(kernels->name, name)) continue;
        threads = (int)block;
        body = kernels->run, body_argument = argument;
        blockDim = {block, 1, 1};
        gridDim = {grid[0], grid[1], grid[2]};
        for (unsigned z = 0; z < grid[2]; z++)
            for (unsigned y = 0; y < grid[1]; y++)
                for (unsigned x = 0; x < grid[0]; x++) {
                    blockIdx = {x, y, z};
                    if (!run_block()) return fprintf(stderr, "emulation: in %s\n", name), false;
                }
        return true;
    }
    return fprintf(stderr, "emulation: unknown kernel %s\n", name), false;
}
