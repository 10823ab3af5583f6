// The first convolution: three or four input channels are too few for tensor cores, so a thread multiplies them one by
// one, for CHANNELS output channels of one pixel. The weights of a block's channels wait in shared memory, where all
// lanes read the same word.

struct Stem : Window {
    const f16* input;      // four channels a pixel
    const float* weights;  // [kernel row][kernel column][4][channels]
    const float* bias;
    f16* output;
    int channels;  // a multiple of CHANNELS, in the weights and the bias
    int written;   // output channels that exist: a multiple of 8
};

template <int CHANNELS>
__device__ __forceinline__ void stem(const Stem& s) {
    const int most_taps = 49;
    __shared__ float weights[most_taps * 4 * CHANNELS];
    const int first = (int)blockIdx.y * CHANNELS;
    const int values = s.kernel * s.kernel * 4 * CHANNELS;
    for (int i = threadIdx.x; i < values; i += blockDim.x)
        weights[i] = s.weights[(long long)(i / CHANNELS) * s.channels + first + i % CHANNELS];
    __syncthreads();

    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= s.pixels) return;
    const int pixel = (int)thread, y = pixel / s.out_width, x = pixel - y * s.out_width;
    float sums[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) sums[c] = s.bias[first + c];
    for (int ky = 0; ky < s.kernel; ky++) {
        const int sy = y * s.stride - s.pad_top + ky;
        if (sy < 0 || sy >= s.in_height) continue;
        for (int kx = 0; kx < s.kernel; kx++) {
            const int sx = x * s.stride - s.pad_left + kx;
            if (sx < 0 || sx >= s.in_width) continue;
            const f16* at = s.input + ((long long)sy * s.in_width + sx) * 4;
            const float* w = weights + (ky * s.kernel + kx) * 4 * CHANNELS;
#ifdef PEREGRINE_SCALAR
            for (int i = 0; i < 4; i++)
                for (int c = 0; c < CHANNELS; c++) sums[c] += to_float(at[i]) * w[i * CHANNELS + c];
#else
            const uint2 pair = *(const uint2*)at;
            const float in[4] = {low(pair.x), high(pair.x), low(pair.y), high(pair.y)};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) sums[c] += in[i] * w[i * CHANNELS + c];
#endif
        }
    }
    f16* out = s.output + (long long)pixel * s.out_pitch + first;
#pragma unroll
    for (int c = 0; c < CHANNELS; c += 8) {
        if (first + c >= s.written) return;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = activate(s.activation, sums[c + i]);
        *(uint4*)(out + c) = pack8(v);
    }
}

#define STEM(NAME, CHANNELS) \
    extern "C" __global__ void __launch_bounds__(128) NAME(const Stem s) { stem<CHANNELS>(s); }
