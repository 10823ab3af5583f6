// What every kernel uses. NVRTC compiles without headers, so half precision is its bits and a few instructions.
//
// PEREGRINE_HOST is set where tests run the kernels on a CPU: tests/cuda_emulation/ then provides what is left out here.

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

// d += a · b for a 16×16 and a 16×8 tile of half precision, spread over a warp as PTX ISA 8.8, section 9.7.14.5.8
// ("Matrix fragments for mma.m16n8k16") says. Turing has half that depth an instruction.
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

// The same for bytes with sign: 16×32 and 32×8 (section 9.7.14.5.10). Turing multiplies 8×16 by 16×8.
__device__ __forceinline__ void mma_s8(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                       unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
#define PEREGRINE_MMA_8816(d0, d1, a, b)                                                                   \
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"                     \
        : "+r"(d0), "+r"(d1)                                                                               \
        : "r"(a), "r"(b))
    PEREGRINE_MMA_8816(d[0], d[1], a0, b0);
    PEREGRINE_MMA_8816(d[0], d[1], a2, b1);
    PEREGRINE_MMA_8816(d[2], d[3], a1, b0);
    PEREGRINE_MMA_8816(d[2], d[3], a3, b1);
#endif
}

#endif  // PEREGRINE_HOST

__device__ __forceinline__ float low(unsigned pair) { return to_float((f16)(pair & 0xffff)); }
__device__ __forceinline__ float high(unsigned pair) { return to_float((f16)(pair >> 16)); }
__device__ __forceinline__ unsigned pack2(float a, float b) { return (unsigned)to_half(a) | (unsigned)to_half(b) << 16; }

__device__ __forceinline__ void unpack8(const uint4& v, float (&out)[8]) {
    out[0] = low(v.x), out[1] = high(v.x), out[2] = low(v.y), out[3] = high(v.y);
    out[4] = low(v.z), out[5] = high(v.z), out[6] = low(v.w), out[7] = high(v.w);
}

__device__ __forceinline__ uint4 pack8(const float (&v)[8]) {
    return make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}

__device__ __forceinline__ uint4 zero4() { return make_uint4(0, 0, 0, 0); }

__device__ __forceinline__ float clamp(float v, float least, float most) { return fminf(fmaxf(v, least), most); }

// What follows a convolution's bias, by its number in network.rs; see Activation::apply in src/engine/graph.rs.
__device__ __forceinline__ float activate(int activation, float v) {
    switch (activation) {
        case 1: return clamp(v, 0.0f, 6.0f);
        case 2: return v / (1.0f + expf(-v));
        case 3: return v * clamp(v + 3.0f, 0.0f, 6.0f) / 6.0f;
        case 4: return fmaxf(v, 0.1f * v);
        default: return v;
    }
}

// A tensor that is added to a result: its first channel, elements from pixel to pixel, and how it is read.
struct Residual {
    const f16* values;  // null: none
    int pitch;
    int width;  // of the map that is read through an upsampling by two; 0: read as it is
};

// Where the residual of pixel (y, x), the `pixel`-th of its map, begins.
__device__ __forceinline__ const f16* residual_at(const Residual& r, int pixel, int y, int x) {
    const long long at = r.width ? (long long)(y >> 1) * r.width + (x >> 1) : (long long)pixel;
    return r.values + at * r.pitch;
}
