// What every training kernel uses, after the engine's common.cuh.
//
// Tensors are [image][row][column][channel], without padding. PEREGRINE_HALF stores them, and their
// gradients, in half precision; sums, parameters and their gradients are in single precision
// either way. No kernel adds to memory by atomics: the order of every sum is fixed, and a step gives
// the same bits each time.

#ifdef PEREGRINE_HALF
typedef f16 real;
#define KERNEL(NAME) NAME##_f16
__device__ __forceinline__ float value(const real* p) { return to_float(*p); }
__device__ __forceinline__ void store(real* p, float v) { *p = to_half(v); }
#else
typedef float real;
#define KERNEL(NAME) NAME##_f32
__device__ __forceinline__ float value(const real* p) { return *p; }
__device__ __forceinline__ void store(real* p, float v) { *p = v; }
#endif

// Threads of every block: BLOCK in kernels.rs. Sums over pixels have blocks of 8 rows of pixels by 32
// channels.
static const int THREADS = 256, CHANNELS = 32, ROWS = THREADS / CHANNELS;

#define ENTRY(NAME, ARGUMENT) extern "C" __global__ void __launch_bounds__(256) KERNEL(NAME)(const ARGUMENT a)

// First in every kernel.
__device__ __forceinline__ void start() {
    let_next_start();
    wait_for_inputs();
}

// Fewer than 2^31 values are checked for when a network is laid out: indices in 64 bits would make
// divisions slow.
__device__ __forceinline__ int flat_thread() { return (int)(blockIdx.x * THREADS + threadIdx.x); }

// Adds to what is there, where `keep`.
__device__ __forceinline__ void put(real* p, float v, int keep) { store(p, keep ? value(p) + v : v); }

// A window over the maps of a batch; see net/cuda/arguments.rs.
struct Windowed {
    int images, in_height, in_width, in_channels;
    int out_height, out_width, out_channels;
    int kernel, stride, pad_top, pad_left;
    int keep;
};

// A pixel of a batch.
struct Pixel {
    int image, y, x;

    __device__ __forceinline__ Pixel(int at, int height, int width) {
        x = at % width;
        const int row = at / width;
        y = row % height, image = row / height;
    }
};

// The first and the last output row (or column) whose window covers input row (or column) `at`.
__device__ __forceinline__ int first_over(int at, int pad, int kernel, int stride) {
    const int from = at + pad - kernel + 1;
    return from <= 0 ? 0 : (from + stride - 1) / stride;
}
__device__ __forceinline__ int last_over(int at, int pad, int stride, int outputs) {
    return min((at + pad) / stride, outputs - 1);
}

// What a window over a map's values has to do with one of them: `each(tap, at)` is called for every tap of the window that
// lies within the map, row by row, with the index of the pixel under it.
template <class Each>
__device__ __forceinline__ void over_inputs(const Windowed& a, const Pixel& output, Each each) {
    const int top = output.y * a.stride - a.pad_top, left = output.x * a.stride - a.pad_left;
    for (int y = max(top, 0); y < min(top + a.kernel, a.in_height); y++)
        for (int x = max(left, 0); x < min(left + a.kernel, a.in_width); x++)
            each((y - top) * a.kernel + x - left, (output.image * a.in_height + y) * a.in_width + x);
}

// The other way round: for every result whose window covers an input pixel, by which tap.
template <class Each>
__device__ __forceinline__ void over_outputs(const Windowed& a, const Pixel& input, Each each) {
    const int last_y = last_over(input.y, a.pad_top, a.stride, a.out_height);
    const int last_x = last_over(input.x, a.pad_left, a.stride, a.out_width);
    const int first_x = first_over(input.x, a.pad_left, a.kernel, a.stride);
    for (int y = first_over(input.y, a.pad_top, a.kernel, a.stride); y <= last_y; y++)
        for (int x = first_x; x <= last_x; x++) {
            const int tap = (input.y + a.pad_top - y * a.stride) * a.kernel + input.x + a.pad_left - x * a.stride;
            each(tap, (input.image * a.out_height + y) * a.out_width + x);
        }
}

// Sums a value of each thread of a block over its ROWS rows, in their order; to the first row.
__device__ __forceinline__ float over_rows(float v, float (&shared)[ROWS][CHANNELS]) {
    const int channel = threadIdx.x % CHANNELS, row = threadIdx.x / CHANNELS;
    shared[row][channel] = v;
    __syncthreads();
    float sum = 0.0f;
    if (row == 0)
        for (int i = 0; i < ROWS; i++) sum += shared[i][channel];
    __syncthreads();
    return sum;
}

// The derivative of an activation at x; at a kink that of the flatter side.
__device__ __forceinline__ float slope(int activation, float x) {
    switch (activation) {
        case 1: return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
        case 2: {
            const float s = 1.0f / (1.0f + expf(-x));
            return s * (1.0f + x * (1.0f - s));
        }
        case 3: return x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : (2.0f * x + 3.0f) / 6.0f;
        case 4: return x > 0.0f ? 1.0f : 0.1f;
        case 5: return x > 0.0f ? 1.0f : 0.0f;
        case 6: {
            const float s = 1.0f / (1.0f + expf(-x));
            return s * (1.0f - s);
        }
        case 7: return x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f;
        default: return 1.0f;
    }
}

// The same where the activated value is y; not for those of which two values have one result.
__device__ __forceinline__ float slope_at_result(int activation, float y) {
    switch (activation) {
        case 1: return y > 0.0f && y < 6.0f ? 1.0f : 0.0f;
        case 4: return y > 0.0f ? 1.0f : 0.1f;
        case 5: return y > 0.0f ? 1.0f : 0.0f;
        case 6: return y * (1.0f - y);
        case 7: return y > 0.0f && y < 1.0f ? 1.0f / 6.0f : 0.0f;
        default: return 1.0f;
    }
}

// Without a product for a slope of 0, which would turn an infinite gradient of a dead unit into NaN.
__device__ __forceinline__ float sloped(float gradient, float slope) { return slope == 0.0f ? 0.0f : gradient * slope; }
