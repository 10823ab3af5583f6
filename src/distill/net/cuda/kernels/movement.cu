// What is done value by value, and what moves values: a thread makes one value of its result.

// Planar single precision to and from a batch: [image][channel][pixel].
struct Repack {
    float* planar;
    real* packed;
    const float* factor;  // of each value; null: 1
    int images, channels, pixels;
    int keep;
};

// Threads follow the packed order.
ENTRY(pack, Repack) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.images * a.channels * a.pixels) return;
    const int channel = i % a.channels;
    const int at = i / a.channels, image = at / a.pixels, pixel = at % a.pixels;
    const float v = a.planar[(image * a.channels + channel) * a.pixels + pixel];
    put(a.packed + i, a.factor ? v * *a.factor : v, a.keep);
}

ENTRY(unpack, Repack) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.images * a.channels * a.pixels) return;
    const int channel = i % a.channels;
    const int at = i / a.channels, image = at / a.pixels, pixel = at % a.pixels;
    a.planar[(image * a.channels + channel) * a.pixels + pixel] = value(a.packed + i);
}

struct Elementwise {
    const real* first;
    const real* second;
    real* result;
    long long count;
    int activation;
    int keep;
};

ENTRY(sum, Elementwise) {
    start();
    const int i = flat_thread();
    if (i < a.count) store(a.result + i, value(a.first + i) + value(a.second + i));
}

// Copies, or adds to what is there.
ENTRY(accumulate, Elementwise) {
    start();
    const int i = flat_thread();
    if (i < a.count) put(a.result + i, value(a.first + i), a.keep);
}

ENTRY(zero, Elementwise) {
    start();
    const int i = flat_thread();
    if (i < a.count) store(a.result + i, 0.0f);
}

ENTRY(activation, Elementwise) {
    start();
    const int i = flat_thread();
    if (i < a.count) store(a.result + i, activate(a.activation, value(a.first + i)));
}

// first: the activation's input; second: the gradient of its result.
ENTRY(activation_gradient, Elementwise) {
    start();
    const int i = flat_thread();
    if (i < a.count)
        put(a.result + i, sloped(value(a.second + i), slope(a.activation, value(a.first + i))), a.keep);
}

// Channel c of the result is channel c % groups · (channels / groups) + c / groups of the input, each
// counted from its first: a part of a concatenation, a slice, a shuffle, and the gradients of these.
struct Select {
    const real* input;   // from the first channel
    real* result;        // likewise
    int pixels, channels;
    int in_channels, out_channels;  // from pixel to pixel
    int groups;
    int keep;
};

ENTRY(select, Select) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.pixels * a.channels) return;
    const int channel = i % a.channels;
    const long long pixel = i / a.channels;
    const int from = channel % a.groups * (a.channels / a.groups) + channel / a.groups;
    put(a.result + pixel * a.out_channels + channel, value(a.input + pixel * a.in_channels + from), a.keep);
}

// Between a map and one twice as high and wide.
struct Upsample {
    const real* input;
    real* result;
    int images, height, width, channels;  // of the smaller map
    int bilinear;
    int keep;
};

// The weight of row (or column) `of` of the smaller map, of `size`, in row `at` of the larger one.
__device__ __forceinline__ float share(int at, int of, int size, int bilinear) {
    const int own = at / 2;
    if (!bilinear) return own == of ? 1.0f : 0.0f;
    const int beside = at % 2 ? min(own + 1, size - 1) : max(own - 1, 0);
    return (own == of ? 0.75f : 0.0f) + (beside == of ? 0.25f : 0.0f);
}

ENTRY(upsample, Upsample) {
    start();
    const int i = flat_thread();
    if (i >= 4LL * a.images * a.height * a.width * a.channels) return;
    const int channel = i % a.channels;
    const Pixel p(i / a.channels, 2 * a.height, 2 * a.width);
    float sum = 0.0f;
    for (int y = max(p.y / 2 - 1, 0); y <= min(p.y / 2 + 1, a.height - 1); y++) {
        const float of_row = share(p.y, y, a.height, a.bilinear);
        if (of_row == 0.0f) continue;
        for (int x = max(p.x / 2 - 1, 0); x <= min(p.x / 2 + 1, a.width - 1); x++) {
            const float weight = of_row * share(p.x, x, a.width, a.bilinear);
            const long long at = ((long long)p.image * a.height + y) * a.width + x;
            if (weight != 0.0f) sum += weight * value(a.input + at * a.channels + channel);
        }
    }
    store(a.result + i, sum);
}

ENTRY(upsample_gradient, Upsample) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.images * a.height * a.width * a.channels) return;
    const int channel = i % a.channels;
    const Pixel p(i / a.channels, a.height, a.width);
    float sum = 0.0f;
    for (int y = max(2 * p.y - 1, 0); y <= min(2 * p.y + 2, 2 * a.height - 1); y++) {
        const float of_row = share(y, p.y, a.height, a.bilinear);
        if (of_row == 0.0f) continue;
        for (int x = max(2 * p.x - 1, 0); x <= min(2 * p.x + 2, 2 * a.width - 1); x++) {
            const float weight = of_row * share(x, p.x, a.width, a.bilinear);
            const long long at = ((long long)p.image * 2 * a.height + y) * 2 * a.width + x;
            if (weight != 0.0f) sum += weight * value(a.input + at * a.channels + channel);
        }
    }
    put(a.result + i, sum, a.keep);
}

// Each channel of an image times a factor of its own.
struct Scale {
    const real* input;
    const real* factors;
    real* result;
    int images, pixels, channels;  // of an image
    int keep;
};

ENTRY(scale, Scale) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.images * a.pixels * a.channels) return;
    const int image = i / a.channels / a.pixels;
    put(a.result + i, value(a.input + i) * value(a.factors + image * a.channels + i % a.channels), a.keep);
}
