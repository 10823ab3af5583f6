// Depthwise convolution: a thread filters 8 channels of COLUMNS neighbouring output pixels, so that a column of the
// input and a weight are loaded once for several of them. Sums are in single precision.
//
// PEREGRINE_SCALAR replaces the body by the plain loop, one output value after the other.

struct Depthwise : Window {
    const f16* input;
    const f16* weights;  // [kernel row][kernel column][channels]
    const float* bias;
    Residual residual;
    f16* output;
    int channels;  // a multiple of 8
};

__device__ __forceinline__ void finish(const Depthwise& d, int y, int x, int channel, float (&v)[8]) {
    const int pixel = y * d.out_width + x;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = activate(d.activation, v[i] + d.bias[channel + i]);
    }
    if (d.residual.values) {
        float r[8];
        unpack8(*(const uint4*)(residual_at<f16>(d.residual, pixel, y, x) + channel), r);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += r[i];
    }
    *(uint4*)(d.output + (long long)pixel * d.out_pitch + channel) = pack8(v);
}

// KERNEL and STRIDE are 0 where they are only known at run time.
template <int KERNEL, int STRIDE, int COLUMNS>
__device__ __forceinline__ void filter(const Depthwise& d) {
    const int kernel = KERNEL ? KERNEL : d.kernel, stride = STRIDE ? STRIDE : d.stride;
    const int groups = d.channels / 8, runs = (d.out_width + COLUMNS - 1) / COLUMNS;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)groups * runs * d.out_height) return;
    const int channel = (int)(thread % groups) * 8;
    const int run = (int)(thread / groups % runs), y = (int)(thread / groups / runs);
    const int first = run * COLUMNS;
    const int top = y * stride - d.pad_top, left = first * stride - d.pad_left;

#ifdef PEREGRINE_SCALAR
    for (int i = 0; i < COLUMNS && first + i < d.out_width; i++) {
        float v[8] = {};
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++) {
                const int sy = top + ky, sx = left + i * stride + kx;
                if (sy < 0 || sx < 0 || sy >= d.in_height || sx >= d.in_width) continue;
                const f16* in = d.input + ((long long)sy * d.in_width + sx) * d.in_pitch + channel;
                const f16* w = d.weights + (long long)(ky * kernel + kx) * d.channels + channel;
                for (int c = 0; c < 8; c++) v[c] += to_float(in[c]) * to_float(w[c]);
            }
        finish(d, y, first + i, channel, v);
    }
#else
    float sums[COLUMNS][8] = {};
#pragma unroll 1
    for (int ky = 0; ky < kernel; ky++) {
        const int sy = top + ky;
        if (sy < 0 || sy >= d.in_height) continue;
        const f16* row = d.input + (long long)sy * d.in_width * d.in_pitch + channel;
        const f16* weights = d.weights + (long long)ky * kernel * d.channels + channel;
        if constexpr (KERNEL > 0 && STRIDE > 0) {
            uint4 w[KERNEL];
#pragma unroll
            for (int kx = 0; kx < KERNEL; kx++) w[kx] = __ldg((const uint4*)(weights + (long long)kx * d.channels));
#pragma unroll
            for (int i = 0; i < (COLUMNS - 1) * STRIDE + KERNEL; i++) {
                const int sx = left + i;
                const bool inside = sx >= 0 && sx < d.in_width;
                float v[8];
                unpack8(inside ? *(const uint4*)(row + (long long)sx * d.in_pitch) : zero4(), v);
#pragma unroll
                for (int o = 0; o < COLUMNS; o++) {
                    const int kx = i - o * STRIDE;
                    if (kx < 0 || kx >= KERNEL) continue;
                    float f[8];
                    unpack8(w[kx], f);
#pragma unroll
                    for (int c = 0; c < 8; c++) sums[o][c] += v[c] * f[c];
                }
            }
        } else {
            for (int kx = 0; kx < kernel; kx++) {
                float f[8];
                unpack8(__ldg((const uint4*)(weights + (long long)kx * d.channels)), f);
#pragma unroll
                for (int o = 0; o < COLUMNS; o++) {
                    const int sx = left + o * stride + kx;
                    if (sx < 0 || sx >= d.in_width) continue;
                    float v[8];
                    unpack8(*(const uint4*)(row + (long long)sx * d.in_pitch), v);
#pragma unroll
                    for (int c = 0; c < 8; c++) sums[o][c] += v[c] * f[c];
                }
            }
        }
    }
#pragma unroll
    for (int o = 0; o < COLUMNS; o++)
        if (first + o < d.out_width) finish(d, y, first + o, channel, sums[o]);
#endif
}

#define DEPTHWISE(NAME, KERNEL, STRIDE, COLUMNS) \
    extern "C" __global__ void __launch_bounds__(128) NAME(const Depthwise d) { filter<KERNEL, STRIDE, COLUMNS>(d); }
