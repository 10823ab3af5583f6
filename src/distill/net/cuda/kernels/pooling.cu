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
    const Pixel p(i / channels, a.out_height, a.out_width);
    const int top = p.y * a.stride - a.pad_top, left = p.x * a.stride - a.pad_left;
    float most = 0.0f;
    int which = -1;
    for (int y = max(top, 0); y < min(top + a.kernel, a.in_height); y++)
        for (int x = max(left, 0); x < min(left + a.kernel, a.in_width); x++) {
            const long long at = ((long long)p.image * a.in_height + y) * a.in_width + x;
            const float v = value(a.input + at * channels + channel);
            // The first of equals; not-a-number wins, so that it shows in the loss.
            if (which < 0 || v > most || v != v) most = v, which = (y - top) * a.kernel + x - left;
        }
    store(a.result + i, most);
    a.largest[i] = (f16)which;
}

ENTRY(max_pool_gradient, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.in_height * a.in_width * channels) return;
    const int channel = i % channels;
    const Pixel p(i / channels, a.in_height, a.in_width);
    const int last_y = last_over(p.y, a.pad_top, a.stride, a.out_height);
    const int last_x = last_over(p.x, a.pad_left, a.stride, a.out_width);
    const int first_x = first_over(p.x, a.pad_left, a.kernel, a.stride);
    float sum = 0.0f;
    for (int y = first_over(p.y, a.pad_top, a.kernel, a.stride); y <= last_y; y++)
        for (int x = first_x; x <= last_x; x++) {
            const int tap = (p.y + a.pad_top - y * a.stride) * a.kernel + p.x + a.pad_left - x * a.stride;
            const long long at = (((long long)p.image * a.out_height + y) * a.out_width + x) * channels + channel;
            if (a.largest[at] == tap) sum += value(a.input + at);
        }
    put(a.result + i, sum, a.keep);
}

// Input rows (or columns) under output row (or column) `at`: padding does not count.
__device__ __forceinline__ int covered(int at, int pad, int kernel, int stride, int size) {
    const int from = at * stride - pad;
    return min(from + kernel, size) - max(from, 0);
}

ENTRY(average_pool, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.out_height * a.out_width * channels) return;
    const int channel = i % channels;
    const Pixel p(i / channels, a.out_height, a.out_width);
    const int top = p.y * a.stride - a.pad_top, left = p.x * a.stride - a.pad_left;
    float sum = 0.0f;
    for (int y = max(top, 0); y < min(top + a.kernel, a.in_height); y++)
        for (int x = max(left, 0); x < min(left + a.kernel, a.in_width); x++) {
            const long long at = ((long long)p.image * a.in_height + y) * a.in_width + x;
            sum += value(a.input + at * channels + channel);
        }
    const int count = covered(p.y, a.pad_top, a.kernel, a.stride, a.in_height) *
                      covered(p.x, a.pad_left, a.kernel, a.stride, a.in_width);
    store(a.result + i, sum / (float)count);
}

ENTRY(average_pool_gradient, Pool) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.in_height * a.in_width * channels) return;
    const int channel = i % channels;
    const Pixel p(i / channels, a.in_height, a.in_width);
    const int last_y = last_over(p.y, a.pad_top, a.stride, a.out_height);
    const int last_x = last_over(p.x, a.pad_left, a.stride, a.out_width);
    const int first_x = first_over(p.x, a.pad_left, a.kernel, a.stride);
    float sum = 0.0f;
    for (int y = first_over(p.y, a.pad_top, a.kernel, a.stride); y <= last_y; y++) {
        const int rows = covered(y, a.pad_top, a.kernel, a.stride, a.in_height);
        for (int x = first_x; x <= last_x; x++) {
            const int count = rows * covered(x, a.pad_left, a.kernel, a.stride, a.in_width);
            const long long at = ((long long)p.image * a.out_height + y) * a.out_width + x;
            sum += value(a.input + at * channels + channel) / (float)count;
        }
    }
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
