// What every kernel uses. NVRTC compiles without headers, so half precision is its bits and a few
// instructions.
//
// PEREGRINE_HOST is set where tests run the kernels on a CPU:
// tests/reference_engine/cuda/emulation.h then provides what is left out here.

typedef unsigned short f16;  // IEEE 754 binary16, as bits
typedef signed char s8;
typedef unsigned char u8;
typedef unsigned long long u64;

#ifndef PEREGRINE_HOST

__device__ __forceinline__ float to_float(f16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

__device__ __forceinline__ f16 to_half(float f) {
    f16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

// d += a · b for a 16×16 and a 16×8 tile of half precision, spread over a warp as PTX ISA 8.8,
// section 9.7.14.5.8 ("Matrix fragments for mma.m16n8k16") says. Turing has half that depth an
// instruction.
__device__ __forceinline__ void mma_f16(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                        unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a2), "r"(a3), "r"(b1));
#endif
}

// The same for bytes, the first without sign and the second with: 16×32 and 32×8 (section
// 9.7.14.5.10). Turing multiplies 8×16 by 16×8.
__device__ __forceinline__ void mma_u8s8(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
#define PEREGRINE_MMA_8816(d0, d1, a, b)                                                                   \
    asm("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"                     \
        : "+r"(d0), "+r"(d1)                                                                               \
        : "r"(a), "r"(b))
    PEREGRINE_MMA_8816(d[0], d[1], a0, b0);
    PEREGRINE_MMA_8816(d[0], d[1], a2, b1);
    PEREGRINE_MMA_8816(d[2], d[3], a1, b0);
    PEREGRINE_MMA_8816(d[2], d[3], a3, b1);
#endif
}

// sum + the products of four bytes without sign and four with.
__device__ __forceinline__ int dot4(unsigned a, unsigned b, int sum) {
    int d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

// Has a number be known by here.
__device__ __forceinline__ void know(long long& n) { asm volatile("" : "+l"(n)); }

#endif  // PEREGRINE_HOST

// Loads what no kernel writes, such as weights, where it stands: in front of `wait_for_inputs`.
// With a path of its own through the cache (__ldg) it would have no order, and compilers put it
// behind, as registers would have it.
template <typename T>
__device__ __forceinline__ T load_constant(const T* p) {
    return *p;
}

// Where the graph starts a kernel while those that it waits for still run (programmatic dependent
// launch, from sm_90 on), these two make it right and fast. Elsewhere they do nothing.

// First in every kernel: lets the next one start, once all blocks of this have. From here to there
// takes the device most of a microsecond, which a chain of small kernels waits for where this comes
// late.
__device__ __forceinline__ void let_next_start() {
#if !defined(PEREGRINE_HOST) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Every thread calls this before it reads what another kernel has written, or writes: it waits
// until those kernels have ended. What comes before, such as loading weights, costs no time then.
__device__ __forceinline__ void wait_for_inputs() {
#if defined(PEREGRINE_HOST)
    waited_for_inputs();
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ float low(unsigned pair) { return to_float((f16)(pair & 0xffff)); }
__device__ __forceinline__ float high(unsigned pair) { return to_float((f16)(pair >> 16)); }

// The largest number in half precision.
#define LARGEST_HALF 65504.0f

// To half precision; what lies beyond its range becomes its end. An infinite value would make others not-a-number, and
// boxes of them would be lost. Not-a-number stays.
__device__ __forceinline__ f16 to_finite_half(float f) { return to_half(fabsf(f) > LARGEST_HALF ? copysignf(LARGEST_HALF, f) : f); }

__device__ __forceinline__ unsigned pack2(float a, float b) {
    return (unsigned)to_finite_half(a) | (unsigned)to_finite_half(b) << 16;
}

__device__ __forceinline__ void unpack8(const uint4& v, float (&out)[8]) {
    out[0] = low(v.x), out[1] = high(v.x), out[2] = low(v.y), out[3] = high(v.y);
    out[4] = low(v.z), out[5] = high(v.z), out[6] = low(v.w), out[7] = high(v.w);
}

__device__ __forceinline__ uint4 pack8(const float (&v)[8]) {
    return make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}

// Adds to `saturated` how many of N results lie beyond the range of half precision.
template <int N>
__device__ __forceinline__ void count_saturated(unsigned* saturated, const float (&v)[N]) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) largest = fmaxf(largest, fabsf(v[i]));
    if (largest <= LARGEST_HALF) return;
    unsigned count = 0;
#pragma unroll
    for (int i = 0; i < N; i++) count += fabsf(v[i]) > LARGEST_HALF;
    atomicAdd(saturated, count);
}

__device__ __forceinline__ uint4 zero4() { return make_uint4(0, 0, 0, 0); }

__device__ __forceinline__ float clamp(float v, float least, float most) { return fminf(fmaxf(v, least), most); }

// What follows a convolution's bias, by its number in network.rs; see Activation::apply in
// src/engine/op.rs.
__device__ __forceinline__ float activate(int activation, float v) {
    switch (activation) {
        case 1: return clamp(v, 0.0f, 6.0f);
        case 2: return v / (1.0f + expf(-v));
        case 3: return v * clamp(v + 3.0f, 0.0f, 6.0f) / 6.0f;
        case 4: return fmaxf(v, 0.1f * v);
        case 5: return fmaxf(v, 0.0f);
        case 6: return 1.0f / (1.0f + expf(-v));
        case 7: return clamp(v / 6.0f + 0.5f, 0.0f, 1.0f);
        default: return v;
    }
}

// A window that moves over a map: what all layers that have one begin with.
struct Window {
    int in_height, in_width, in_pitch;
    int out_height, out_width, out_pitch;
    int pixels;  // of the result
    int kernel, stride, pad_top, pad_left;
    int activation;  // f16 only
};

// A tensor that is added to a result: its first channel, elements from pixel to pixel, and how it
// is read.
struct Residual {
    const void* values;  // f16, or u8 where the result is a quantized step's; null: none
    int pitch;
    int width;  // of the map that is read through an upsampling by two; 0: read as it is
};

// Where the residual of the `pixel`-th pixel of a map of `width` columns begins.
template <typename T>
__device__ __forceinline__ const T* residual_at(const Residual& r, int pixel, int width) {
    long long at = pixel;
    if (r.width) {
        const int y = pixel / width, x = pixel - y * width;
        at = (long long)(y >> 1) * r.width + (x >> 1);
    }
    return (const T*)r.values + at * r.pitch;
}

// What a thread of a depthwise kernel filters: CHANNELS channels of COLUMNS neighbouring output
// pixels. A block has a slice of 32 channels (64 bytes of halves) of a tile of pixels, so that what
// windows have in common is loaded into its L1 cache once; blockIdx.x counts tiles, row-major, and
// blockIdx.y slices. See Run in kernels.rs.
template <int CHANNELS, int COLUMNS>
struct Filtered {
    int channel, y, first;  // channel, row and column
    bool outside;           // nothing is there: what is at 0 is read, and nothing written

    __device__ __forceinline__ Filtered(int channels, int width, int height) {
        const int groups = 32 / CHANNELS, items = 128 / groups, rows = items < 16 ? 2 : 4, runs = items / rows;
        const unsigned tiles = ((unsigned)width + runs * COLUMNS - 1) / (runs * COLUMNS);
        const unsigned tile_y = blockIdx.x / tiles, tile_x = blockIdx.x - tile_y * tiles;
        const int item = threadIdx.x / groups;
        channel = (int)blockIdx.y * 32 + (int)(threadIdx.x % groups) * CHANNELS;
        y = (int)tile_y * rows + item / runs;
        first = ((int)tile_x * runs + item % runs) * COLUMNS;
        outside = channel >= channels || y >= height || first >= width;
        if (outside) channel = y = first = 0;
    }
};

// N contiguous channels, two to a word, as one load.
template <int N>
__device__ __forceinline__ void load_halves(const f16* from, unsigned (&v)[N / 2]) {
    static_assert(N == 2 || N == 4 || N == 8, "one load");
    if constexpr (N == 8) {
        const uint4 w = *(const uint4*)from;
        v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
    } else if constexpr (N == 4) {
        const uint2 w = *(const uint2*)from;
        v[0] = w.x, v[1] = w.y;
    } else {
        v[0] = *(const unsigned*)from;
    }
}

// N contiguous channels, rounded to half precision.
template <int N>
__device__ __forceinline__ void store_halves(f16* out, const float (&v)[N]) {
    if constexpr (N == 8) {
        *(uint4*)out = pack8(v);
    } else if constexpr (N == 4) {
        *(uint2*)out = make_uint2(pack2(v[0], v[1]), pack2(v[2], v[3]));
    } else {
        static_assert(N == 2, "one store");
        *(unsigned*)out = pack2(v[0], v[1]);
    }
}

// The offset of a field, as a constant: NVRTC has no offsetof, but its front end's __INTADDR__.
#ifdef PEREGRINE_HOST
#define OFFSET_OF(STRUCTURE, FIELD) __builtin_offsetof(STRUCTURE, FIELD)
#else
#define OFFSET_OF(STRUCTURE, FIELD) __INTADDR__(&((STRUCTURE*)0)->FIELD)
#endif

// ---- what moves values without multiplying them ----

// What a thread makes of `pixels` pixels of `channels` channels, or groups of channels: one of
// them.
struct Moved {
    long long thread;
    int pixel, channel;
    bool outside;  // nothing is there

    __device__ __forceinline__ Moved(int pixels, int channels) {
        thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        outside = thread >= (long long)pixels * channels;
        pixel = (int)(thread / channels), channel = (int)(thread % channels);
    }
};

// A part of a concatenation that could not be written in its place.
struct Part {
    const void* input;
    void* output;  // from the part's first channel
    int pixels, in_pitch, out_pitch;
    int channels;
    int written;  // channels, those past the last as zeros
};

// A thread copies one value.
template <typename T>
__device__ __forceinline__ void copy(const Part& p) {
    let_next_start();
    wait_for_inputs();
    const Moved to(p.pixels, p.written);
    if (to.outside) return;
    const T* in = (const T*)p.input + (long long)to.pixel * p.in_pitch + to.channel;
    ((T*)p.output)[(long long)to.pixel * p.out_pitch + to.channel] = to.channel < p.channels ? *in : (T)0;
}

// Where a channel of a gathered tensor is found.
struct Source {
    long long at;  // bytes from the arena's first; negative: nowhere, zeros
    int pitch;     // elements from pixel to pixel
    int unused;
};

// Channels of any tensors, in any order.
struct Gather {
    const void* arena;
    const Source* sources;  // by channel
    void* output;
    int pixels, pitch;
    int channels;  // written: a multiple of 8
};

// A thread copies 8 channels of one pixel.
template <typename T>
__device__ __forceinline__ void gather_channels(const Gather& g) {
    let_next_start();
    wait_for_inputs();
    const Moved to(g.pixels, g.channels / 8);
    if (to.outside) return;
    const int channel = to.channel * 8, per_word = 4 / sizeof(T);
    unsigned words[2 * sizeof(T)] = {};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const Source from = g.sources[channel + i];
        if (from.at < 0) continue;
        const T* in = (const T*)((const char*)g.arena + from.at) + (long long)to.pixel * from.pitch;
        words[i / per_word] |= (unsigned)*in << i % per_word * 8 * sizeof(T);
    }
    unsigned* out = (unsigned*)((T*)g.output + (long long)to.pixel * g.pitch + channel);
#pragma unroll
    for (int i = 0; i < 2 * sizeof(T); i++) out[i] = words[i];
}

// Upsampling by two between pixel centres: along each axis three quarters of the pixel that a
// result lies in and one of its neighbour on that side, edges repeated.
struct Bilinear {
    const void* input;
    void* output;
    int in_height, in_width, in_pitch, out_pitch;
    int channels;  // a multiple of 8
};

// The pixels of the input that one of the result lies between.
struct Neighbours {
    long long own, beside, over, across;

    __device__ __forceinline__ Neighbours(const Bilinear& b, int row, int column) {
        const int y = row / 2, next_y = row % 2 ? min(y + 1, b.in_height - 1) : max(y - 1, 0);
        const int x = column / 2, next_x = column % 2 ? min(x + 1, b.in_width - 1) : max(x - 1, 0);
        const long long line = (long long)y * b.in_width, next_line = (long long)next_y * b.in_width;
        own = line + x, beside = line + next_x, over = next_line + x, across = next_line + next_x;
    }
};

// ---- quantized steps: the arithmetic of src/engine/quantization.rs, each operation rounded by
// itself ----

// Of an output channel.
struct Channel {
    int correction;  // minus the zero point of the input times the sum of the weights
    float factor, offset;
    int unused;
};

// What becomes of a quantized step's sums.
struct Requantization {
    float low, high;  // the activation's bounds
    int residual_zero;
    float residual_factor;
    int to_bytes;   // 0: the result is real, and f16
    unsigned fill;  // four times the zero point of the input: what lies around the map
    int activation;  // in real numbers, by its number; 0: none
    float late_factor, late_zero;  // what brings its result to the output's scale
    int unused;
};

// e^x by the operations of `exp` in quantization.rs.
__device__ __forceinline__ float exact_exp(float x) {
    const float magic = 12582912.0f, high = 355.0f / 512.0f, low = -2.1219444005469057e-4f;
    x = fmaxf(fminf(x, 87.0f), -87.0f);
    const float shifted = __fadd_rn(__fmul_rn(x, 1.44269504088896340736f), magic);
    const float n = __fadd_rn(shifted, -magic);
    const float r = __fadd_rn(__fadd_rn(x, __fmul_rn(n, -high)), __fmul_rn(n, -low));
    float sum = 1.0f / 720.0f;
    sum = __fadd_rn(1.0f / 120.0f, __fmul_rn(sum, r));
    sum = __fadd_rn(1.0f / 24.0f, __fmul_rn(sum, r));
    sum = __fadd_rn(1.0f / 6.0f, __fmul_rn(sum, r));
    sum = __fadd_rn(0.5f, __fmul_rn(sum, r));
    sum = __fadd_rn(1.0f, __fmul_rn(sum, r));
    sum = __fadd_rn(1.0f, __fmul_rn(sum, r));
    return __fmul_rn(sum, __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u));
}

// The activations that do not merely bound a result, by the operations of `activated` in
// quantization.rs.
__device__ __forceinline__ float activate_exactly(int activation, float v) {
    const float sixth = 1.0f / 6.0f;
    switch (activation) {
        case 2: return __fdiv_rn(v, __fadd_rn(1.0f, exact_exp(-v)));
        case 3: return __fmul_rn(clamp(__fadd_rn(v, 3.0f), 0.0f, 6.0f), __fmul_rn(v, sixth));
        case 4: return fmaxf(v, __fmul_rn(v, 0.1f));
        case 6: return __fdiv_rn(1.0f, __fadd_rn(1.0f, exact_exp(-v)));
        case 7: return __fmul_rn(clamp(__fadd_rn(v, 3.0f), 0.0f, 6.0f), sixth);
        default: return v;
    }
}

// Eight bytes without sign.
__device__ __forceinline__ void bytes8(uint2 v, int (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[i] = (u8)(v.x >> 8 * i);
        out[4 + i] = (u8)(v.y >> 8 * i);
    }
}

__device__ __forceinline__ unsigned nearest_byte(float v) { return (unsigned)(int)rintf(clamp(v, 0.0f, 255.0f)); }

// The nearest byte to a real value.
__device__ __forceinline__ unsigned quantize(float real, float scale, int zero) {
    return nearest_byte(__fadd_rn(__fdiv_rn(real, scale), (float)zero));
}

// A byte in units of a result's scale.
__device__ __forceinline__ float relative(unsigned byte, int zero, float factor) {
    return __fmul_rn((float)((int)byte - zero), factor);
}

template <int N>
__device__ __forceinline__ void store_bytes(u8* out, const float (&v)[N]) {
    static_assert(N == 4 || N == 8, "whole words");
    unsigned words[N / 4] = {};
#pragma unroll
    for (int i = 0; i < N; i++) words[i / 4] |= nearest_byte(v[i]) << 8 * (i % 4);
    if constexpr (N == 8) {
        *(uint2*)out = make_uint2(words[0], words[1]);
    } else {
        *(unsigned*)out = words[0];
    }
}

// Requantizes the sums of N contiguous channels, adds the residual (null: none), and writes them
// from element `at` on.
template <int N>
__device__ __forceinline__ void finish_integer(const Requantization& q, const Channel* channels, const int (&sums)[N],
                                               const u8* residual, void* output, long long at) {
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint4 words = __ldg((const uint4*)(channels + i));
        const float scaled = __fmul_rn((float)(sums[i] + (int)words.x), __uint_as_float(words.y));
        v[i] = clamp(__fadd_rn(scaled, __uint_as_float(words.z)), q.low, q.high);
    }
    if (q.activation) {
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = __fadd_rn(__fmul_rn(activate_exactly(q.activation, v[i]), q.late_factor), q.late_zero);
    }
    if (residual) {
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = __fadd_rn(v[i], relative(residual[i], q.residual_zero, q.residual_factor));
    }
    if (q.to_bytes) {
        store_bytes<N>((u8*)output + at, v);
    } else {
        store_halves<N>((f16*)output + at, v);
    }
}
