// The first convolution: three or four input channels are too few for tensor cores, so a thread
// multiplies them one by one, for CHANNELS output channels of one pixel. The weights of a block's
// channels wait in shared memory, where all lanes read the same word.

struct Stem : Window {
    const f16* input;      // four channels a pixel
    const float* weights;  // [kernel row][kernel column][4][channels]
    const float* bias;
    f16* output;
    unsigned* saturated;  // see count_saturated
    int channels;  // a multiple of CHANNELS, in the weights and the bias
    int written;   // output channels that exist: a multiple of 8
};

// KERNEL is 0 where it is only known at run time; else a pixel's whole patch is loaded at once.
template <int KERNEL, int CHANNELS>
__device__ __forceinline__ void stem(const Stem& s) {
    let_next_start();
    const int most_taps = KERNEL ? KERNEL * KERNEL : 49, kernel = KERNEL ? KERNEL : s.kernel;
    __shared__ uint4 weights[most_taps * CHANNELS];  // four channels a word
    const int first = (int)blockIdx.y * CHANNELS;
    const int words = kernel * kernel * CHANNELS;
    const int row = CHANNELS / 4;
    for (int i = threadIdx.x; i < words; i += blockDim.x) {
        const float* from = s.weights + (long long)(i / row) * s.channels + first;
        weights[i] = load_constant((const uint4*)from + i % row);
    }
    float sums[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) sums[c] = load_constant(s.bias + first + c);
    wait_for_inputs();
    __syncthreads();

    const int pixel = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (pixel >= s.pixels) return;
    const int y = pixel / s.out_width, x = pixel - y * s.out_width;
    const int top = y * s.stride - s.pad_top, left = x * s.stride - s.pad_left;
    auto load = [&](int ky, int kx) {
        const int sy = top + ky, sx = left + kx;
        const bool inside = sy >= 0 && sx >= 0 && sy < s.in_height && sx < s.in_width;
        return inside ? *(const uint2*)(s.input + ((long long)sy * s.in_width + sx) * 4) : make_uint2(0, 0);
    };
    auto multiply = [&](uint2 pair, int tap) {
        const uint4* w = weights + tap * CHANNELS;
        const float in[4] = {low(pair.x), high(pair.x), low(pair.y), high(pair.y)};
#ifdef PEREGRINE_SCALAR
        for (int i = 0; i < 4; i++)
            for (int c = 0; c < CHANNELS; c++) sums[c] += in[i] * ((const float*)w)[i * CHANNELS + c];
#else
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < CHANNELS; c += 4) {
                const uint4 four = w[(i * CHANNELS + c) / 4];
                sums[c] += in[i] * __uint_as_float(four.x);
                sums[c + 1] += in[i] * __uint_as_float(four.y);
                sums[c + 2] += in[i] * __uint_as_float(four.z);
                sums[c + 3] += in[i] * __uint_as_float(four.w);
            }
#endif
    };
    if constexpr (KERNEL > 0) {
        uint2 patch[KERNEL * KERNEL];
#pragma unroll
        for (int tap = 0; tap < KERNEL * KERNEL; tap++) patch[tap] = load(tap / KERNEL, tap % KERNEL);
#pragma unroll
        for (int tap = 0; tap < KERNEL * KERNEL; tap++) multiply(patch[tap], tap);
    } else {
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++) multiply(load(ky, kx), ky * kernel + kx);
    }

    f16* out = s.output + (long long)pixel * s.out_pitch + first;
#pragma unroll
    for (int c = 0; c < CHANNELS; c += 8) {
        if (first + c >= s.written) return;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = activate(s.activation, sums[c + i]);
        count_saturated<8>(s.saturated, v);
        *(uint4*)(out + c) = pack8(v);
    }
}

#define STEM(NAME, KERNEL, CHANNELS) \
    extern "C" __global__ void __launch_bounds__(128) NAME(const Stem s) { stem<KERNEL, CHANNELS>(s); }
