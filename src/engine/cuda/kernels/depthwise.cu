// Depthwise convolution: a thread filters CHANNELS neighbouring channels of COLUMNS neighbouring
// output pixels. Few of both make many threads with little to wait for each, which small maps need;
// many make a value that is loaded serve for several results. Sums are in single precision.
//
// PEREGRINE_SCALAR replaces the body by the plain loop, one output value after the other.

struct Depthwise : Window {
    const f16* input;
    const f16* weights;  // [kernel row][kernel column][channels]
    const float* bias;
    Residual residual;
    f16* output;
    unsigned* saturated;  // see count_saturated
    int channels;         // a multiple of 8
};

template <int N>
__device__ __forceinline__ void finish(const Depthwise& d, int y, int x, int channel, const float (&bias)[N], float (&v)[N]) {
    const int pixel = y * d.out_width + x;
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = activate(d.activation, v[i] + bias[i]);
    if (d.residual.values) {
        unsigned r[N / 2];
        load_halves<N>(residual_at<f16>(d.residual, pixel, d.out_width) + channel, r);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] += i % 2 ? high(r[i / 2]) : low(r[i / 2]);
    }
    count_saturated<N>(d.saturated, v);
    store_halves<N>(d.output + (long long)pixel * d.out_pitch + channel, v);
}

// KERNEL and STRIDE are 0 where they are only known at run time.
template <int KERNEL, int STRIDE, int COLUMNS, int CHANNELS>
__device__ __forceinline__ void filter(const Depthwise& d) {
    let_next_start();
    const int kernel = KERNEL ? KERNEL : d.kernel, stride = STRIDE ? STRIDE : d.stride;
    const Filtered<CHANNELS, COLUMNS> place(d.channels, d.out_width, d.out_height);
    const int channel = place.channel, y = place.y, first = place.first;
    const int top = y * stride - d.pad_top, left = first * stride - d.pad_left;
    float bias[CHANNELS], sums[COLUMNS][CHANNELS] = {};
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) bias[c] = load_constant(d.bias + channel + c);

#ifdef PEREGRINE_SCALAR
    wait_for_inputs();
    for (int o = 0; o < COLUMNS; o++)
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++) {
                const int sy = top + ky, sx = left + o * stride + kx;
                if (sy < 0 || sx < 0 || sy >= d.in_height || sx >= d.in_width) continue;
                const f16* in = d.input + ((long long)sy * d.in_width + sx) * d.in_pitch + channel;
                const f16* w = d.weights + (long long)(ky * kernel + kx) * d.channels + channel;
                for (int c = 0; c < CHANNELS; c++) sums[o][c] += to_float(in[c]) * to_float(w[c]);
            }
#else
    const int WORDS = CHANNELS / 2;
    if constexpr (KERNEL > 0 && STRIDE > 0) {
        // Rows of the window that are loaded at once: all, where registers have room.
        const int ROWS = KERNEL * KERNEL * CHANNELS <= 100 ? KERNEL : 1;
        const int INPUTS = (COLUMNS - 1) * STRIDE + KERNEL;
        unsigned w[ROWS][KERNEL][WORDS], in[ROWS][INPUTS][WORDS];
        auto load_weights = [&](int row) {
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int kx = 0; kx < KERNEL; kx++)
                    load_halves<CHANNELS>(d.weights + (long long)((row + r) * KERNEL + kx) * d.channels + channel, w[r][kx]);
        };
        load_weights(0);
        // The window's corner, which may lie outside the map.
        const long long row_step = (long long)d.in_width * d.in_pitch;
        long long corner = top * row_step + (long long)left * d.in_pitch + channel;
        know(corner);
        wait_for_inputs();
#pragma unroll 1
        for (int row = 0; row < KERNEL; row += ROWS) {
            if (row > 0) load_weights(row);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const bool row_inside = (unsigned)(top + row + r) < (unsigned)d.in_height;
                const f16* at = d.input + corner + (row + r) * row_step;
#pragma unroll
                for (int i = 0; i < INPUTS; i++) {
#pragma unroll
                    for (int k = 0; k < WORDS; k++) in[r][i][k] = 0;
                    if (row_inside && (unsigned)(left + i) < (unsigned)d.in_width)
                        load_halves<CHANNELS>(at + i * d.in_pitch, in[r][i]);
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int i = 0; i < INPUTS; i++)
#pragma unroll
                    for (int o = 0; o < COLUMNS; o++) {
                        const int kx = i - o * STRIDE;
                        if (kx < 0 || kx >= KERNEL) continue;
#pragma unroll
                        for (int k = 0; k < WORDS; k++) {
                            sums[o][2 * k] += low(in[r][i][k]) * low(w[r][kx][k]);
                            sums[o][2 * k + 1] += high(in[r][i][k]) * high(w[r][kx][k]);
                        }
                    }
        }
    } else {
        wait_for_inputs();
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++) {
                unsigned w[WORDS];
                load_halves<CHANNELS>(d.weights + (long long)(ky * kernel + kx) * d.channels + channel, w);
#pragma unroll
                for (int o = 0; o < COLUMNS; o++) {
                    const int sy = top + ky, sx = left + o * stride + kx;
                    if (sy < 0 || sx < 0 || sy >= d.in_height || sx >= d.in_width) continue;
                    unsigned in[WORDS];
                    load_halves<CHANNELS>(d.input + ((long long)sy * d.in_width + sx) * d.in_pitch + channel, in);
#pragma unroll
                    for (int k = 0; k < WORDS; k++) {
                        sums[o][2 * k] += low(in[k]) * low(w[k]);
                        sums[o][2 * k + 1] += high(in[k]) * high(w[k]);
                    }
                }
            }
    }
#endif
    if (place.outside) return;
#pragma unroll
    for (int o = 0; o < COLUMNS; o++)
        if (first + o < d.out_width) finish<CHANNELS>(d, y, first + o, channel, bias, sums[o]);
}

#define DEPTHWISE(NAME, KERNEL, STRIDE, COLUMNS, CHANNELS)                            \
    extern "C" __global__ void __launch_bounds__(128) NAME(const Depthwise d) {       \
        filter<KERNEL, STRIDE, COLUMNS, CHANNELS>(d);                                 \
    }
