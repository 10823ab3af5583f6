// What makes one value of several pixels: of a window, of a whole map, or of neighbours.

// A thread makes 8 channels of one pixel.
struct Pool : Window {
    const f16* input;
    f16* output;
    int channels;  // a multiple of 8
};

// The largest value or the mean of each window, padding left out.
template <bool MEAN>
__device__ __forceinline__ void pool(const Pool& p) {
    let_next_start();
    wait_for_inputs();
    const Moved to(p.out_height * p.out_width, p.channels / 8);
    if (to.outside) return;
    const int pixel = to.pixel, channel = to.channel * 8;
    const int top = pixel / p.out_width * p.stride - p.pad_top, left = pixel % p.out_width * p.stride - p.pad_left;
    const int past_y = min(top + p.kernel, p.in_height), past_x = min(left + p.kernel, p.in_width);
    float made[8];
    for (int i = 0; i < 8; i++) made[i] = MEAN ? 0.0f : -__int_as_float(0x7f800000);
    for (int y = max(top, 0); y < past_y; y++)
        for (int x = max(left, 0); x < past_x; x++) {
            float v[8];
            unpack8(*(const uint4*)(p.input + ((long long)y * p.in_width + x) * p.in_pitch + channel), v);
            for (int i = 0; i < 8; i++) made[i] = MEAN ? made[i] + v[i] : fmaxf(made[i], v[i]);
        }
    if (MEAN) {
        const float count = (float)((past_y - max(top, 0)) * (past_x - max(left, 0)));
        for (int i = 0; i < 8; i++) made[i] /= count;
    }
    *(uint4*)(p.output + (long long)pixel * p.out_pitch + channel) = pack8(made);
}

extern "C" __global__ void __launch_bounds__(128) max_pool(const Pool p) { pool<false>(p); }

extern "C" __global__ void __launch_bounds__(128) average_pool(const Pool p) { pool<true>(p); }

// The mean of each channel. A block sums 8 channels, each of its threads some of the pixels.
struct GlobalAverage {
    const f16* input;
    f16* output;
    int pixels, pitch;
};

extern "C" __global__ void __launch_bounds__(128) global_average(const GlobalAverage g) {
    let_next_start();
    wait_for_inputs();
    const int THREADS = 128, channel = (int)blockIdx.x * 8;
    __shared__ float partial[THREADS * 8];
    float sums[8] = {};
    for (int pixel = threadIdx.x; pixel < g.pixels; pixel += THREADS) {
        float v[8];
        unpack8(*(const uint4*)(g.input + (long long)pixel * g.pitch + channel), v);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += v[i];
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
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] = partial[i * THREADS] / (float)g.pixels;
    *(uint4*)(g.output + channel) = pack8(sums);
}

// A thread makes 8 channels.
extern "C" __global__ void __launch_bounds__(128) bilinear(const Bilinear b) {
    let_next_start();
    wait_for_inputs();
    const int width = 2 * b.in_width;
    const Moved to(2 * b.in_height * width, b.channels / 8);
    if (to.outside) return;
    const Neighbours at(b, to.pixel / width, to.pixel % width);
    auto load = [&](long long pixel, float (&v)[8]) {
        unpack8(*(const uint4*)((const f16*)b.input + pixel * b.in_pitch + to.channel * 8), v);
    };
    float own[8], beside[8], over[8], across[8];
    load(at.own, own), load(at.beside, beside), load(at.over, over), load(at.across, across);
#pragma unroll
    for (int i = 0; i < 8; i++)
        own[i] = 0.75f * (0.75f * own[i] + 0.25f * beside[i]) + 0.25f * (0.75f * over[i] + 0.25f * across[i]);
    *(uint4*)((f16*)b.output + (long long)to.pixel * b.out_pitch + to.channel * 8) = pack8(own);
}
