// Quantized steps without weights that do not merely move bytes: pooling, means, factors, activations by
// themselves and bilinear upsampling; see Requantization in src/engine/quantization.rs. A thread
// makes 8 channels.

struct IntegerPool : Window {
    const u8* input;
    u8* output;
    int channels;   // a multiple of 8
    int in_zero;    // these three of means alone
    float factor;
    float zero;
};

template <bool MEAN>
__device__ __forceinline__ void pool(const IntegerPool& p) {
    let_next_start();
    wait_for_inputs();
    const Moved to(p.out_height * p.out_width, p.channels / 8);
    if (to.outside) return;
    const int pixel = to.pixel, channel = to.channel * 8;
    const int top = pixel / p.out_width * p.stride - p.pad_top, left = pixel % p.out_width * p.stride - p.pad_left;
    const int past_y = min(top + p.kernel, p.in_height), past_x = min(left + p.kernel, p.in_width);
    int made[8] = {};
    for (int y = max(top, 0); y < past_y; y++)
        for (int x = max(left, 0); x < past_x; x++) {
            int v[8];
            bytes8(*(const uint2*)(p.input + ((long long)y * p.in_width + x) * p.in_pitch + channel), v);
#pragma unroll
            for (int i = 0; i < 8; i++) made[i] = MEAN ? made[i] + v[i] - p.in_zero : max(made[i], v[i]);
        }
    float real[8];
    const float share = __fdiv_rn(1.0f, (float)((past_y - max(top, 0)) * (past_x - max(left, 0))));
#pragma unroll
    for (int i = 0; i < 8; i++)
        real[i] = MEAN ? __fadd_rn(__fmul_rn(__fmul_rn((float)made[i], share), p.factor), p.zero) : (float)made[i];
    store_bytes<8>(p.output + (long long)pixel * p.out_pitch + channel, real);
}

extern "C" __global__ void __launch_bounds__(128) max_pool_i8(const IntegerPool p) { pool<false>(p); }

extern "C" __global__ void __launch_bounds__(128) average_pool_i8(const IntegerPool p) { pool<true>(p); }

struct IntegerGlobalAverage {
    const u8* input;
    u8* output;
    int pixels, pitch;
    int in_zero;
    float factor;
    float zero;
    int unused;
};

// A block sums 8 channels, each of its threads some of the pixels.
extern "C" __global__ void __launch_bounds__(128) global_average_i8(const IntegerGlobalAverage g) {
    let_next_start();
    wait_for_inputs();
    const int THREADS = 128, channel = (int)blockIdx.x * 8;
    __shared__ int partial[THREADS * 8];
    int sums[8] = {};
    for (int pixel = threadIdx.x; pixel < g.pixels; pixel += THREADS) {
        int v[8];
        bytes8(*(const uint2*)(g.input + (long long)pixel * g.pitch + channel), v);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += v[i] - g.in_zero;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) partial[i * THREADS + threadIdx.x] = sums[i];
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x >= half) continue;
#pragma unroll
        for (int i = 0; i < 8; i++) partial[i * THREADS + threadIdx.x] += partial[i * THREADS + threadIdx.x + half];
    }
    if (threadIdx.x > 0) return;
    float real[8];
    const float share = __fdiv_rn(1.0f, (float)g.pixels);
#pragma unroll
    for (int i = 0; i < 8; i++)
        real[i] = __fadd_rn(__fmul_rn(__fmul_rn((float)partial[i * THREADS], share), g.factor), g.zero);
    store_bytes<8>(g.output + channel, real);
}

// Each channel times its factor.
struct IntegerScaling {
    const u8* input;
    const u8* factors;  // a pixel
    u8* output;
    int pixels, in_pitch, out_pitch;
    int channels;  // a multiple of 8
    int in_zero, factors_zero;
    float factor;
    float zero;
};

extern "C" __global__ void __launch_bounds__(128) scale_i8(const IntegerScaling s) {
    let_next_start();
    wait_for_inputs();
    const Moved to(s.pixels, s.channels / 8);
    if (to.outside) return;
    const int channel = to.channel * 8;
    int v[8], factors[8];
    bytes8(*(const uint2*)(s.input + (long long)to.pixel * s.in_pitch + channel), v);
    bytes8(*(const uint2*)(s.factors + channel), factors);
    float real[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int product = (v[i] - s.in_zero) * (factors[i] - s.factors_zero);
        real[i] = __fadd_rn(__fmul_rn((float)product, s.factor), s.zero);
    }
    store_bytes<8>(s.output + (long long)to.pixel * s.out_pitch + channel, real);
}

// What a table says of each byte: an activation by itself.
struct Lookup {
    const u8* input;
    const u8* table;  // of 256
    u8* output;
    int pixels, in_pitch, out_pitch;
    int channels;  // a multiple of 8
};

extern "C" __global__ void __launch_bounds__(128) lookup_i8(const Lookup l) {
    let_next_start();
    wait_for_inputs();
    const Moved to(l.pixels, l.channels / 8);
    if (to.outside) return;
    const int channel = to.channel * 8;
    int v[8];
    bytes8(*(const uint2*)(l.input + (long long)to.pixel * l.in_pitch + channel), v);
    unsigned words[2] = {};
#pragma unroll
    for (int i = 0; i < 8; i++) words[i / 4] |= (unsigned)l.table[v[i]] << 8 * (i % 4);
    *(uint2*)(l.output + (long long)to.pixel * l.out_pitch + channel) = make_uint2(words[0], words[1]);
}

// As in pooling.cu: nine of sixteen parts of the pixel itself.
extern "C" __global__ void __launch_bounds__(128) bilinear_i8(const Bilinear b) {
    let_next_start();
    wait_for_inputs();
    const int width = 2 * b.in_width;
    const Moved to(2 * b.in_height * width, b.channels / 8);
    if (to.outside) return;
    const Neighbours at(b, to.pixel / width, to.pixel % width);
    auto load = [&](long long pixel, int (&v)[8]) {
        bytes8(*(const uint2*)((const u8*)b.input + pixel * b.in_pitch + to.channel * 8), v);
    };
    int own[8], beside[8], over[8], across[8];
    load(at.own, own), load(at.beside, beside), load(at.over, over), load(at.across, across);
    float real[8];
#pragma unroll
    for (int i = 0; i < 8; i++) real[i] = (float)(9 * own[i] + 3 * beside[i] + 3 * over[i] + across[i]) * 0.0625f;
    store_bytes<8>((u8*)b.output + (long long)to.pixel * b.out_pitch + to.channel * 8, real);
}
