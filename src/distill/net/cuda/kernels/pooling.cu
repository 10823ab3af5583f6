// Maxima and means over windows and over whole maps, forward and backward. A gradient is gathered: a
// thread sums what the windows over its input value give it.

struct Pool : Windowed {
    const real* input;  // or the gradient of the result
    real* result;       // or the gradient of the input
    f16* largest;       // of each maximum the tap that it came from, as an integer
};

ENTRY(max_pool, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.out_height * a.out_width * channels) return;
    const int channel = i % channels;
    float most = 0.0f;
    int which = -1;
    over_inputs(a, Pixel(i / channels, a.out_height, a.out_width), [&](int tap, int at) {
        const float v = value(a.input + at * channels + channel);
        // The first of equals; not-a-number wins, so that it shows in the loss.
        if (which < 0 || v > most || v != v) most = v, which = tap;
    });
    store(a.result + i, most);
    a.largest[i] = (f16)which;
}

ENTRY(max_pool_gradient, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.in_height * a.in_width * channels) return;
    const int channel = i % channels;
    float sum = 0.0f;
    over_outputs(a, Pixel(i / channels, a.in_height, a.in_width), [&](int tap, int at) {
        const int from = at * channels + channel;
        if (a.largest[from] == tap) sum += value(a.input + from);
    });
    put(a.result + i, sum, a.keep);
}

// Input rows (or columns) under output row (or column) `at`: padding does not count.
__device__ __forceinline__ int covered(int at, int pad, int kernel, int stride, int size) {
    const int from = at * stride - pad;
    return min(from + kernel, size) - max(from, 0);
}
__device__ __forceinline__ int covered(const Windowed& a, const Pixel& output) {
    return covered(output.y, a.pad_top, a.kernel, a.stride, a.in_height) *
           covered(output.x, a.pad_left, a.kernel, a.stride, a.in_width);
}

ENTRY(average_pool, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.out_height * a.out_width * channels) return;
    const int channel = i % channels;
    const Pixel p(i / channels, a.out_height, a.out_width);
    float sum = 0.0f;
    over_inputs(a, p, [&](int, int at) { sum += value(a.input + at * channels + channel); });
    store(a.result + i, sum / (float)covered(a, p));
}

ENTRY(average_pool_gradient, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.in_height * a.in_width * channels) return;
    const int channel = i % channels;
    float sum = 0.0f;
    over_outputs(a, Pixel(i / channels, a.in_height, a.in_width), [&](int, int at) {
        const int count = covered(a, Pixel(at, a.out_height, a.out_width));
        sum += value(a.input + at * channels + channel) / (float)count;
    });
    put(a.result + i, sum, a.keep);
}

// Sums over the pixels of each image.
struct Whole {
    const real* first;
    const real* second;  // what it is multiplied by first; null: nothing
    real* result;        // [image][channel], or where one is spread [image][pixel][channel]
    float factor;
    int images, pixels, channels;  // of an image
    int keep;
};

// A block has 32 channels of an image.
ENTRY(whole_sum, Whole) {
    __shared__ float shared[ROWS][CHANNELS];
    start();
    const int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    const long long first = (long long)blockIdx.y * a.pixels;
    float sum = 0.0f;
    if (channel < a.channels)
        for (int p = threadIdx.x / CHANNELS; p < a.pixels; p += ROWS) {
            const long long at = (first + p) * a.channels + channel;
            const float v = value(a.first + at);
            sum += a.second ? v * value(a.second + at) : v;
        }
    sum = over_rows(sum, shared);
    if (threadIdx.x < CHANNELS && channel < a.channels)
        put(a.result + (long long)blockIdx.y * a.channels + channel, sum * a.factor, a.keep);
}

// A value of each channel to all pixels of its image.
ENTRY(whole_spread, Whole) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.images * a.pixels * a.channels) return;
    const int image = i / a.channels / a.pixels;
    put(a.result + i, value(a.first + image * a.channels + i % a.channels) * a.factor, a.keep);
}
